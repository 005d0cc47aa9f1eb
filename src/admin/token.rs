//! The bearer tokens that operators, directories and transmitters must send: read from files.

use std::{fs, path::Path};

use zeroize::Zeroizing;

use super::Error;
use crate::secret::Secret;

/// How many characters a token has.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=1024;

/// Reads the token that a file holds.
///
/// # Errors
/// [`Error::Token`], [`Error::TokenText`].
pub(super) fn read(path: &Path) -> Result<Secret, Error> {
    let failed = |source| Error::Token { path: path.to_owned(), source };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let token = text.trim();
    if !LENGTH.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::TokenText(path.to_owned()));
    }
    Ok(Secret::new(token.as_bytes().to_vec()))
}
