//! The filters that provisioning clients send: one attribute that equals one value (RFC 7644 §3.4.2.2).

use serde_json::{Map, Value};

use super::{attributes, error::Error, urn};

/// `attribute eq value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Equals {
    attribute: String,
    value: Value,
}

impl Equals {
    /// Reads a filter. Attributes and the operator are written in any case.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = text.trim().splitn(2, char::is_whitespace);
        let (Some(attribute), Some(rest)) = (parts.next(), parts.next()) else { return Err(Error::Filter) };
        let rest = rest.trim_start();
        let (Some(operator), Some(value)) = (rest.get(..2), rest.get(2..)) else { return Err(Error::Filter) };
        if !operator.eq_ignore_ascii_case("eq") || !value.starts_with(char::is_whitespace) {
            return Err(Error::Filter);
        }
        let value = serde_json::from_str(value.trim()).map_err(|_| Error::Filter)?;
        if !matches!(value, Value::String(_) | Value::Bool(_)) {
            return Err(Error::Filter);
        }
        let attribute = urn::without_core(attribute).to_owned();
        Ok(Self { attribute, value })
    }

    /// The filter of a query, which may name only what identifies a user.
    pub(super) fn of_query(text: &str) -> Result<Self, Error> {
        let filter = Self::parse(text)?;
        let known = ["userName", "externalId", "id"];
        let named = known.iter().find(|name| name.eq_ignore_ascii_case(&filter.attribute));
        let attribute = (*named.ok_or(Error::Filter)?).to_owned();
        if !filter.value.is_string() {
            return Err(Error::Filter);
        }
        Ok(Self { attribute, ..filter })
    }

    /// Whether an object has the value. Texts are compared in any case but those of `externalId` and `id`, as
    /// RFC 7643 §3.1 and §4.1.1 have it.
    pub(super) fn fits(&self, object: &Map<String, Value>) -> bool {
        let name = attributes::find(object, &self.attribute);
        let Some(found) = name.and_then(|name| object.get(&name)) else { return false };
        match (found, &self.value) {
            (Value::String(found), Value::String(wanted)) if self.is_exact() => found == wanted,
            (Value::String(found), Value::String(wanted)) => found.to_lowercase() == wanted.to_lowercase(),
            (Value::Bool(found), Value::Bool(wanted)) => found == wanted,
            _ => false,
        }
    }

    /// Whether the resource's identifier is asked for, and is this one.
    pub(super) fn fits_id(&self, id: &str) -> bool {
        self.attribute == "id" && self.value == id
    }

    fn is_exact(&self) -> bool {
        ["externalId", "id"].contains(&self.attribute.as_str())
    }

    /// A new value that the filter fits: clients add to `emails[type eq "work"]` before there is one.
    pub(super) fn made(&self) -> Map<String, Value> {
        [(self.attribute.clone(), self.value.clone())].into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(filter: &str, object: &Value) -> bool {
        Equals::of_query(filter).unwrap().fits(object.as_object().unwrap())
    }

    #[test]
    fn users_are_found_by_what_identifies_them() {
        assert!(fits(r#"userName eq "alice@acme.example""#, &json!({"userName": "Alice@acme.example"})));
        assert!(fits(r#" username  EQ  "a\"b" "#, &json!({"userName": "a\"b"})));
        let full = r#"urn:ietf:params:scim:schemas:core:2.0:User:userName eq "alice""#;
        assert!(fits(full, &json!({"userName": "alice"})));
        assert!(fits(r#"externalId eq "00u1""#, &json!({"externalId": "00u1"})));
        assert!(!fits(r#"externalId eq "00U1""#, &json!({"externalId": "00u1"})), "externalId is exact");
        assert!(!fits(r#"externalId eq "00u1""#, &json!({"userName": "00u1"})));
    }

    #[test]
    fn what_is_no_such_filter_is_refused() {
        for bad in [
            "",
            "userName",
            "userName eq",
            "userName eq alice",
            r#"userName eq"alice""#,
            r#"userName ne "alice""#,
            r#"userName eq "alice" or userName eq "bob""#,
            r#"displayName eq "Alice""#,
            "userName eq true",
            "userName eq 7",
            "userName €",
        ] {
            assert_eq!(Equals::of_query(bad).err(), Some(Error::Filter), "{bad}");
        }
    }
}
