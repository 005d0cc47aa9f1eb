//! How long tokens live, out of whatever form a provider says it in (D6, D7).

use std::time::Duration;

use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use serde_json::Value;

use super::{Dialect, LONGEST_LIFE, SHORTEST_LIFE};

/// A time that something has left; negative where it is over.
pub(super) type Life = SignedDuration;

/// Where answers have the refresh token's life: Google and GitHub; Airtable and Keycloak; Intuit; the IETF's draft
/// (oauth-refresh-token-expiration).
const REFRESH: [&str; 4] =
    ["refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in", "refresh_token_timeout"];
/// Where they have the consent's: the IETF's draft; Intuit.
const CONSENT: [&str; 2] = ["authorization_expires_in", "x_refresh_token_hard_expires_in"];
/// Numbers above are milliseconds: as seconds they would be in the year 5138.
const MILLISECONDS: f64 = 1e11;
/// No life is longer: a hundred years, so that adding it to a date cannot fail.
const BOUND: f64 = 100.0 * 366.0 * 86_400.0;
/// The longest wait that a `Retry-After` may ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// A number of seconds, as number or text.
pub(super) fn seconds(value: &Value) -> Option<Life> {
    number(value).map(|seconds| SignedDuration::from_secs_f64(seconds.clamp(-BOUND, BOUND)))
}

/// A number of milliseconds, as number or text.
pub(super) fn milliseconds(value: &Value) -> Option<Life> {
    number(value).map(|millis| SignedDuration::from_secs_f64((millis / 1e3).clamp(-BOUND, BOUND)))
}

/// A moment: Unix seconds or milliseconds, or a date of RFC 3339 or RFC 2822.
pub(super) fn moment(value: &Value) -> Option<Timestamp> {
    if let Some(number) = number(value) {
        let seconds = if number.abs() > MILLISECONDS { number / 1e3 } else { number };
        let since = SignedDuration::try_from_secs_f64(seconds).ok()?;
        return Timestamp::from_duration(since).ok();
    }
    let text = value.as_str()?.trim();
    text.parse().ok().or_else(|| rfc2822::DateTimeParser::new().parse_timestamp(text).ok())
}

/// The refresh token's life. 0 means that it does not end (Keycloak's offline tokens).
pub(super) fn of_refresh(dialect: &Dialect, beside: &Value) -> Option<Life> {
    let said = match &dialect.refresh_expiry {
        Some(name) => beside.get(name),
        None => REFRESH.iter().find_map(|name| beside.get(name)),
    };
    said.and_then(seconds).filter(SignedDuration::is_positive)
}

/// The consent's life.
pub(super) fn of_consent(beside: &Value) -> Option<Life> {
    CONSENT.iter().find_map(|name| beside.get(name)).and_then(seconds).filter(SignedDuration::is_positive)
}

/// Within what an access token's life can be; what lies outside is a slip of unit or a wrong clock.
pub(super) fn clamp(life: Life) -> Life {
    let bound = |limit: Duration| SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
    let clamped = life.clamp(bound(SHORTEST_LIFE), bound(LONGEST_LIFE));
    if clamped != life {
        let (said, taken) = (life.as_secs(), clamped.as_secs());
        tracing::warn!(said, taken, "a provider says that an access token lives for so many seconds");
    }
    clamped
}

/// When the server sent it.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// RFC 9110 §10.2.3: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        // Counted from the server's own clock, where it says what that is.
        let wait = until.duration_since(date(headers).unwrap_or(now));
        Duration::try_from(wait).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}
