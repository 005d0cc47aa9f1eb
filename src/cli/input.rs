//! Secrets as they come in: from standard input or a file, never from the arguments.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read},
    path::Path,
};

use zeroize::Zeroizing;

use super::{Failure, output::say};
use crate::{
    admin::{Form, Secrets},
    credential::{parse_seed, seed_form},
    id::AccountKey,
    vault::{MAX_SECRET, parse_secret_input},
};

/// As much as 32 fields may hold, with room for escapes.
const LONGEST: usize = 32 * MAX_SECRET * 2;

/// Reads the secrets of an account. A person at a terminal is told what is expected.
pub(super) fn secrets(key: &AccountKey, form: &Form, from_file: Option<&Path>) -> Result<Secrets, Failure> {
    let Form { connector, kind, fields, .. } = form;
    let kind = *kind;
    let text = match from_file {
        Some(path) => {
            let failed = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
            read(File::open(path).map_err(failed)?).map_err(failed)?
        }
        None if kind.mints() => seed_from_stdin(key, seed_form(kind))?,
        None => from_stdin(key, fields).map_err(|error| unread(&error))?,
    };
    if kind.mints() {
        let seed = parse_seed(kind, &text).map_err(|error| {
            Failure::new(error.to_string()).hint(format!("{} needs {}", connector, seed_form(kind)))
        })?;
        return Ok(Secrets(seed));
    }
    let secrets = parse_secret_input(&text, fields).map_err(|error| {
        let failure = Failure::new(format!("{error}"));
        match fields.as_slice() {
            [_] => failure.hint("the secret is read from standard input, or with --from-file"),
            several => failure.hint(format!("{} needs {}", connector, object(several))),
        }
    })?;
    Ok(Secrets(secrets))
}

fn unread(error: &io::Error) -> Failure {
    Failure::new(format!("cannot read the secret: {error}"))
}

fn seed_from_stdin(key: &AccountKey, form: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        say(format!("Paste what tokens of {key} are minted from, then press Enter and Ctrl-D: {form}"));
    }
    read(stdin.lock()).map_err(|error| unread(&error))
}

fn from_stdin(key: &AccountKey, fields: &[String]) -> io::Result<Zeroizing<Vec<u8>>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read(stdin.lock());
    }
    match fields {
        [field] => {
            say(format!(
                "Paste the {field} of {key}, then press Enter (--from-file F or a pipe does not show it):"
            ));
            // One line: a paste ends with Enter, and a person does not think of Ctrl-D.
            let mut line = Zeroizing::new(Vec::with_capacity(MAX_SECRET));
            stdin.lock().take(LONGEST as u64).read_until(b'\n', &mut line)?;
            Ok(line)
        }
        several => {
            say(format!("Paste the secrets of {key} as {}, then press Enter and Ctrl-D:", object(several)));
            read(stdin.lock())
        }
    }
}

/// Reads into one buffer, which is wiped: one that grows leaves copies behind.
fn read(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(vec![0; LONGEST + 1]);
    let mut from = from;
    let mut length = 0;
    while length < text.len() {
        match from.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > LONGEST {
        return Err(io::Error::other("it is longer than any account may be"));
    }
    text.truncate(length);
    Ok(text)
}

/// `{"api_key": "...", "app_key": "..."}`.
fn object(fields: &[String]) -> String {
    let members: Vec<_> = fields.iter().map(|field| format!("\"{field}\": \"...\"")).collect();
    format!("{{{}}}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ends_where_its_input_ends_and_is_bounded() {
        assert_eq!(read(&b"xoxb-12345\n"[..]).unwrap().as_slice(), b"xoxb-12345\n");
        assert!(read(io::repeat(b'x')).is_err());
    }

    #[test]
    fn several_fields_are_shown_as_the_object_to_write() {
        assert_eq!(
            object(&["api_key".to_owned(), "app_key".to_owned()]),
            r#"{"api_key": "...", "app_key": "..."}"#
        );
    }
}
