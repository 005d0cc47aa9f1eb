//! What a refusal means: by the connector's own words for it first, then by the standards, then by the status.

use std::time::Duration;

use serde_json::Value;

use super::{AppFault, At, Dialect, Failure, Grant, Meaning, Success};
use crate::cause::Cause;

/// The longest `claims` that are kept, in bytes.
const MAX_CLAIMS: usize = 8 * 1024;

/// Whether an answer of status 2xx is a success (D1).
pub(super) fn is_success(answer: &Value, dialect: &Dialect) -> bool {
    match dialect.success {
        Success::Status => true,
        Success::OkTrue => answer.get("ok") == Some(&Value::Bool(true)),
        Success::NoErrorKey => code(answer, dialect).is_none(),
    }
}

/// The error's code (D2).
pub(super) fn code(answer: &Value, dialect: &Dialect) -> Option<String> {
    let default = At::field("error");
    match dialect.error_at.as_ref().unwrap_or(&default).find(answer)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What a refusal means.
pub(super) fn failure(
    grant: Grant,
    status: u16,
    retry_after: Option<Duration>,
    answer: Option<&Value>,
    dialect: &Dialect,
) -> Failure {
    let code = answer.and_then(|answer| code(answer, dialect));
    let own = code.as_deref().and_then(|code| meaning(code, answer, dialect));
    if let Some(meaning) = own {
        return meant(meaning, retry_after, answer);
    }
    match status {
        300..400 => return Failure::App(AppFault::Redirect),
        // A gateway gave up waiting: who stands behind it may have carried it out.
        408 | 499 | 504 | 524 => return Failure::Ambiguous,
        429 | 500.. => return Failure::Transient { retry_after },
        404 | 410 if grant == Grant::Installation => return Failure::SubjectGone(Cause::Uninstalled),
        // It is suspended, or its owner has not granted what was asked for. A 403 with `Retry-After` is a rate limit.
        403 | 422 if grant == Grant::Installation && retry_after.is_none() => return needs_user(answer),
        _ => {}
    }
    let standard = code.as_deref().and_then(|code| by_standard(code, retry_after, answer));
    standard.unwrap_or(match status {
        401 => Failure::App(AppFault::Credentials),
        404 | 405 | 410 => Failure::App(AppFault::NoEndpoint),
        // An error that nobody has described. It does not count as the grant's end.
        _ => Failure::Transient { retry_after },
    })
}

/// The connector's words for it: `code: text` before `code`.
fn meaning(code: &str, answer: Option<&Value>, dialect: &Dialect) -> Option<Meaning> {
    let default = At::field("error_description");
    let at = dialect.error_description_at.as_ref().unwrap_or(&default);
    let description =
        answer.and_then(|answer| at.find(answer)?.as_str()).unwrap_or_default().to_ascii_lowercase();
    let described = dialect.errors.iter().find(|(key, _)| {
        key.split_once(": ")
            .is_some_and(|(named, says)| named == code && description.contains(&says.to_ascii_lowercase()))
    });
    described.map(|(_, meaning)| *meaning).or_else(|| dialect.errors.get(code).copied())
}

fn meant(meaning: Meaning, retry_after: Option<Duration>, answer: Option<&Value>) -> Failure {
    match meaning {
        Meaning::Revoked => Failure::Definitive(Cause::Revoked),
        Meaning::ExpiredIdle => Failure::Definitive(Cause::ExpiredIdle),
        Meaning::ExpiredHard => Failure::Definitive(Cause::ExpiredHard),
        Meaning::WrongClient => Failure::Definitive(Cause::WrongClient),
        Meaning::NeedsUser => needs_user(answer),
        Meaning::UserDisabled => Failure::SubjectGone(Cause::UserDisabled),
        Meaning::Uninstalled => Failure::SubjectGone(Cause::Uninstalled),
        Meaning::App => Failure::App(AppFault::Credentials),
        Meaning::Request => Failure::App(AppFault::Request),
        Meaning::Transient => Failure::Transient { retry_after },
    }
}

/// RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2, RFC 9470 §3, OpenID Connect Core §3.1.2.6, and what Google adds.
fn by_standard(code: &str, retry_after: Option<Duration>, answer: Option<&Value>) -> Option<Failure> {
    let subtype = answer.and_then(|answer| answer.get("error_subtype")?.as_str());
    Some(match code {
        "invalid_grant" if subtype == Some("invalid_rapt") || claims(answer).is_some() => needs_user(answer),
        "invalid_grant" => Failure::Definitive(Cause::Revoked),
        "interaction_required"
        | "login_required"
        | "consent_required"
        | "account_selection_required"
        | "insufficient_claims"
        | "insufficient_user_authentication"
        | "admin_policy_enforced" => needs_user(answer),
        // `access_denied`: nobody is there to decline, so it is the app that is refused (Atlassian).
        "invalid_client" | "deleted_client" | "disabled_client" | "access_denied" => {
            Failure::App(AppFault::Credentials)
        }
        "unauthorized_client" => Failure::App(AppFault::Forbidden),
        "invalid_request"
        | "unsupported_grant_type"
        | "invalid_scope"
        | "invalid_target"
        | "redirect_uri_mismatch" => Failure::App(AppFault::Request),
        "temporarily_unavailable" | "server_error" | "slow_down" => Failure::Transient { retry_after },
        _ => return None,
    })
}

fn needs_user(answer: Option<&Value>) -> Failure {
    Failure::NeedsUser { cause: Cause::Policy, claims: claims(answer) }
}

/// What a sign-in must fulfil. Entra writes it as a text with JSON in it.
fn claims(answer: Option<&Value>) -> Option<String> {
    let text = match answer?.get("claims")? {
        Value::String(text) => text.clone(),
        object @ Value::Object(_) => object.to_string(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= MAX_CLAIMS).then_some(text)
}
