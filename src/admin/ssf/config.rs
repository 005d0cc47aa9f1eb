//! `lifecycle.ssf`: who may tell what happened to users, and whom they mean.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::set::EventType;
use crate::{
    admin::TokenSource,
    id::{TenantId, UserId},
    identity::JwksSource,
};

/// One entry of `lifecycle.ssf`: a transmitter of security events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// What its tokens have as `aud`, alone or among others.
    pub audience: String,
    /// The keys that it signs with.
    pub jwks: JwksSource,
    /// What it sends as `Authorization: Bearer`, where it was told to send one.
    #[serde(default)]
    pub token: Option<TokenSource>,
    /// Whose users it tells of, where it tells of one tenant's.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    /// Whose users it tells of, by the identifier in the `tenant` of complex subjects. It wins over `tenant`.
    #[serde(default)]
    pub tenants: BTreeMap<String, TenantId>,
    /// The user's name here, by identifier or address.
    #[serde(default)]
    pub users: BTreeMap<String, UserId>,
    /// Whether an address that nothing else maps names the user.
    #[serde(default = "Naming::whole")]
    pub email: Naming,
    /// Whether an identifier that nothing else maps names the user.
    #[serde(default = "Naming::mapped")]
    pub sub: Naming,
    /// Whose identifiers, beside its own, its subjects may have.
    #[serde(default)]
    pub subject_issuers: Vec<String>,
    /// What freezes a user's accounts.
    #[serde(default = "freezing")]
    pub freeze_on: Vec<EventType>,
    /// The oldest token that is taken. Replays are noticed for as long.
    #[serde(default = "a_day", with = "crate::duration")]
    pub max_age: Duration,
}

/// What an identifier that neither `users` nor SCIM maps says about the user's name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// It is the name.
    Whole,
    /// What stands before its `@` is the name.
    Local,
    /// Nothing.
    Mapped,
}

impl Naming {
    const fn whole() -> Self {
        Self::Whole
    }

    const fn mapped() -> Self {
        Self::Mapped
    }

    /// The user's name here.
    pub(super) fn name(self, text: &str) -> Option<UserId> {
        let text = match self {
            Self::Whole => text,
            Self::Local => text.split('@').next().unwrap_or_default(),
            Self::Mapped => return None,
        };
        UserId::new(&text.to_ascii_lowercase()).ok()
    }
}

impl Config {
    /// The files that the entry names.
    pub(in crate::admin) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let keys = match &mut self.jwks {
            JwksSource::File(path) => Some(path),
            JwksSource::Url(_) => None,
        };
        keys.into_iter().chain(self.token.as_mut().map(|token| &mut token.file))
    }
}

fn freezing() -> Vec<EventType> {
    EventType::FREEZING.to_vec()
}

const fn a_day() -> Duration {
    Duration::from_hours(24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_needs_little() {
        let text =
            "{issuer: https://idp.example, audience: https://kb.example, jwks: {file: k.json}, tenant: acme}";
        let config: Config = serde_saphyr::from_str(text).unwrap();
        assert_eq!(config.freeze_on, EventType::FREEZING);
        assert_eq!((config.email, config.sub), (Naming::Whole, Naming::Mapped));
        assert_eq!(config.max_age, Duration::from_hours(24));
        assert!(serde_saphyr::from_str::<Config>(&text.replace("tenant", "tenannt")).is_err());
    }

    #[test]
    fn names_are_made_of_identifiers_as_far_as_it_is_said() {
        let name = |naming: Naming, text: &str| naming.name(text).map(|user| user.to_string());
        assert_eq!(name(Naming::Whole, "Alice@Acme.example").as_deref(), Some("alice@acme.example"));
        assert_eq!(name(Naming::Local, "Alice@Acme.example").as_deref(), Some("alice"));
        assert_eq!(name(Naming::Mapped, "alice@acme.example"), None);
        assert_eq!(name(Naming::Whole, "a b"), None);
    }
}
