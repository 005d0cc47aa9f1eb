//! What SCIM clients ask first: what this server can do (RFC 7643 §5–7, RFC 7644 §4).

use serde_json::{Value, json};

use super::urn;

/// The three catalogues, without their locations.
const CATALOGUES: &str = include_str!("discovery.json");

/// What stands at a path below `/scim/v2/`; `base` stands before locations.
pub(super) fn resource(path: &str, base: &str) -> Option<Value> {
    let mut catalogues: Value = serde_json::from_str(CATALOGUES).ok()?;
    let (kind, id) = match path.split_once('/') {
        Some((kind, id)) => (kind, Some(id)),
        None => (path, None),
    };
    let found = catalogues.get_mut(kind).map(Value::take)?;
    match (found, id) {
        (Value::Array(all), None) => {
            let all: Vec<Value> = all.into_iter().map(|one| located(one, kind, base)).collect();
            Some(json!({
                "schemas": [urn::LIST], "totalResults": all.len(), "startIndex": 1,
                "itemsPerPage": all.len(), "Resources": all,
            }))
        }
        (Value::Array(all), Some(id)) => {
            let one = all.into_iter().find(|one| one["id"] == id)?;
            Some(located(one, kind, base))
        }
        (one, None) => Some(located(one, kind, base)),
        (_, Some(_)) => None,
    }
}

fn located(mut resource: Value, kind: &str, base: &str) -> Value {
    let id = resource["id"].as_str().map(|id| format!("/{id}")).unwrap_or_default();
    let resource_type = kind.strip_suffix('s').unwrap_or(kind);
    resource["meta"] = json!({"resourceType": resource_type, "location": format!("{base}/{kind}{id}")});
    resource
}

#[cfg(test)]
mod tests {
    use super::{super::LARGEST_PAGE, *};

    #[test]
    fn what_the_server_can_do_is_said_as_it_is() {
        let config = resource("ServiceProviderConfig", "https://kb.example/scim/v2").unwrap();
        assert_eq!(config["patch"]["supported"], true);
        assert_eq!(config["bulk"]["supported"], false);
        assert_eq!(config["filter"]["maxResults"], LARGEST_PAGE);
        assert_eq!(config["meta"]["location"], "https://kb.example/scim/v2/ServiceProviderConfig");
    }

    #[test]
    fn catalogues_are_listed_and_shown_one_by_one() {
        let types = resource("ResourceTypes", "").unwrap();
        assert_eq!(
            (&types["totalResults"], &types["Resources"][0]["endpoint"]),
            (&json!(1), &json!("/Users"))
        );
        let schemas = resource("Schemas", "").unwrap();
        let ids: Vec<&str> =
            schemas["Resources"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        for id in ids {
            let one = resource(&format!("Schemas/{id}"), "").unwrap();
            assert_eq!(one["id"], id);
            assert!(one["attributes"].as_array().is_some_and(|all| !all.is_empty()), "{id}");
        }
        for nothing in ["Groups", "Schemas/urn:nothing", "ServiceProviderConfig/x", "", "Me"] {
            assert_eq!(resource(nothing, ""), None, "{nothing}");
        }
    }
}
