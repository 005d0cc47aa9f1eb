//! Revocation and introspection: RFC 7009 and 7662, and what some have instead.

use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Shared, answer, client,
    profile::{RevokedBy, Takes},
    read::Asked,
    refusal::Why,
};

/// The answer, if the request is for revocation or introspection.
pub(super) fn serve(shared: &Shared, asked: &Asked) -> Option<Response<Body>> {
    let path = asked.path.as_str();
    if shared.profile.introspect == Some(path) {
        return Some(respond(shared, introspect(shared, asked)));
    }
    let by = shared.profile.revocation.by;
    let at = match by {
        RevokedBy::Rfc7009(at)
        | RevokedBy::DeleteBasic(at)
        | RevokedBy::DeleteBearer(at)
        | RevokedBy::PostBearer(at) => at,
        RevokedBy::Nothing => return None,
    };
    (at == path).then(|| respond(shared, revoke(shared, asked, by)))
}

fn respond(shared: &Shared, result: Result<(StatusCode, Value), Why>) -> Response<Body> {
    let answer = result.unwrap_or_else(|why| answer::refused(&shared.profile, why));
    if answer.0 == StatusCode::NO_CONTENT {
        return answer::plain(shared, answer.0, Body::empty());
    }
    answer::json(shared, answer)
}

fn revoke(shared: &Shared, asked: &Asked, by: RevokedBy) -> Result<(StatusCode, Value), Why> {
    let bearer = || asked.bearer().map(str::to_owned).ok_or(Why::Client("no token"));
    let (method, done, token) = match by {
        RevokedBy::Rfc7009(_) => {
            let params = asked.params(Takes::Either)?;
            client::proved(shared, asked, &params)?;
            let token = params.get("token").cloned().ok_or(Why::Request("no token"))?;
            (Method::POST, StatusCode::OK, token)
        }
        RevokedBy::DeleteBasic(_) => {
            let (id, secret) = asked.plain_basic().ok_or(Why::Client("not Basic"))?;
            if shared.apps().get(&id).is_none_or(|app| app.secret != secret) {
                return Err(Why::Client("a wrong secret"));
            }
            let body: Value = serde_json::from_slice(&asked.body).map_err(|_| Why::Request("not JSON"))?;
            let token = body["access_token"].as_str().ok_or(Why::Request("no access_token"))?;
            (Method::DELETE, StatusCode::NO_CONTENT, token.to_owned())
        }
        RevokedBy::DeleteBearer(_) => (Method::DELETE, StatusCode::NO_CONTENT, bearer()?),
        RevokedBy::PostBearer(_) => (Method::POST, StatusCode::OK, bearer()?),
        RevokedBy::Nothing => return Err(Why::Request("nothing is revoked here")),
    };
    if asked.method != method {
        return Err(Why::Request("another method"));
    }
    let known = shared.ledger().revoke(&token, shared.profile.revocation.reach, shared.clock.now());
    Ok((done, if shared.profile.ok { json!({"ok": known, "revoked": known}) } else { json!({}) }))
}

fn introspect(shared: &Shared, asked: &Asked) -> Result<(StatusCode, Value), Why> {
    let params = asked.params(Takes::Form)?;
    client::proved(shared, asked, &params)?;
    let token = params.get("token").ok_or(Why::Request("no token"))?;
    let found = shared.ledger().introspect(token, shared.clock.now());
    let fields = found.map_or_else(
        || json!({"active": false}),
        |(account, client, scopes, until)| {
            json!({
                "active": true,
                "sub": account,
                "client_id": client,
                "scope": scopes.join(" "),
                "exp": until.map(jiff::Timestamp::as_second),
            })
        },
    );
    Ok((StatusCode::OK, fields))
}
