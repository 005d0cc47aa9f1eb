//! Whom an event is about (RFC 9493, with the complex subjects of the Shared Signals Framework).

use serde_json::{Map, Value};

/// One way in which a subject is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// An address: `email`, or `account` (`acct:alice@acme.example`).
    Address(String),
    /// An identifier that its issuer made: `iss_sub`; `opaque`, whose issuer is the transmitter.
    Id {
        /// Whose identifier it is; `None` for the transmitter's.
        issuer: Option<String>,
        /// The identifier.
        id: String,
    },
}

/// Whom an event is about, as far as it can be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// The ways in which the user is named; any of them will do.
    pub(super) names: Vec<Name>,
    /// The identifier of the customer organisation, where a complex subject has one.
    pub(super) tenant: Option<String>,
}

/// How deep `complex` and `aliases` may be in one another.
const DEPTH: usize = 3;

impl Subject {
    /// Reads a subject; `None` for what is none. One of an unknown format names nobody.
    pub(super) fn read(value: &Value) -> Option<Self> {
        Self::within(value.as_object()?, DEPTH)
    }

    fn within(object: &Map<String, Value>, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let text = |member: &str| object.get(member).and_then(Value::as_str);
        let part = |member: &str| object.get(member).and_then(Value::as_object);
        let one = |name: Name| Self { names: vec![name], tenant: None };
        // Drafts before the RFC wrote `subject_type` and `iss-sub`; complex subjects had neither.
        let format = text("format").or_else(|| text("subject_type"));
        Some(match format.unwrap_or("complex") {
            "email" => one(Name::Address(text("email")?.to_owned())),
            "account" => one(Name::Address(text("uri")?.strip_prefix("acct:")?.to_owned())),
            "iss_sub" | "iss-sub" => {
                one(Name::Id { issuer: Some(text("iss")?.to_owned()), id: text("sub")?.to_owned() })
            }
            "opaque" => one(Name::Id { issuer: None, id: text("id")?.to_owned() }),
            "aliases" => {
                let all = object.get("identifiers")?.as_array()?.iter();
                let all = all.filter_map(|one| Self::within(one.as_object()?, depth));
                Self { names: all.flat_map(|subject| subject.names).collect(), tenant: None }
            }
            "complex" => {
                let user = match part("user") {
                    Some(user) => Self::within(user, depth)?,
                    None => Self::default(),
                };
                let tenant = part("tenant").and_then(|tenant| Self::within(tenant, depth));
                let tenant = tenant.and_then(|tenant| match tenant.names.into_iter().next()? {
                    Name::Id { id, .. } => Some(id),
                    Name::Address(_) => None,
                });
                if format.is_none() && part("user").is_none() {
                    return None;
                }
                Self { tenant, ..user }
            }
            _ => Self::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(issuer: Option<&str>, id: &str) -> Name {
        Name::Id { issuer: issuer.map(str::to_owned), id: id.to_owned() }
    }

    fn names(value: &Value) -> Vec<Name> {
        Subject::read(value).unwrap().names
    }

    #[test]
    fn every_format_that_names_a_user_is_read() {
        let address = Name::Address("alice@acme.example".to_owned());
        assert_eq!(
            names(&json!({"format": "email", "email": "alice@acme.example"})),
            std::slice::from_ref(&address)
        );
        assert_eq!(
            names(&json!({"format": "account", "uri": "acct:alice@acme.example"})),
            std::slice::from_ref(&address)
        );
        assert_eq!(
            names(&json!({"format": "iss_sub", "iss": "https://idp", "sub": "7"})),
            [id(Some("https://idp"), "7")]
        );
        assert_eq!(names(&json!({"subject_type": "iss-sub", "iss": "i", "sub": "7"})), [id(Some("i"), "7")]);
        assert_eq!(names(&json!({"format": "opaque", "id": "00u1"})), [id(None, "00u1")]);
        let aliases = json!({"format": "aliases", "identifiers": [
            {"format": "opaque", "id": "00u1"}, {"format": "phone_number", "phone_number": "+1"},
            {"format": "email", "email": "alice@acme.example"}]});
        assert_eq!(names(&aliases), [id(None, "00u1"), address]);
    }

    #[test]
    fn a_complex_subject_names_its_user_and_tenant() {
        let user = json!({"format": "iss_sub", "iss": "i", "sub": "7"});
        let complex = json!({"format": "complex", "user": user, "tenant": {"format": "opaque", "id": "T1"},
            "session": {"format": "opaque", "id": "s"}});
        let expected = Subject { names: vec![id(Some("i"), "7")], tenant: Some("T1".to_owned()) };
        assert_eq!(Subject::read(&complex), Some(expected.clone()));
        let without_format = json!({"user": user, "tenant": {"format": "opaque", "id": "T1"}});
        assert_eq!(Subject::read(&without_format), Some(expected));
        assert_eq!(names(&json!({"format": "complex", "session": {"format": "opaque", "id": "s"}})), []);
    }

    #[test]
    fn what_names_nobody_is_told_from_what_is_no_subject() {
        assert_eq!(names(&json!({"format": "phone_number", "phone_number": "+12065550100"})), []);
        for bad in [
            json!(null),
            json!("alice"),
            json!({}),
            json!({"format": "email"}),
            json!({"format": "email", "email": 7}),
            json!({"format": "account", "uri": "mailto:a@b"}),
            json!({"format": "iss_sub", "sub": "7"}),
            json!({"format": "opaque"}),
            json!({"format": "complex", "user": {"format": "email"}}),
        ] {
            assert_eq!(Subject::read(&bad), None, "{bad}");
        }
        let deep = (0..9).fold(
            json!({"format": "opaque", "id": "7"}),
            |user, _| json!({"format": "complex", "user": user}),
        );
        assert_eq!(Subject::read(&deep), None);
    }
}
