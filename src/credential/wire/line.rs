//! What the watch says.

use serde::{Deserialize, Serialize};

use super::text;
use crate::{
    id::AccountKey,
    vault::{Change, Whole},
};

/// One line of the watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first one: from here on every change is told. What was known before must be forgotten.
    Begin(Begin),
    /// This account: it was changed, frozen, removed or minted anew.
    #[serde(with = "text")]
    Account(AccountKey),
    /// These accounts as a whole: they were frozen or unfrozen.
    Whole(Whole),
    /// Nobody knows what: whatever was known must be forgotten. Always `true`.
    Unknown(bool),
    /// The rules are others now, with this revision.
    PolicyRevision(String),
    /// Nothing happened, and it would be known if something had. Always `true`.
    Heard(bool),
}

/// How things stand when the watch begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The revision of the rules in use.
    #[serde(default)]
    pub policy_revision: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    begin: Option<Begin>,
    account: Option<String>,
    whole: Option<Whole>,
    policy_revision: Option<String>,
    heard: Option<bool>,
}

impl Line {
    /// What an account's or many accounts' change is told by.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        match change {
            Change::Account(key) => Self::Account(key.clone()),
            Change::Whole(whose) => Self::Whole(whose.clone()),
            Change::Unknown => Self::Unknown(true),
        }
    }

    /// Reads a line. One that says nothing known may say that anything has changed.
    #[must_use]
    pub fn read(text: &[u8]) -> Self {
        let written: Written = serde_json::from_slice(text).unwrap_or_default();
        match written {
            Written { begin: Some(begin), .. } => Self::Begin(begin),
            Written { account: Some(name), .. } => name.parse().map_or(Self::Unknown(true), Self::Account),
            Written { whole: Some(whole), .. } => Self::Whole(whole),
            Written { policy_revision: Some(revision), .. } => Self::PolicyRevision(revision),
            Written { heard: Some(_), .. } => Self::Heard(true),
            _ => Self::Unknown(true),
        }
    }
}
