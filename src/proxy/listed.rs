//! Header fields that are lists of tokens (RFC 9110 §5.6.1): `Connection`, `Upgrade`, `TE`.

use http::{HeaderMap, HeaderName};

/// Whether any of the fields of that name lists the token, in whatever case.
pub(super) fn is_listed(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

/// What the fields of that name list.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_token_is_found_in_any_field_and_in_any_case_but_not_in_a_part() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive , Upgrade"));
        headers.append(header::CONNECTION, HeaderValue::from_static("x-close"));
        assert!(is_listed(&headers, &header::CONNECTION, "upgrade"));
        assert!(is_listed(&headers, &header::CONNECTION, "keep-alive"));
        assert!(!is_listed(&headers, &header::CONNECTION, "close"));
        assert!(!is_listed(&headers, &header::UPGRADE, "upgrade"));
    }
}
