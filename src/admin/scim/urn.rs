//! The names of SCIM's schemas and messages.

/// RFC 7643 §4.1.
pub(super) const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// RFC 7644 §3.4.2.
pub(super) const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
/// RFC 7644 §3.12.
pub(super) const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// An attribute without the schema of users before it.
pub(super) fn without_core(attribute: &str) -> &str {
    match attribute.get(..USER.len()) {
        Some(schema) if schema.eq_ignore_ascii_case(USER) => {
            attribute[USER.len()..].strip_prefix(':').unwrap_or(attribute)
        }
        _ => attribute,
    }
}

/// An attribute of an extension: its schema, and the rest. The schemas of resources end in `:User`.
pub(super) fn extension(attribute: &str) -> Option<(&str, &str)> {
    if !attribute.get(..4).is_some_and(|front| front.eq_ignore_ascii_case("urn:")) {
        return None;
    }
    let end = attribute.rfind(":User").map(|at| at + ":User".len());
    match end {
        Some(end) if end == attribute.len() => Some((attribute, "")),
        Some(end) if attribute[end..].starts_with(':') => Some((&attribute[..end], &attribute[end + 1..])),
        _ => attribute.rsplit_once(':'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

    #[test]
    fn schemas_are_told_from_attributes() {
        assert_eq!(without_core("urn:ietf:params:scim:schemas:core:2.0:user:active"), "active");
        assert_eq!(without_core("active"), "active");
        assert_eq!(extension("name.givenName"), None);
        assert_eq!(extension(ENTERPRISE), Some((ENTERPRISE, "")));
        assert_eq!(extension(&format!("{ENTERPRISE}:department")), Some((ENTERPRISE, "department")));
        assert_eq!(extension("urn:acme:hr:cost"), Some(("urn:acme:hr", "cost")));
    }
}
