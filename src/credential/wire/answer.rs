//! How an account stands, and what it gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::text;
use crate::{
    cause::Cause,
    credential::{
        Closed, Trouble,
        found::{Bare, Fields, Found, Gives},
        refresh::clock::{self, FAR},
    },
    id::{AccountKey, Scope},
    secret::{Secret, encoded},
};

/// The answer to a [`Question`](super::Question).
///
/// `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whose it is.
    #[serde(with = "text")]
    pub account: AccountKey,
    /// Which generation of the account.
    pub generation: u64,
    /// The id of the consent that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<String>,
    /// What the provider lets it do, in our scopes; left out where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<BTreeSet<Scope>>,
    /// What fills the connector's placeholders.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Whether it gives anything.
    pub standing: Standing,
    /// What time it is where this is said, which all other times are held against: clocks differ.
    pub now: Timestamp,
    /// When the token was obtained; left out where it is none that is replaced by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obtained: Option<Timestamp>,
    /// What is said here does not hold after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When the token is to be replaced ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// The secrets, in base64; left out where they were not asked for.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "encoded::write_some_fields",
        deserialize_with = "encoded::read_some_fields"
    )]
    pub fields: Option<BTreeMap<String, Secret>>,
    /// Where it is closed: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Where it is closed: what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helps: Option<Helps>,
    /// Where its token has ended: why there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Hindrance>,
    /// Where a person reads how to connect it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_url: Option<String>,
}

/// Whether an account gives anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does.
    Live,
    /// Its token has ended.
    Over,
    /// It does not until a person acts.
    Closed,
}

/// What opens a closed account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Helps {
    /// That its user signs in at the provider.
    SignIn,
    /// Another consent.
    Consent,
    /// That another person connects an account.
    AnotherPerson,
    /// That an operator corrects what the account holds, or the provider's side of it.
    Operator,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hindrance {
    /// What is the matter.
    pub why: Why,
    /// When to ask again, in milliseconds from now.
    #[serde(default)]
    pub retry_after_ms: u64,
}

/// What is the matter with a token. These are [`Trouble`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are what the Trouble of the same name is")]
pub enum Why {
    Unreachable,
    AppPaused,
    NoApp,
    Unreadable,
    Seed,
    Slow,
    Vault,
    Interrupted,
    #[serde(other)]
    Busy,
}

impl Answer {
    /// What is to be said of an account now.
    pub(in crate::credential) fn of(found: Found, now: Timestamp) -> Self {
        let Found { account: Bare { key, generation, scopes, metadata, authorization }, gives } = found;
        let instant = Instant::now();
        let at = |at: Instant| clock::after(now, at.saturating_duration_since(instant));
        let said = Self {
            account: key,
            generation,
            authorization,
            scopes,
            metadata,
            standing: Standing::Over,
            now,
            obtained: None,
            until: None,
            due: None,
            fields: None,
            cause: None,
            helps: None,
            trouble: None,
            reconnect_url: None,
        };
        match gives {
            Gives::Fields(Fields { secrets, obtained, until, due, .. }) => Self {
                standing: Standing::Live,
                fields: secrets,
                obtained,
                until: until.map(at),
                due: due.map(at),
                ..said
            },
            Gives::Closed(closed, until) => {
                let (helps, cause) = Helps::of(closed);
                let until = until.map(at);
                Self { standing: Standing::Closed, cause: Some(cause), helps: Some(helps), until, ..said }
            }
            Gives::Over(trouble) => Self { trouble: trouble.map(Hindrance::from), ..said },
        }
    }

    /// The same for the resolver, which asked then; `None` where it contradicts itself.
    pub(in crate::credential) fn found(self, asked: Instant) -> Option<Found> {
        let now = self.now;
        let at = |at: Timestamp| asked + clock::between(now, at).min(FAR);
        let gives = match self.standing {
            Standing::Live => Gives::Fields(Fields {
                secrets: self.fields,
                obtained: self.obtained,
                until: self.until.map(at),
                due: self.due.map(at),
                ..Fields::default()
            }),
            Standing::Closed => Gives::Closed(self.helps?.closed(self.cause?), self.until.map(at)),
            Standing::Over => Gives::Over(Some(self.trouble.map_or(Trouble::Busy, Trouble::from))),
        };
        let Self { account: key, generation, authorization, scopes, metadata, .. } = self;
        Some(Found { account: Bare { key, generation, scopes, metadata, authorization }, gives })
    }
}

impl Helps {
    const fn of(closed: Closed) -> (Self, Cause) {
        match closed {
            Closed::NeedsUser(cause) => (Self::SignIn, cause),
            Closed::Reauthorize(cause) => (Self::Consent, cause),
            Closed::SubjectGone(cause) => (Self::AnotherPerson, cause),
            Closed::Refused(cause) => (Self::Operator, cause),
        }
    }

    const fn closed(self, cause: Cause) -> Closed {
        match self {
            Self::SignIn => Closed::NeedsUser(cause),
            Self::Consent => Closed::Reauthorize(cause),
            Self::AnotherPerson => Closed::SubjectGone(cause),
            Self::Operator => Closed::Refused(cause),
        }
    }
}

impl From<Trouble> for Hindrance {
    fn from(trouble: Trouble) -> Self {
        let why = match trouble {
            Trouble::Unreachable { .. } => Why::Unreachable,
            Trouble::AppPaused { .. } => Why::AppPaused,
            Trouble::NoApp => Why::NoApp,
            Trouble::Unreadable => Why::Unreadable,
            Trouble::Seed => Why::Seed,
            Trouble::Slow => Why::Slow,
            Trouble::Busy => Why::Busy,
            Trouble::Vault => Why::Vault,
            Trouble::Interrupted => Why::Interrupted,
        };
        let retry_after_ms = u64::try_from(trouble.retry_after().as_millis()).unwrap_or(u64::MAX);
        Self { why, retry_after_ms }
    }
}

impl From<Hindrance> for Trouble {
    fn from(Hindrance { why, retry_after_ms }: Hindrance) -> Self {
        let retry_after = Duration::from_millis(retry_after_ms).min(FAR);
        match why {
            Why::Unreachable => Self::Unreachable { retry_after },
            Why::AppPaused => Self::AppPaused { retry_after },
            Why::NoApp => Self::NoApp,
            Why::Unreadable => Self::Unreadable,
            Why::Seed => Self::Seed,
            Why::Slow => Self::Slow,
            Why::Busy => Self::Busy,
            Why::Vault => Self::Vault,
            Why::Interrupted => Self::Interrupted,
        }
    }
}
