//! The bearer tokens that operators, directories and transmitters must send: read from files.

use std::{fs::File, path::Path};

use zeroize::Zeroizing;

use super::Error;
use crate::{regular, secret::Secret};

/// How many characters a token has.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=1024;
/// How many bytes its file may have.
const LONGEST: u64 = 64 << 10;

/// Reads the token that a file holds.
///
/// # Errors
/// [`Error::Token`], [`Error::TokenText`].
pub(super) fn read(path: &Path) -> Result<Secret, Error> {
    let failed = |source| Error::Token { path: path.to_owned(), source };
    let file = File::open(path).and_then(|file| regular::bounded(file, LONGEST));
    let text = Zeroizing::new(file.map_err(failed)?);
    let token = text.trim_ascii();
    if !LENGTH.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
        return Err(Error::TokenText(path.to_owned()));
    }
    Ok(Secret::new(token.to_vec()))
}
