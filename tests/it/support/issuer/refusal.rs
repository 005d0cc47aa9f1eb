//! Why a request is refused, and the words that each provider has for it.

use http::StatusCode;
use serde_json::{Value, json};

/// Why, whatever the provider calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Not a request that this endpoint takes; the sentence is for the person who reads a failed test.
    Request(&'static str),
    /// The client is unknown or did not prove itself.
    Client(&'static str),
    GrantType,
    Scope,
    /// A code, a refresh token or an assertion that is not good.
    Grant(Cause),
    /// The person has to come by first.
    StepUp,
}

/// What ended a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No such token, or one that was spent.
    Unknown,
    /// It was another client's.
    OtherClient,
    Revoked,
    Expired,
    Idle,
    /// The person was disabled at the provider.
    UserDisabled,
    /// The app was taken out of the provider's account.
    Uninstalled,
    /// An administrator's policy.
    Policy,
}

/// How a provider spells a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wording {
    Rfc6749,
    /// 200 and `ok: false`.
    Slack,
    /// 200 and `error`.
    GitHub,
    Google,
    Microsoft,
    Salesforce,
    /// 403 for a bad refresh token; `access_denied` for a bad secret, too.
    Atlassian,
    /// `status` and `message`.
    HubSpotV1,
    /// 401 for a bad refresh token.
    Unauthorized,
}

impl Wording {
    pub(super) fn of(self, why: Why) -> (StatusCode, Value) {
        match self {
            Self::Rfc6749 => rfc6749(why),
            Self::Slack => (StatusCode::OK, json!({"ok": false, "error": slack(why)})),
            Self::GitHub => (StatusCode::OK, github(why)),
            Self::Google => google(why),
            Self::Microsoft => microsoft(why),
            Self::Salesforce => salesforce(why),
            Self::Atlassian => atlassian(why),
            Self::HubSpotV1 => hubspot(why),
            Self::Unauthorized => match why {
                Why::Grant(_) => (StatusCode::UNAUTHORIZED, rfc6749(why).1),
                _ => rfc6749(why),
            },
        }
    }
}

fn rfc6749(why: Why) -> (StatusCode, Value) {
    let (status, error, description) = match why {
        Why::Request(what) => (400, "invalid_request", what),
        Why::Client(what) => (401, "invalid_client", what),
        Why::GrantType => (400, "unsupported_grant_type", "this grant is not for sale"),
        Why::Scope => (400, "invalid_scope", "more than was granted"),
        Why::Grant(cause) => (400, "invalid_grant", sentence(cause)),
        Why::StepUp => (400, "interaction_required", "the person has to come by"),
    };
    let status = StatusCode::from_u16(status).unwrap();
    (status, json!({"error": error, "error_description": description}))
}

fn sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::Unknown => "no such token, or spent",
        Cause::OtherClient => "issued to another client",
        Cause::Revoked => "revoked",
        Cause::Expired => "expired",
        Cause::Idle => "expired, for it was not used",
        Cause::UserDisabled => "inactive user",
        Cause::Uninstalled => "the app is not installed",
        Cause::Policy => "a policy forbids it",
    }
}

fn slack(why: Why) -> &'static str {
    match why {
        Why::Request(_) => "invalid_arguments",
        Why::Client(_) => "bad_client_secret",
        Why::GrantType => "invalid_grant_type",
        Why::Scope => "invalid_scope",
        Why::StepUp => "org_login_required",
        Why::Grant(Cause::Revoked | Cause::Uninstalled) => "token_revoked",
        Why::Grant(Cause::UserDisabled) => "account_inactive",
        Why::Grant(_) => "invalid_refresh_token",
    }
}

fn github(why: Why) -> Value {
    let error = match why {
        Why::Request(_) => "bad_request",
        Why::Client(_) => "incorrect_client_credentials",
        Why::GrantType => "unsupported_grant_type",
        Why::Scope => "invalid_scope",
        Why::Grant(_) => "bad_refresh_token",
        Why::StepUp => "unverified_user_email",
    };
    json!({"error": error, "error_description": "see the documentation", "error_uri": "https://docs.github.com/x"})
}

fn google(why: Why) -> (StatusCode, Value) {
    let bad = StatusCode::BAD_REQUEST;
    match why {
        Why::Grant(Cause::Policy) => {
            (bad, json!({"error": "admin_policy_enforced", "error_description": "ask an administrator"}))
        }
        Why::Grant(_) => (
            bad,
            json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
        ),
        Why::StepUp => (
            bad,
            json!({"error": "invalid_grant", "error_subtype": "invalid_rapt", "error_description": "reauth related error (invalid_rapt)"}),
        ),
        _ => rfc6749(why),
    }
}

fn microsoft(why: Why) -> (StatusCode, Value) {
    let (status, error, code) = match why {
        Why::Client(_) => (StatusCode::UNAUTHORIZED, "invalid_client", 7_000_215),
        Why::Grant(Cause::UserDisabled) => (StatusCode::BAD_REQUEST, "invalid_grant", 50_057),
        Why::Grant(Cause::Idle) => (StatusCode::BAD_REQUEST, "invalid_grant", 700_082),
        Why::Grant(Cause::Revoked) => (StatusCode::BAD_REQUEST, "invalid_grant", 50_173),
        Why::Grant(_) => (StatusCode::BAD_REQUEST, "invalid_grant", 70_008),
        Why::StepUp => (StatusCode::BAD_REQUEST, "interaction_required", 50_076),
        _ => return rfc6749(why),
    };
    let mut body = json!({
        "error": error,
        "error_description": format!("AADSTS{code}: in a sentence that may change"),
        "error_codes": [code],
        "trace_id": "00000000-0000-0000-0000-000000000000",
    });
    if why == Why::StepUp {
        body["suberror"] = json!("basic_action");
        body["claims"] = json!(r#"{"access_token":{"capolids":{"essential":true,"values":["c1"]}}}"#);
    }
    (status, body)
}

fn salesforce(why: Why) -> (StatusCode, Value) {
    let description = match why {
        Why::Client(_) => {
            return (
                StatusCode::BAD_REQUEST,
                json!({"error": "invalid_client", "error_description": "invalid client credentials"}),
            );
        }
        Why::Grant(Cause::UserDisabled) => "inactive user",
        Why::Grant(Cause::Policy) => "ip restricted",
        Why::Grant(Cause::Revoked) => "user hasn't approved this consumer",
        Why::Grant(Cause::Expired | Cause::Idle) => "token validity expired",
        Why::Grant(_) => "expired access/refresh token",
        _ => return rfc6749(why),
    };
    (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant", "error_description": description}))
}

fn atlassian(why: Why) -> (StatusCode, Value) {
    match why {
        Why::Grant(_) => (
            StatusCode::FORBIDDEN,
            json!({"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}),
        ),
        Why::Client(_) => {
            (StatusCode::UNAUTHORIZED, json!({"error": "access_denied", "error_description": "Unauthorized"}))
        }
        _ => rfc6749(why),
    }
}

fn hubspot(why: Why) -> (StatusCode, Value) {
    let (status, message) = match why {
        Why::Client(_) => ("BAD_CLIENT_SECRET", "missing or unknown client secret"),
        Why::Grant(_) => ("BAD_REFRESH_TOKEN", "missing or unknown refresh token"),
        _ => ("BAD_REQUEST", "see the documentation"),
    };
    (StatusCode::BAD_REQUEST, json!({"status": status, "message": message, "correlationId": "c-1"}))
}
