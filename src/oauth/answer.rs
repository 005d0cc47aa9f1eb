//! What a token endpoint answered: first as it came, to be put away sealed, then read.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    At, Dialect, Expiry, Failure, Revocation, Unreadable,
    life::{self, Life},
    parsed::{Parsed, claims},
    transport::Received,
    verdict,
};
use crate::{
    host::{Authority, Target},
    secret::Secret,
};

/// Tokens, as a provider's answer gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The access token.
    pub access: Secret,
    /// Another refresh token. Where there is none, keep the old one (RFC 6749 §6).
    pub refresh: Option<Secret>,
    /// When the answer came: what the other times are counted from.
    pub obtained: Timestamp,
    /// When the access token ends, by our clock; `None` where nobody says.
    pub expires: Option<Timestamp>,
    /// When the refresh token ends, where the answer says so.
    pub refresh_expires: Option<Timestamp>,
    /// When the consent ends, whatever is done, where the answer says so.
    pub deadline: Option<Timestamp>,
    /// The provider's scopes that it has; `None`: those that were asked for (RFC 6749 §5.1).
    pub scopes: Option<Vec<String>>,
    /// The host to use from then on, where the dialect has one (`host_from`). One that is not allowed is an error of
    /// its own, so that the tokens are not lost over it: keep the host that there was.
    pub host: Result<Option<Target>, HostRefused>,
    /// Whose account it is, where the dialect says how to find out (`subject_from`).
    pub subject: Option<String>,
    /// The `nonce` of the ID token, where there is one (OpenID Connect).
    pub nonce: Option<String>,
}

/// The answer names a host that `host_must_match` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider names a host for this account that the connector's host_must_match does not allow")]
pub struct HostRefused;

/// What introspection says of a token (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// Whether it works.
    pub active: bool,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// The provider's scopes that it has.
    pub scopes: Option<Vec<String>>,
    /// Whose it is (`sub`, or else `username`).
    pub subject: Option<String>,
}

/// What was asked for. It decides how an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// An authorization code's.
    Code,
    /// A refresh token's.
    Refresh,
    /// Client credentials, an assertion, another token: made anew each time.
    Mint,
    /// A GitHub App's installation token.
    Installation,
}

/// An answer as it came, whatever it says. Put [`RawAnswer::to_secret`] away, sealed, before it is read: it may hold the
/// only token there is.
pub struct RawAnswer {
    head: Head,
    body: Secret,
}

/// All of an answer's head that is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    grant: Grant,
    status: u16,
    /// By our clock.
    received: Timestamp,
    /// By the server's (RFC 9110 §6.6.1).
    date: Option<Timestamp>,
    retry_after_seconds: Option<u64>,
}

impl fmt::Debug for RawAnswer {
    /// The status alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawAnswer").field("status", &self.head.status).finish_non_exhaustive()
    }
}

impl RawAnswer {
    pub(super) fn new(grant: Grant, mut received: Received) -> Self {
        let head = Head {
            grant,
            status: received.status,
            received: received.at,
            date: life::date(&received.headers),
            retry_after_seconds: life::retry_after(&received.headers, received.at).map(|wait| wait.as_secs()),
        };
        Self { head, body: Secret::new(std::mem::take(&mut *received.body)) }
    }

    /// Whether the status says success, so that the body may hold tokens.
    #[must_use]
    pub const fn may_hold_tokens(&self) -> bool {
        matches!(self.head.status, 200..300)
    }

    /// How far the server's clock is ahead of ours, where the answer has a `Date`.
    #[must_use]
    pub fn skew(&self) -> Option<SignedDuration> {
        Some(self.head.date?.duration_since(self.head.received))
    }

    /// All of it in one piece, for the vault's quarantine.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "it is put into the piece that will be sealed")]
    pub fn to_secret(&self) -> Secret {
        // A struct of numbers and times: nothing in it can fail to be written.
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        Secret::new([&head, b"\n".as_slice(), self.body.expose()].concat())
    }

    /// What [`RawAnswer::to_secret`] put away.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the answer is read from the piece that was sealed")]
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        let bytes = secret.expose();
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice(&bytes[..end]).ok()?;
        Some(Self { head, body: Secret::new(bytes[end + 1..].to_vec()) })
    }

    /// The tokens.
    ///
    /// # Errors
    /// [`Failure`]; [`Failure::Unreadable`] where it is a success that the dialect does not understand.
    pub fn read(&self, dialect: &Dialect) -> Result<Tokens, Failure> {
        let answer = self.checked(dialect)?;
        let token_at = match self.head.grant {
            Grant::Refresh => dialect.refreshed_token_at.as_ref().or(dialect.token_at.as_ref()),
            Grant::Code | Grant::Mint | Grant::Installation => dialect.token_at.as_ref(),
        };
        let default = At::field("access_token");
        let found = token_at.unwrap_or(&default).beside(&answer);
        let access = found.and_then(|(beside, name)| Some((beside, text(beside.get(name)?)?)));
        let Some((beside, access)) = access else {
            let refused = verdict::code(&answer, dialect).is_some();
            let no_token = Failure::Unreadable(Unreadable::NoToken);
            return Err(if refused { self.refusal(Some(&answer), dialect) } else { no_token });
        };
        let expires = self.life(dialect, beside, access);
        Ok(Tokens {
            access: secret(access),
            refresh: beside.get("refresh_token").and_then(text).map(secret),
            obtained: self.head.received,
            expires,
            refresh_expires: life::of_refresh(dialect, beside).and_then(|life| self.after(life)),
            deadline: life::of_consent(beside).and_then(|life| self.after(life)),
            scopes: beside
                .get(dialect.scope_at.as_deref().unwrap_or("scope"))
                .and_then(|found| scopes(found, dialect)),
            host: host(dialect, &answer),
            subject: dialect.subject_from.as_ref().and_then(|at| subject(at, &answer)),
            nonce: answer
                .get("id_token")
                .and_then(text)
                .and_then(|token| claims(token)?.get("nonce").and_then(text).map(str::to_owned)),
        })
    }

    /// What an introspection endpoint says.
    pub(super) fn read_introspection(&self, dialect: &Dialect) -> Result<Introspection, Failure> {
        let answer = self.checked(dialect)?;
        let Some(active) = answer.get("active").and_then(Value::as_bool) else {
            return Err(Failure::Unreadable(Unreadable::NoToken));
        };
        Ok(Introspection {
            active,
            expires: answer.get("exp").and_then(life::moment).and_then(|end| self.clamped(self.until(end))),
            scopes: answer.get("scope").and_then(|found| scopes(found, dialect)),
            subject: ["sub", "username"].iter().find_map(|name| text(answer.get(name)?)).map(str::to_owned),
        })
    }

    /// Whether a revocation was carried out. A token that is not known any more is revoked (RFC 7009 §2.2), which some
    /// say in other words than the standard's empty success: Google by `invalid_token`, GitHub and Zendesk by the
    /// status of their `DELETE`.
    pub(super) fn read_revocation(&self, dialect: &Dialect) -> Result<(), Failure> {
        let unknown = match dialect.revocation {
            Revocation::DeleteBasic | Revocation::DeleteBearer => matches!(self.head.status, 404 | 422),
            Revocation::Rfc7009 | Revocation::PostBearer | Revocation::None => {
                let parsed = Parsed::read(&self.body);
                parsed.and_then(|answer| verdict::code(&answer, dialect)).as_deref() == Some("invalid_token")
            }
        };
        match self.checked(dialect) {
            Err(Failure::Unreadable(_)) => Ok(()),
            Err(_) if unknown => Ok(()),
            checked => checked.map(drop),
        }
    }

    /// The answer's fields, if it is a success.
    fn checked(&self, dialect: &Dialect) -> Result<Parsed, Failure> {
        let parsed = Parsed::read(&self.body);
        if !self.may_hold_tokens() {
            return Err(self.refusal(parsed.as_deref(), dialect));
        }
        let parsed = parsed.ok_or(Failure::Unreadable(Unreadable::Syntax))?;
        if verdict::is_success(&parsed, dialect) {
            return Ok(parsed);
        }
        Err(self.refusal(Some(&parsed), dialect))
    }

    fn refusal(&self, answer: Option<&Value>, dialect: &Dialect) -> Failure {
        let retry_after = self.head.retry_after_seconds.map(Duration::from_secs);
        verdict::failure(self.head.grant, self.head.status, retry_after, answer, dialect)
    }

    /// When the access token ends.
    fn life(&self, dialect: &Dialect, beside: &Value, access: &str) -> Option<Timestamp> {
        let jwt =
            || claims(access).and_then(|claims| life::moment(claims.get("exp")?)).map(|end| self.until(end));
        let said = match dialect.expiry {
            Expiry::None => return None,
            Expiry::ExpiresIn => beside.get("expires_in").and_then(life::seconds),
            Expiry::ExpiresInMs => beside.get("expires_in").and_then(life::milliseconds),
            Expiry::ExpiresAt => beside.get("expires_at").and_then(life::moment).map(|end| self.until(end)),
            Expiry::Jwt => jwt(),
            Expiry::Introspection => None,
        };
        let profile = || dialect.lifetime.and_then(|life| SignedDuration::try_from(life.0).ok());
        let by_itself = || if dialect.expiry == Expiry::Introspection { None } else { jwt() };
        self.clamped(said.or_else(profile).or_else(by_itself)?)
    }

    /// How long until a moment of the server's clock. Its `Date` stands for ours where the two differ by more than 30 s;
    /// a life in seconds needs no such help.
    fn until(&self, end: Timestamp) -> Life {
        let skewed = self.skew().is_some_and(|skew| skew.abs() > SignedDuration::from_secs(30));
        let now = if skewed { self.head.date.unwrap_or(self.head.received) } else { self.head.received };
        end.duration_since(now)
    }

    fn clamped(&self, life: Life) -> Option<Timestamp> {
        self.after(life::clamp(life))
    }

    fn after(&self, life: Life) -> Option<Timestamp> {
        self.head.received.checked_add(life).ok()
    }
}

/// A host from an answer, if it is one of those allowed. Only the connector says with which scheme it is reached.
fn host(dialect: &Dialect, answer: &Value) -> Result<Option<Target>, HostRefused> {
    let Some(url) = dialect.host_from.as_ref().and_then(|at| text(at.find(answer)?)) else { return Ok(None) };
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let Authority { host, port } = Authority::parse(authority).map_err(|_| HostRefused)?;
    let allowed = |pattern: &&super::Pattern| {
        pattern.0.matches(&host).is_some() && port.is_none_or(|port| port == pattern.0.port().unwrap_or(443))
    };
    let pattern = dialect.host_must_match.iter().find(allowed).ok_or(HostRefused)?;
    let port = pattern.0.port().unwrap_or(443);
    Ok(Some(Target { host, port }))
}

fn subject(at: &At, answer: &Value) -> Option<String> {
    let named = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match at.claim_of() {
        Some((token, claim)) => {
            let claims = claims(text(answer.get(token)?)?)?;
            claim.find(&claims).and_then(named)
        }
        None => at.find(answer).and_then(named),
    }
}

fn scopes(found: &Value, dialect: &Dialect) -> Option<Vec<String>> {
    let separator = dialect.response_scope_separator.as_deref().unwrap_or_else(|| dialect.separator());
    let list: Vec<&str> = match found {
        Value::String(text) => text.split(separator).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    Some(list.into_iter().map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}
