//! What a sidecar and its broker say to each other: JSON over HTTP/2, with TLS.
//!
//! Versions may differ by one: fields that are not known are ignored, and a line of the watch that says nothing known
//! means that everything may have changed. Secrets stand in buffers that are wiped: [`to_json`](crate::secret::to_json).

mod answer;
mod line;
mod problem;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    answer::{Answer, Helps, Hindrance, Standing, Why},
    line::{Begin, Line},
    problem::{Code, Problem},
};
pub use super::source::Refused;
use crate::id::{AccountKey, Subject};

/// Where a [`Question`] is posted.
pub const CREDENTIAL: &str = "/v1/credential";
/// Where the [`Line`]s are, one for each change, as long as both live.
pub const WATCH: &str = "/v1/watch";
/// Where the rules are that the workload may see.
pub const POLICY: &str = "/v1/policy";
/// The longest token of a workload, in bytes: several times what a cluster's issuer signs.
pub const LONGEST_TOKEN: usize = 8192;

/// What a sidecar asks of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Which account.
    #[serde(with = "text")]
    pub account: AccountKey,
    /// Who is to use it.
    pub subject: Subject,
    /// What is wanted.
    pub ask: Ask,
    /// What a provider refused, where that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// What is wanted of an account. Only the first is answered with secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// What a request needs. It waits for a refresh.
    Give,
    /// How it stands. No provider is asked.
    Look,
    /// Something else than what a provider refused with 401, if there can be; then it is to be asked for.
    Challenged,
    /// That its token is replaced, which ends soon; nobody waits for it.
    Ahead,
}

impl Ask {
    /// `give`, `look`, `challenged` or `ahead`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Give => "give",
            Self::Look => "look",
            Self::Challenged => "challenged",
            Self::Ahead => "ahead",
        }
    }
}

/// An account's name as people write it: `acme/github/role:researcher`.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(name: &T, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(name)
    }

    pub(super) fn deserialize<'de, T, D>(input: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}
