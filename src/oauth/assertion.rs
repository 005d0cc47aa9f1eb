//! Statements that we sign, which a provider takes for a token or for a password (RFC 7523).

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::SigningKey;
use crate::secret::Secret;

/// How far an assertion is dated back, for a provider whose clock is behind.
const BACK: SignedDuration = SignedDuration::from_secs(30);
/// How long one is good. Salesforce takes no more than three minutes.
const LIFE: SignedDuration = SignedDuration::from_secs(150);
/// How long a GitHub App's is good: GitHub takes no more than ten minutes from `iat` on.
const GITHUB_LIFE: SignedDuration = SignedDuration::from_secs(9 * 60);

/// Who signs assertions for an account, and about whom.
#[derive(Clone)]
pub struct Asserter {
    /// What it signs with.
    pub key: SigningKey,
    /// `iss`: the app's client id, or a service account's address.
    pub issuer: String,
    /// `sub`: the user to act as; not sent where there is none.
    pub subject: Option<String>,
}

/// A service account's key as Google's console gives it out.
#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

impl Asserter {
    /// Of a Google service account's JSON key. `subject` is the user to act as, by domain-wide delegation. `None` if the
    /// text is no such key.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the key is read where it will sign for a token endpoint")]
    pub fn service_account(json: &Secret, subject: Option<String>) -> Option<Self> {
        let account: ServiceAccount = serde_json::from_slice(json.expose()).ok()?;
        let pem = Secret::new(account.private_key.into_bytes());
        let key = SigningKey::from_pem(&pem, account.private_key_id)?;
        Some(Self { key, issuer: account.client_email, subject })
    }

    /// A grant (RFC 7523 §2.1).
    pub(super) fn grant(&self, audience: &str, scope: Option<&str>, now: Timestamp) -> Option<Secret> {
        let subject = self.subject.as_deref();
        self.key.sign(&Claims::new(&self.issuer, subject, Some(audience), scope, LIFE, now)?)
    }
}

/// A client's own (RFC 7523 §2.2).
pub(super) fn of_client(key: &SigningKey, client_id: &str, audience: &str, now: Timestamp) -> Option<Secret> {
    key.sign(&Claims::new(client_id, Some(client_id), Some(audience), None, LIFE, now)?)
}

/// A GitHub App's, which opens `/app/installations`.
pub(super) fn of_github_app(key: &SigningKey, client_id: &str, now: Timestamp) -> Option<Secret> {
    key.sign(&Claims::new(client_id, None, None, None, GITHUB_LIFE, now)?)
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    iat: i64,
    exp: i64,
    jti: String,
}

impl<'a> Claims<'a> {
    fn new(
        iss: &'a str,
        sub: Option<&'a str>,
        aud: Option<&'a str>,
        scope: Option<&'a str>,
        life: SignedDuration,
        now: Timestamp,
    ) -> Option<Self> {
        let iat = now.checked_sub(BACK).ok()?.as_second();
        let exp = now.checked_add(life).ok()?.as_second();
        Some(Self { iss, sub, aud, scope, iat, exp, jti: Uuid::now_v7().to_string() })
    }
}

impl fmt::Debug for Asserter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asserter").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
