//! The provider's API: it takes live access tokens only, and says no as the provider does.

use std::collections::VecDeque;

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Shared, answer, ledger::Worth, read::Asked};

/// One request to the API.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) worth: Worth,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What the API says to a request although its token is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whim {
    /// As if the token had expired.
    Expired,
    /// As where a scope is missing.
    Scope,
    /// The person has to come by.
    StepUp,
}

/// How a provider says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Rfc6750,
    Salesforce,
    Slack,
    GitHub,
    Google,
    Microsoft,
    /// 401 for a missing scope as well.
    Atlassian,
    Dropbox,
    HubSpot,
    LinkedIn,
    /// 403 for a dead token.
    Vercel,
    /// 401 in GraphQL's errors.
    Linear,
    Zoom,
    /// The token in `X-Shopify-Access-Token`.
    Shopify,
}

pub(super) fn serve(shared: &Shared, asked: &Asked) -> Response<Body> {
    let challenge = shared.profile.challenge;
    let token = match challenge {
        Challenge::Shopify => asked.headers.get("x-shopify-access-token").and_then(|v| v.to_str().ok()),
        _ => asked.bearer(),
    };
    let worth = shared.ledger().worth(token.unwrap_or_default(), shared.clock.now());
    shared.calls().push(Call {
        method: asked.method.clone(),
        path: asked.path.clone(),
        worth: worth.clone(),
        headers: asked.headers.clone(),
        body: asked.body.to_vec(),
    });
    let no = match &worth {
        Worth::Live { .. } => shared.whims().pop_front(),
        Worth::Expired => Some(Whim::Expired),
        Worth::Revoked | Worth::Unknown => return refuse(shared, challenge.revoked()),
    };
    match (no, worth) {
        (None, Worth::Live { account, generation }) => {
            let fields =
                json!({"ok": true, "account": account, "generation": generation, "path": asked.path});
            answer::json(shared, (StatusCode::OK, fields))
        }
        (no, _) => refuse(shared, challenge.words(no.unwrap_or(Whim::Expired))),
    }
}

pub(super) type Whims = VecDeque<Whim>;

type No = (u16, Option<String>, Value);

fn refuse(shared: &Shared, (status, authenticate, body): No) -> Response<Body> {
    let mut response = answer::json(shared, (StatusCode::from_u16(status).unwrap(), body));
    if let Some(value) = authenticate {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::try_from(value).unwrap());
    }
    response
}

impl Challenge {
    fn revoked(self) -> No {
        match self {
            Self::Slack => (200, None, json!({"ok": false, "error": "token_revoked"})),
            Self::Dropbox => (401, None, dropbox("invalid_access_token")),
            Self::LinkedIn => (401, None, linkedin("REVOKED_ACCESS_TOKEN", 65_601)),
            other => other.words(Whim::Expired),
        }
    }

    fn words(self, whim: Whim) -> No {
        match whim {
            Whim::Expired => self.expired(),
            Whim::Scope => self.scope(),
            Whim::StepUp => step_up(),
        }
    }

    fn expired(self) -> No {
        match self {
            Self::Rfc6750 => (401, Some(bearer("invalid_token")), json!({"error": "invalid_token"})),
            Self::Salesforce => (
                401,
                Some("Token".to_owned()),
                json!([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]),
            ),
            Self::Slack => (200, None, json!({"ok": false, "error": "token_expired"})),
            Self::GitHub => (401, None, json!({"message": "Bad credentials", "status": "401"})),
            Self::Google => (
                401,
                Some(bearer("invalid_token")),
                json!({"error": {"code": 401, "message": "Invalid Credentials", "status": "UNAUTHENTICATED"}}),
            ),
            Self::Microsoft => (
                401,
                Some(bearer("invalid_token")),
                json!({"error": {"code": "InvalidAuthenticationToken", "message": "Lifetime validation failed"}}),
            ),
            Self::Atlassian => (401, None, json!({"code": 401, "message": "Unauthorized"})),
            Self::Dropbox => (401, None, dropbox("expired_access_token")),
            Self::HubSpot => (401, None, json!({"status": "error", "category": "EXPIRED_AUTHENTICATION"})),
            Self::LinkedIn => (401, None, linkedin("EXPIRED_ACCESS_TOKEN", 65_602)),
            Self::Vercel => (403, None, json!({"error": {"code": "forbidden", "invalidToken": true}})),
            Self::Linear => {
                (401, None, json!({"errors": [{"extensions": {"code": "AUTHENTICATION_ERROR"}}]}))
            }
            Self::Zoom => (401, None, json!({"code": 124, "message": "Access token is expired."})),
            Self::Shopify => (401, None, json!({"errors": "[API] Invalid API key or access token"})),
        }
    }

    fn scope(self) -> No {
        match self {
            Self::Slack => (
                200,
                None,
                json!({"ok": false, "error": "missing_scope", "needed": "chat:write", "provided": "team:read"}),
            ),
            Self::Atlassian => {
                (401, None, json!({"code": 401, "message": "Unauthorized; scope does not match"}))
            }
            Self::Dropbox => (
                401,
                None,
                json!({"error_summary": "missing_scope/.", "error": {".tag": "missing_scope", "required_scope": "files.content.read"}}),
            ),
            Self::GitHub => (404, None, json!({"message": "Not Found"})),
            Self::Zoom => {
                (400, None, json!({"code": 4711, "message": "Invalid access token, does not contain scopes"}))
            }
            Self::Salesforce => {
                (403, None, json!([{"message": "insufficient access", "errorCode": "INSUFFICIENT_ACCESS"}]))
            }
            _ => (403, Some(bearer("insufficient_scope")), json!({"error": "insufficient_scope"})),
        }
    }
}

fn step_up() -> No {
    let claims = BASE64_STANDARD.encode(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#);
    let value = format!("{}, claims=\"{claims}\"", bearer("insufficient_claims"));
    (401, Some(value), json!({"error": {"code": "InvalidAuthenticationToken"}}))
}

fn bearer(error: &str) -> String {
    format!("Bearer realm=\"provider\", error=\"{error}\"")
}

fn dropbox(tag: &str) -> Value {
    json!({"error_summary": format!("{tag}/.."), "error": {".tag": tag}})
}

fn linkedin(code: &str, number: u32) -> Value {
    json!({"status": 401, "code": code, "serviceErrorCode": number})
}
