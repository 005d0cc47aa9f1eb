//! A user's attributes as the client wrote them, with those that matter here checked and spelt one way.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{error::Error, urn};

/// The attributes of RFC 7643 §4.1 and §3.1, which clients may write in any case (§2.1).
const KNOWN: [&str; 21] = [
    "userName",
    "externalId",
    "active",
    "name",
    "displayName",
    "nickName",
    "profileUrl",
    "title",
    "userType",
    "preferredLanguage",
    "locale",
    "timezone",
    "emails",
    "phoneNumbers",
    "ims",
    "photos",
    "addresses",
    "entitlements",
    "roles",
    "x509Certificates",
    "schemas",
];

/// What is never taken from a client: what is ours to say, what only groups say, and a secret that nobody needs.
const IGNORED: [&str; 5] = ["id", "meta", "groups", "password", "schemas"];

/// The longest userName and externalId, in bytes.
const LONGEST: usize = 1024;

/// The attributes of one user. There is always a `userName`, and `active` is always a boolean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Attributes(Map<String, Value>);

impl Attributes {
    /// Reads a whole user, as POST and PUT send it. Who does not say whether the user is active means `active`.
    pub(super) fn read(body: Map<String, Value>, active: bool) -> Result<Self, Error> {
        let mut attributes = Map::new();
        for (name, value) in body {
            let name = spelt(urn::without_core(&name));
            if name.eq_ignore_ascii_case(urn::USER) {
                return Err(Error::Value("the attributes of users stand at the top"));
            }
            if is_ignored(&name) || value.is_null() {
                continue;
            }
            if attributes.insert(name, value).is_some() {
                return Err(Error::Value("an attribute is there twice, in two spellings"));
            }
        }
        attributes.entry("active").or_insert(active.into());
        Self::checked(attributes)
    }

    /// Checks what matters here.
    pub(super) fn checked(mut attributes: Map<String, Value>) -> Result<Self, Error> {
        let active = attributes.get("active").and_then(truth);
        let active = active.ok_or(Error::Value("active must be true or false"))?;
        attributes.insert("active".to_owned(), active.into());
        match attributes.get("userName") {
            Some(Value::String(name)) if (1..=LONGEST).contains(&name.trim().len()) => {}
            _ => return Err(Error::Value("userName must be a text of 1 to 1024 bytes")),
        }
        match attributes.get("externalId") {
            None => {}
            Some(Value::String(id)) if (1..=LONGEST).contains(&id.len()) => {}
            Some(_) => return Err(Error::Value("externalId must be a text of 1 to 1024 bytes")),
        }
        Ok(Self(attributes))
    }

    pub(super) const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) fn is_active(&self) -> bool {
        self.0.get("active").and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn user_name(&self) -> &str {
        self.text("userName").unwrap_or_default()
    }

    pub(super) fn external_id(&self) -> Option<&str> {
        self.text("externalId")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// The addresses, the primary one first.
    pub(super) fn emails(&self) -> Vec<&str> {
        let all = self.0.get("emails").and_then(Value::as_array).into_iter().flatten();
        let mut emails: Vec<(bool, &str)> = all
            .filter_map(|email| {
                let primary = email.get("primary").and_then(truth).unwrap_or(false);
                Some((!primary, email.get("value")?.as_str()?))
            })
            .collect();
        emails.sort_by_key(|(second, _)| *second);
        emails.into_iter().map(|(_, email)| email).collect()
    }

    /// The schemas that the attributes are of.
    pub(super) fn schemas(&self) -> Vec<&str> {
        let extensions = self.0.keys().map(String::as_str).filter(|name| urn::extension(name).is_some());
        std::iter::once(urn::USER).chain(extensions).collect()
    }
}

/// The name under which an object has an attribute, whatever its case.
pub(super) fn find(object: &Map<String, Value>, name: &str) -> Option<String> {
    if object.contains_key(name) {
        return Some(name.to_owned());
    }
    object.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned()
}

/// A known attribute in its own spelling; any other as it was written.
pub(super) fn spelt(name: &str) -> String {
    KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name)).map_or(name, |known| known).to_owned()
}

pub(super) fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|ignored| ignored.eq_ignore_ascii_case(name))
}

/// A boolean, also as Entra writes it: `"False"`, and `[{"value": "False"}]`.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Value::Array(values) => match values.as_slice() {
            [only] => truth(only.get("value").unwrap_or(only)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Attributes, Error> {
        let Value::Object(body) = body else { panic!("an object") };
        Attributes::read(body, true)
    }

    #[test]
    fn attributes_are_taken_in_any_case_and_kept_in_their_own() {
        let taken = read(json!({"USERNAME": "alice", "Active": "False", "DisplayName": "Alice"})).unwrap();
        assert_eq!(
            Value::from(taken.0.clone()),
            json!({"userName": "alice", "active": false, "displayName": "Alice"})
        );
        assert!(!taken.is_active());
    }

    #[test]
    fn active_is_read_as_each_client_writes_it_and_nothing_else_is_taken_for_it() {
        for (value, active) in [
            (json!(true), true),
            (json!(false), false),
            (json!("True"), true),
            (json!("False"), false),
            (json!("false"), false),
            (json!([{"$ref": null, "value": "False"}]), false),
            (json!([false]), false),
        ] {
            assert_eq!(
                read(json!({"userName": "a", "active": value})).unwrap().is_active(),
                active,
                "{value}"
            );
        }
        for bad in [json!("no"), json!(0), json!({}), json!([]), json!([true, false]), json!("")] {
            assert!(read(json!({"userName": "a", "active": bad})).is_err(), "{bad}");
        }
        assert!(read(json!({"userName": "a", "active": null})).unwrap().is_active(), "as left out");
    }

    #[test]
    fn a_password_and_what_is_ours_to_say_are_not_kept() {
        let body = json!({"userName": "a", "password": "kb-canary-scim-1", "Password": "kb-canary-scim-2", "id": "7",
            "meta": {}, "groups": [], "schemas": [urn::USER]});
        let taken = read(body).unwrap();
        assert_eq!(Value::from(taken.0), json!({"userName": "a", "active": true}));
    }

    #[test]
    fn a_user_has_a_name() {
        for bad in [json!({}), json!({"userName": ""}), json!({"userName": " "}), json!({"userName": 7})] {
            assert!(matches!(read(bad), Err(Error::Value(_))));
        }
        assert!(read(json!({"userName": "x".repeat(LONGEST + 1)})).is_err());
        assert!(read(json!({"userName": "a", "externalId": 7})).is_err());
        assert!(read(json!({"userName": "a", "active": true, "Active": false})).is_err(), "which of them?");
        assert!(read(json!({"userName": "a", (urn::USER): {"active": false}})).is_err());
    }

    #[test]
    fn the_primary_address_comes_first() {
        let emails = json!([{"value": "b@x"}, {"type": "home"}, {"value": "a@x", "primary": "True"}]);
        assert_eq!(read(json!({"userName": "a", "emails": emails})).unwrap().emails(), ["a@x", "b@x"]);
    }
}
