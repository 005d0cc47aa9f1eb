//! Secrets as people hand them in: one bare on standard input, or several as a JSON object.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use crate::secret::{Secret, Text};

/// The shortest secret, in bytes: a shorter one could not be told from ordinary text when answers and logs are
/// searched for it, and is most likely a slip.
pub const MIN_SECRET: usize = 8;
/// The longest secret, in bytes.
pub const MAX_SECRET: usize = 65_536;
const MAX_FIELDS: usize = 32;
const MAX_FIELD_NAME: usize = 64;
const MAX_METADATA: usize = 1024;

/// What is wrong with a secret. No message shows any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing came in.
    #[error("the secret is empty: write it on standard input")]
    Empty,
    /// Shorter than [`MIN_SECRET`].
    #[error("the secret in {0} is shorter than {MIN_SECRET} bytes")]
    TooShort(String),
    /// Longer than [`MAX_SECRET`].
    #[error("the secret in {0} is longer than {MAX_SECRET} bytes")]
    TooLong(String),
    /// A line break or another control character, which no header value may have (RFC 9110 §5.5).
    #[error("the secret in {0} has a line break or another control character")]
    Control(String),
    /// A blank at either end, which a header value loses on the way (RFC 9110 §5.5).
    #[error("the secret in {0} begins or ends with a blank")]
    Blank(String),
    /// Several fields are needed, and what came in is no JSON object of texts.
    #[error("write a JSON object with the texts {}", .0.join(", "))]
    NotAnObject(Vec<String>),
    /// A field is missing.
    #[error("the field {0} is missing")]
    Missing(String),
    /// A field that the connector does not have.
    #[error("there is no field {found}: write {}", expected.join(", "))]
    Unknown {
        /// What was written.
        found: String,
        /// The connector's fields.
        expected: Vec<String>,
    },
    /// The same field twice.
    #[error("the field {0} is there twice")]
    Twice(String),
    /// A name that is not `[a-z0-9_]+`, is too long, or no name at all.
    #[error("{0:?} is no field name: use a to z, 0 to 9 and _, at most {MAX_FIELD_NAME}")]
    Name(String),
    /// No field at all, or too many.
    #[error("an account has 1 to {MAX_FIELDS} fields")]
    Count,
    /// A metadata value that is empty, too long, or has a control character.
    #[error("the metadata {0} must be 1 to {MAX_METADATA} bytes without control characters")]
    Metadata(String),
}

/// Reads secrets for the named fields: where there is one, everything that came in but a line break at the
/// end; where there are several, a JSON object with exactly these.
///
/// # Errors
/// [`Error`], which never shows a secret.
pub fn parse_secret_input<S: AsRef<str>>(
    input: &[u8],
    fields: &[S],
) -> Result<BTreeMap<String, Secret>, Error> {
    let input = without_line_break(input);
    if input.is_empty() {
        return Err(Error::Empty);
    }
    let secrets = match fields {
        [] => return Err(Error::Count),
        [field] => BTreeMap::from([(field.as_ref().to_owned(), Secret::new(input.to_vec()))]),
        several => parse_object(input, several)?,
    };
    check(&secrets)?;
    Ok(secrets)
}

/// Reads what tokens are minted from: a JSON object with some of the known fields.
///
/// # Errors
/// [`Error`], which never shows a secret.
pub fn parse_seed_input(input: &[u8], known: &[&str]) -> Result<BTreeMap<String, Secret>, Error> {
    let input = without_line_break(input);
    if input.is_empty() {
        return Err(Error::Empty);
    }
    let seed = members(input, known)?;
    check_seed(&seed)?;
    Ok(seed)
}

fn without_line_break(input: &[u8]) -> &[u8] {
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    input.strip_suffix(b"\r").unwrap_or(input)
}

fn parse_object<S: AsRef<str>>(input: &[u8], fields: &[S]) -> Result<BTreeMap<String, Secret>, Error> {
    let secrets = members(input, fields)?;
    match fields.iter().find(|field| !secrets.contains_key(field.as_ref())) {
        Some(missing) => Err(Error::Missing(missing.as_ref().to_owned())),
        None => Ok(secrets),
    }
}

/// The members of an object, all of them among `fields`.
fn members<S: AsRef<str>>(input: &[u8], fields: &[S]) -> Result<BTreeMap<String, Secret>, Error> {
    let expected = || fields.iter().map(|field| field.as_ref().to_owned()).collect::<Vec<_>>();
    // The inner error is dropped: it may quote a secret.
    let Object(members) = serde_json::from_slice(input).map_err(|_| Error::NotAnObject(expected()))?;
    let mut secrets = BTreeMap::new();
    for (name, secret) in members {
        if !fields.iter().any(|field| field.as_ref() == name) {
            return Err(Error::Unknown { found: name, expected: expected() });
        }
        match secrets.entry(name) {
            Entry::Occupied(twice) => return Err(Error::Twice(twice.key().clone())),
            Entry::Vacant(free) => free.insert(secret),
        };
    }
    Ok(secrets)
}

/// The members in the order written, so that one that is there twice is seen.
struct Object(Vec<(String, Secret)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some((name, Text(secret))) = map.next_entry()? {
                    if members.len() == MAX_FIELDS {
                        return Err(de::Error::custom("too many fields"));
                    }
                    members.push((name, secret));
                }
                Ok(Object(members))
            }
        }
        input.deserialize_map(Members)
    }
}

/// What every account's static fields must fulfil. Where there are several, one of them may be a user name, so
/// only one has to be as long as a secret.
pub(super) fn check(fields: &BTreeMap<String, Secret>) -> Result<(), Error> {
    if !(1..=MAX_FIELDS).contains(&fields.len()) {
        return Err(Error::Count);
    }
    for (name, secret) in fields {
        check_name(name)?;
        check_secret(name, secret)?;
    }
    match fields.iter().max_by_key(|(_, secret)| secret.len()) {
        Some((name, longest)) if longest.len() < MIN_SECRET => Err(Error::TooShort(name.clone())),
        _ => Ok(()),
    }
}

/// What a seed must fulfil. No header carries it, so that it may have lines, as keys in PEM do; and it may be nothing.
pub(super) fn check_seed(fields: &BTreeMap<String, Secret>) -> Result<(), Error> {
    if fields.len() > MAX_FIELDS {
        return Err(Error::Count);
    }
    for (name, secret) in fields {
        check_name(name)?;
        match secret.len() {
            0 => return Err(Error::TooShort(name.clone())),
            length if length > MAX_SECRET => return Err(Error::TooLong(name.clone())),
            _ => {}
        }
    }
    Ok(())
}

/// What every account's metadata must fulfil: it goes into host names and messages.
pub(super) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    if metadata.len() > MAX_FIELDS {
        return Err(Error::Count);
    }
    for (name, value) in metadata {
        check_name(name)?;
        if !(1..=MAX_METADATA).contains(&value.len()) || value.chars().any(char::is_control) {
            return Err(Error::Metadata(name.clone()));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=MAX_FIELD_NAME).contains(&name.len()) && name.bytes().all(known) {
        return Ok(());
    }
    Err(Error::Name(name.chars().take(MAX_FIELD_NAME).collect()))
}

/// What every secret must fulfil: a header has to carry it.
pub(super) fn check_secret(name: &str, secret: &Secret) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "checked once, on its way into the vault")]
    let bytes = secret.expose();
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    match bytes.len() {
        0 => return Err(Error::TooShort(name.to_owned())),
        length if length > MAX_SECRET => return Err(Error::TooLong(name.to_owned())),
        _ => {}
    }
    if bytes.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Error::Control(name.to_owned()));
    }
    if is_blank(bytes.first()) || is_blank(bytes.last()) {
        return Err(Error::Blank(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str, fields: &[&str]) -> Result<Vec<(String, Vec<u8>)>, Error> {
        #[expect(clippy::disallowed_methods, reason = "the test compares it")]
        let plain = |(name, secret): (String, Secret)| (name, secret.expose().to_vec());
        parse_secret_input(input.as_bytes(), fields).map(|secrets| secrets.into_iter().map(plain).collect())
    }

    #[test]
    fn one_field_takes_what_came_in_without_the_last_line_break() {
        for input in ["xoxb-12345", "xoxb-12345\n", "xoxb-12345\r\n"] {
            assert_eq!(read(input, &["token"]).unwrap(), [("token".to_owned(), b"xoxb-12345".to_vec())]);
        }
        let json = r#"{"type":"service_account"}"#;
        assert_eq!(read(json, &["token"]).unwrap(), [("token".to_owned(), json.as_bytes().to_vec())]);
    }

    #[test]
    fn several_fields_come_as_an_object() {
        let both =
            read("{\"app_key\": \"app-12345\", \"api_key\": \"a\\u0070i-12345\"}\n", &["api_key", "app_key"]);
        let expected = [("api_key", "api-12345"), ("app_key", "app-12345")];
        assert_eq!(both.unwrap(), expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        assert!(read(r#"{"user": "bob", "password": "correct horse"}"#, &["user", "password"]).is_ok());
    }

    #[test]
    fn what_cannot_be_a_credential_is_refused() {
        let token = || "token".to_owned();
        for (input, error) in [
            ("", Error::Empty),
            ("\n", Error::Empty),
            ("short12", Error::TooShort(token())),
            (&"x".repeat(MAX_SECRET + 1), Error::TooLong(token())),
            ("two\nlines-of-it", Error::Control(token())),
            ("two\rlines-of-it", Error::Control(token())),
            ("xoxb-12345\n\n", Error::Control(token())),
            ("nul\0nul\0nul", Error::Control(token())),
            ("xoxb-12345 ", Error::Blank(token())),
            ("\txoxb-12345", Error::Blank(token())),
        ] {
            assert_eq!(read(input, &["token"]), Err(error), "{input:.20?}");
        }
        assert!(read(&"x".repeat(MAX_SECRET), &["token"]).is_ok());
        assert!(read("12345678", &["token"]).is_ok());
        assert_eq!(read("12345678", &["Token"]), Err(Error::Name("Token".to_owned())));
        assert_eq!(read("12345678", &[]), Err(Error::Count));
    }

    #[test]
    fn an_object_has_exactly_the_fields() {
        let expected = || vec!["user".to_owned(), "password".to_owned()];
        for (input, error) in [
            ("not json", Error::NotAnObject(expected())),
            (r#"["secret-secret"]"#, Error::NotAnObject(expected())),
            (r#"{"user": 7, "password": "secret-secret"}"#, Error::NotAnObject(expected())),
            (r#"{"user": "bob"}"#, Error::Missing("password".to_owned())),
            (r#"{"user": "a", "user": "b", "password": "secret-secret"}"#, Error::Twice("user".to_owned())),
            (
                r#"{"user": "a", "pass": "secret-secret"}"#,
                Error::Unknown { found: "pass".to_owned(), expected: expected() },
            ),
            (r#"{"user": "bob", "password": "short"}"#, Error::TooShort("password".to_owned())),
            (r#"{"user": "", "password": "secret-secret"}"#, Error::TooShort("user".to_owned())),
            (r#"{"user": "bob", "password": "secret\nsecret"}"#, Error::Control("password".to_owned())),
        ] {
            let refused = read(input, &["user", "password"]);
            assert!(!format!("{refused:?}").contains("secret-secret"), "the message shows no secret");
            assert_eq!(refused, Err(error), "{input}");
        }
    }
}
