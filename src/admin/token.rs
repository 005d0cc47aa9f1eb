//! Bearer tokens: read from files, compared in constant time.

use std::{fs, path::Path};

use http::{HeaderMap, header};
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

/// The token that a request carries.
pub(super) fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim_start().as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_token_is_taken_whatever_the_case_of_its_scheme() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers)
        };
        assert_eq!(of(&["bearer abc"]), Some(Secret::new(b"abc".to_vec())));
        assert_eq!(of(&["Basic abc"]), None);
        assert_eq!(of(&["Bearer"]), None);
        assert_eq!(of(&["Bearer abc", "Bearer abd"]), None, "which of them?");
    }
}
