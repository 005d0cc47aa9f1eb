//! PATCH (RFC 7644 §3.5.2), with what Okta and Entra make of it: `Replace` for `replace`, values without a path whose
//! members are paths, booleans as texts.

use serde_json::{Map, Value};

use super::{
    attributes::{Attributes, find, is_ignored, spelt},
    error::Error,
    filter::Equals,
    urn,
};

/// More than any client sends at once.
const OPERATIONS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Replace,
    Remove,
}

/// Where a change goes: `active`, `name.givenName`, `emails[type eq "work"].value`, an extension's attribute.
#[derive(Debug, PartialEq, Eq)]
struct Path {
    /// The extension, where it is not the schema of users.
    schema: Option<String>,
    /// Empty where the extension as a whole is meant.
    attribute: String,
    filter: Option<Equals>,
    sub: Option<String>,
}

/// The attributes after the changes that `body` asks for: all of them, or none.
pub(super) fn apply(before: &Attributes, body: &Map<String, Value>) -> Result<Attributes, Error> {
    let operations = member(body, "Operations").and_then(Value::as_array).filter(|all| !all.is_empty());
    let operations = operations.ok_or(Error::Value("a patch has a list of Operations"))?;
    if operations.len() > OPERATIONS {
        return Err(Error::Value("a patch has at most 256 Operations"));
    }
    let mut attributes = before.as_map().clone();
    for operation in operations {
        let operation = operation.as_object().ok_or(Error::Value("an operation is an object"))?;
        apply_one(&mut attributes, operation)?;
    }
    Attributes::checked(attributes)
}

fn apply_one(attributes: &mut Map<String, Value>, operation: &Map<String, Value>) -> Result<(), Error> {
    let op = Op::parse(member(operation, "op"))?;
    let value = member(operation, "value").cloned();
    match member(operation, "path") {
        None | Some(Value::Null) => match (op, value) {
            (Op::Remove, _) => Err(Error::Target),
            (_, Some(Value::Object(members))) => each_member(attributes, op, members),
            _ => Err(Error::Value("without a path, the value is an object")),
        },
        Some(Value::String(path)) => {
            let path = Path::parse(path)?;
            if path.schema.is_none() && ["id", "meta"].contains(&path.attribute.as_str()) {
                return Err(Error::Mutability);
            }
            change(attributes, op, &path, value)
        }
        Some(_) => Err(Error::Path("a path is a text")),
    }
}

fn each_member(
    attributes: &mut Map<String, Value>,
    op: Op,
    members: Map<String, Value>,
) -> Result<(), Error> {
    for (name, value) in members {
        change(attributes, op, &Path::parse(&name)?, Some(value))?;
    }
    Ok(())
}

fn change(
    attributes: &mut Map<String, Value>,
    op: Op,
    path: &Path,
    value: Option<Value>,
) -> Result<(), Error> {
    if path.schema.is_none() && is_ignored(&path.attribute) {
        return Ok(());
    }
    let value = match (op, value) {
        (Op::Remove, _) | (Op::Replace, Some(Value::Null)) => None,
        (_, Some(Value::Null) | None) => return Err(Error::Value("the operation has no value")),
        (_, value) => value,
    };
    if value.is_none() && path.schema.is_none() && path.attribute == "active" {
        return Err(Error::Value("active cannot be removed: set it to true or false"));
    }
    match &path.schema {
        None => path.change(attributes, op, value),
        Some(schema) if path.attribute.is_empty() => {
            set(attributes, schema, op, value);
            Ok(())
        }
        Some(schema) => {
            let name = find(attributes, schema).unwrap_or_else(|| schema.clone());
            let extension = attributes.entry(name).or_insert_with(|| Map::new().into());
            path.change(extension.as_object_mut().ok_or(NO_OBJECT)?, op, value)
        }
    }
}

const NO_OBJECT: Error = Error::Path("the path goes into an attribute that has no parts");

impl Op {
    fn parse(op: Option<&Value>) -> Result<Self, Error> {
        match op.and_then(Value::as_str).map(str::to_ascii_lowercase).as_deref() {
            Some("add") => Ok(Self::Add),
            Some("replace") => Ok(Self::Replace),
            Some("remove") => Ok(Self::Remove),
            _ => Err(Error::Value("op is add, replace or remove")),
        }
    }
}

impl Path {
    fn parse(text: &str) -> Result<Self, Error> {
        let text = urn::without_core(text.trim());
        let (front, rest) = match text.split_once('[') {
            Some((front, rest)) => (front, Some(rest)),
            None => (text, None),
        };
        let (schema, attribute) = match urn::extension(front) {
            Some((schema, attribute)) => (Some(schema.to_owned()), attribute),
            None => (None, front),
        };
        let (attribute, filter, sub) = match rest {
            None => match attribute.split_once('.') {
                Some((attribute, sub)) => (attribute, None, Some(sub)),
                None => (attribute, None, None),
            },
            Some(rest) => {
                let (filter, after) = rest.rsplit_once(']').ok_or(Error::Path("the path lacks a ]"))?;
                let sub = match after.strip_prefix('.') {
                    Some(sub) => Some(sub),
                    None if after.is_empty() => None,
                    None => return Err(Error::Path("after ] comes a dot, or nothing")),
                };
                (attribute, Some(Equals::parse(filter)?), sub)
            }
        };
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"$-_".contains(&b))
        };
        let whole_extension = schema.is_some() && attribute.is_empty() && rest.is_none();
        let is_core = schema.as_deref().is_some_and(|schema| schema.eq_ignore_ascii_case(urn::USER));
        if is_core || !(is_name(attribute) || whole_extension) || !sub.is_none_or(is_name) {
            return Err(Error::Path("the path names no attribute"));
        }
        let attribute = if schema.is_none() { spelt(attribute) } else { attribute.to_owned() };
        Ok(Self { schema, attribute, filter, sub: sub.map(str::to_owned) })
    }

    /// Changes an object's attribute; without a value, removes it.
    fn change(&self, object: &mut Map<String, Value>, op: Op, value: Option<Value>) -> Result<(), Error> {
        match (&self.filter, &self.sub) {
            (None, None) => set(object, &self.attribute, op, value),
            (None, Some(sub)) => {
                let name = find(object, &self.attribute).unwrap_or_else(|| self.attribute.clone());
                let whole = object.entry(name).or_insert_with(|| Map::new().into());
                set(whole.as_object_mut().ok_or(NO_OBJECT)?, sub, op, value);
            }
            (Some(filter), sub) => {
                let name = find(object, &self.attribute).unwrap_or_else(|| self.attribute.clone());
                let all = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let all = all.as_array_mut().ok_or(NO_OBJECT)?;
                among(all, filter, sub.as_deref(), op, value)?;
            }
        }
        Ok(())
    }
}

/// Changes those of several values that the filter fits.
fn among(
    all: &mut Vec<Value>,
    filter: &Equals,
    sub: Option<&str>,
    op: Op,
    value: Option<Value>,
) -> Result<(), Error> {
    let fits = |value: &Value| value.as_object().is_some_and(|object| filter.fits(object));
    if !all.iter().any(fits) {
        match op {
            Op::Add => all.push(filter.made().into()),
            Op::Replace | Op::Remove => return Err(Error::Target),
        }
    }
    match (sub, value) {
        (None, None) => all.retain(|value| !fits(value)),
        (None, Some(Value::Object(members))) => {
            for object in all.iter_mut().filter(|value| fits(value)).filter_map(Value::as_object_mut) {
                object.extend(members.clone());
            }
        }
        (None, Some(_)) => return Err(Error::Value("one of several values is an object")),
        (Some(sub), value) => {
            for object in all.iter_mut().filter(|value| fits(value)).filter_map(Value::as_object_mut) {
                set(object, sub, op, value.clone());
            }
        }
    }
    Ok(())
}

/// Sets one attribute of an object. Objects are merged, and what is added to a list joins it (RFC 7644 §3.5.2.1).
fn set(object: &mut Map<String, Value>, name: &str, op: Op, value: Option<Value>) {
    let name = find(object, name).unwrap_or_else(|| name.to_owned());
    let Some(value) = value else {
        object.remove(&name);
        return;
    };
    match (object.get_mut(&name), value) {
        (Some(Value::Object(before)), Value::Object(members)) => before.extend(members),
        (Some(Value::Array(before)), Value::Array(more)) if op == Op::Add => {
            for one in more {
                if !before.contains(&one) {
                    before.push(one);
                }
            }
        }
        (_, value) => {
            object.insert(name, value);
        }
    }
}

/// A member of a message, whatever the case of its name.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(&find(object, name)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

    fn user() -> Attributes {
        let body = json!({
            "userName": "alice@acme.example", "active": true, "name": {"givenName": "Alice"},
            "emails": [{"type": "work", "value": "alice@acme.example"}],
        });
        Attributes::read(body.as_object().unwrap().clone(), true).unwrap()
    }

    fn patched(operations: &Value) -> Result<Value, Error> {
        let body = json!({"Operations": operations});
        apply(&user(), body.as_object().unwrap()).map(|after| after.as_map().clone().into())
    }

    fn one(operation: &Value) -> Result<Value, Error> {
        patched(&json!([operation]))
    }

    #[test]
    fn active_is_changed_in_every_shape_that_clients_send() {
        for operation in [
            json!({"op": "replace", "path": "active", "value": false}),
            json!({"op": "Replace", "path": "active", "value": "False"}),
            json!({"op": "Replace", "path": "Active", "value": [{"$ref": null, "value": "False"}]}),
            json!({"op": "replace", "value": {"active": false}}),
            json!({"op": "Add", "value": {"Active": "False"}}),
            json!({"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": false}),
            json!({"OP": "replace", "Path": null, "Value": {"id": "7", "active": false}}),
        ] {
            assert_eq!(one(&operation).unwrap()["active"], json!(false), "{operation}");
        }
    }

    #[test]
    fn a_patch_that_cannot_be_understood_changes_nothing() {
        for (operation, error) in [
            (json!({"op": "remove", "path": "active"}), "active cannot be removed"),
            (json!({"op": "replace", "path": "active", "value": null}), "active cannot be removed"),
            (json!({"op": "replace", "path": "active", "value": "no"}), "active must be"),
            (json!({"op": "replace", "path": "active"}), "no value"),
            (json!({"op": "move", "path": "active", "value": false}), "op is"),
            (json!({"op": "replace", "value": false}), "is an object"),
            (json!({"op": "remove"}), "names no path"),
            (json!({"op": "remove", "path": "userName"}), "userName must be"),
            (json!({"op": "replace", "path": "id", "value": "7"}), "not the client's"),
            (json!({"op": "replace", "path": 7, "value": "7"}), "a path is a text"),
            (json!({"op": "replace", "path": "emails[type eq \"work\"", "value": "7"}), "lacks a ]"),
            (json!({"op": "replace", "path": "emails[type eq \"work\"]value", "value": "7"}), "a dot"),
            (json!({"op": "replace", "path": "emails[type gt 7].value", "value": "7"}), "write the filter"),
            (
                json!({"op": "replace", "path": "emails[type eq \"home\"].value", "value": "7"}),
                "no value fits",
            ),
            (json!({"op": "replace", "path": "active.x", "value": "7"}), "no parts"),
            (json!({"op": "replace", "path": "a b", "value": "7"}), "names no attribute"),
            (json!({"op": "replace", "path": "", "value": "7"}), "names no attribute"),
            (json!({"op": "replace", "value": {(urn::USER): {"active": false}}}), "names no attribute"),
            (json!("replace"), "is an object"),
        ] {
            let refused = one(&operation).unwrap_err().to_string();
            assert!(refused.contains(error), "{operation}: {refused}");
        }
        assert!(patched(&json!([])).is_err() && patched(&json!({})).is_err());
        let many = vec![json!({"op": "replace", "path": "active", "value": false}); OPERATIONS + 1];
        assert!(patched(&json!(many)).is_err());
    }

    #[test]
    fn parts_of_attributes_are_changed_alone() {
        let after = patched(&json!([
            {"op": "Replace", "path": "name.familyName", "value": "Liddell"},
            {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "a@acme.example"},
            {"op": "Add", "path": "emails[type eq \"home\"].value", "value": "a@home.example"},
            {"op": "Add", "value": {"name.honorificPrefix": "Ms", (format!("{ENTERPRISE}:department")): "R&D"}},
            {"op": "add", "path": "emails", "value": [{"type": "home", "value": "a@home.example"}]},
            {"op": "replace", "value": {"password": "kb-canary-scim-3"}},
        ]));
        let expected = json!({
            "userName": "alice@acme.example", "active": true,
            "name": {"givenName": "Alice", "familyName": "Liddell", "honorificPrefix": "Ms"},
            "emails": [{"type": "work", "value": "a@acme.example"}, {"type": "home", "value": "a@home.example"}],
            (ENTERPRISE): {"department": "R&D"},
        });
        assert_eq!(after.unwrap(), expected);
    }

    #[test]
    fn what_is_removed_is_gone() {
        let after = patched(&json!([
            {"op": "remove", "path": "emails[type eq \"work\"]"},
            {"op": "remove", "path": "name.givenName"},
            {"op": "replace", "path": "displayName", "value": "Al"},
            {"op": "replace", "path": "displayName", "value": null},
            {"op": "add", "path": ENTERPRISE, "value": {"department": "R&D"}},
            {"op": "remove", "path": ENTERPRISE},
        ]));
        assert_eq!(
            after.unwrap(),
            json!({"userName": "alice@acme.example", "active": true, "name": {}, "emails": []})
        );
    }
}
