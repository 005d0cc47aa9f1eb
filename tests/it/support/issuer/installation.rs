//! A GitHub App's installation tokens: bought with a JWT of the app's, narrowed to repositories and permissions.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shared, answer, assertion, ledger::Begun, read::Asked};

/// What was installed: by installation id, the repositories and permissions that the owner gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installation {
    pub(crate) repositories: Vec<String>,
    pub(crate) permissions: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Narrowed {
    repositories: Option<Vec<String>>,
    permissions: Option<BTreeMap<String, String>>,
}

/// The answer, if the request is for an installation token.
pub(super) fn serve(shared: &Shared, asked: &Asked) -> Option<Response<Body>> {
    let id = asked.path.strip_prefix("/app/installations/")?.strip_suffix("/access_tokens")?;
    let (status, fields) = mint(shared, asked, id).unwrap_or_else(|(status, message)| {
        (StatusCode::from_u16(status).unwrap(), json!({"message": message}))
    });
    Some(answer::json(shared, (status, fields)))
}

fn mint(shared: &Shared, asked: &Asked, id: &str) -> Result<(StatusCode, Value), (u16, &'static str)> {
    if asked.method != Method::POST {
        return Err((404, "Not Found"));
    }
    let apps = shared.apps();
    let app = asked.bearer().and_then(|jwt| assertion::signed(shared, &apps, jwt).ok());
    let app = app.ok_or((401, "A JSON web token could not be decoded"))?;
    let installed = shared.installations().get(id).cloned().ok_or((404, "Not Found"))?;
    let body = if asked.body.is_empty() { b"{}".as_slice() } else { &asked.body };
    let wanted: Narrowed = serde_json::from_slice(body).map_err(|_| (422, "Unprocessable Entity"))?;
    let repositories = wanted.repositories.unwrap_or_else(|| installed.repositories.clone());
    let permissions = wanted.permissions.unwrap_or_else(|| installed.permissions.clone());
    let within = repositories.iter().all(|repository| installed.repositories.contains(repository))
        && permissions.iter().all(|(name, level)| {
            installed.permissions.get(name).is_some_and(|given| given == level || given == "write")
        });
    if !within {
        return Err((422, "The permissions requested are not granted to this installation."));
    }
    let scopes = permissions.iter().map(|(name, level)| format!("{name}:{level}")).collect();
    let begun = Begun {
        account: format!("installation-{id}"),
        client: app.iss,
        scopes,
        offline: false,
        redirect_uri: None,
    };
    let sold = shared.ledger().begin(begun, &shared.profile, shared.clock.now());
    let fields = json!({
        "token": sold.access,
        "expires_at": sold.access_until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "permissions": permissions,
        "repository_selection": "selected",
        "repositories": repositories.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
    });
    Ok((StatusCode::CREATED, fields))
}
