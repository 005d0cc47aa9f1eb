//! `Authorization: Bearer`: the token by which whoever asks us, and no provider, proves who they are.

use http::{HeaderMap, header};

use crate::secret::Secret;

/// The one bearer token that a request carries (RFC 6750 §2.1). Two would be one too many to tell whose it is.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| Secret::new(token.trim_matches(' ').as_bytes().to_vec()))
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
