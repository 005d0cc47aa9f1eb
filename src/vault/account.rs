//! A connected account, and the record in which it lies sealed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, Grant, secret_input};
use crate::{
    id::{AccountKey, Scope},
    secret::{Secret, encoded, to_json},
};

/// One principal's credential for one connector in one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What names it.
    pub key: AccountKey,
    /// Counts the changes of this account, from 1. A removed account that is added again begins anew.
    pub generation: u64,
    /// The credential itself.
    pub material: Material,
    /// What the provider lets this account do, in our scopes; `None` where that is not known.
    pub scopes: Option<BTreeSet<Scope>>,
    /// What fills a connector's placeholders, such as `instance`.
    pub metadata: BTreeMap<String, String>,
    /// Whether it may be used.
    pub status: Status,
    /// The id of the consent that created it.
    pub authorization: Option<String>,
    /// When it was added.
    pub created: Timestamp,
    /// When it was changed last.
    pub updated: Timestamp,
}

/// An account to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// What names it.
    pub key: AccountKey,
    /// The credential itself.
    pub material: Material,
    /// What the provider lets this account do, in our scopes; `None` where that is not known.
    pub scopes: Option<BTreeSet<Scope>>,
    /// What fills a connector's placeholders, such as `instance`.
    pub metadata: BTreeMap<String, String>,
    /// The id of the consent that created it.
    pub authorization: Option<String>,
}

/// What an account holds, by the way it authenticates.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Material {
    /// Secrets that do not change by themselves, by field name; a connector with one secret calls it `token`.
    Static {
        /// The secrets.
        #[serde(serialize_with = "encoded::write_fields", deserialize_with = "encoded::read_fields")]
        fields: BTreeMap<String, Secret>,
    },
    /// Tokens that a provider gave for a consent, and that are refreshed.
    Oauth(Box<Grant>),
    /// What tokens are minted from: keys and secrets that prove who we are, and are never injected. It may be nothing,
    /// where others prove it: the app of the configuration, or a file.
    Seed {
        /// Its parts, by name.
        #[serde(serialize_with = "encoded::write_fields", deserialize_with = "encoded::read_fields")]
        fields: BTreeMap<String, Secret>,
    },
}

/// What a connector with one secret calls it.
const TOKEN: &str = "token";

impl Material {
    /// The secrets by name, as a connector's templates use them. A grant's access token is the `token`, where it
    /// has one; its refresh token is for nobody's template.
    #[must_use]
    pub fn fields(&self) -> Cow<'_, BTreeMap<String, Secret>> {
        match self {
            Self::Static { fields } => Cow::Borrowed(fields),
            Self::Oauth(grant) => {
                let token = grant.access.as_ref().map(|access| (TOKEN.to_owned(), access.token.clone()));
                Cow::Owned(token.into_iter().collect())
            }
            Self::Seed { .. } => Cow::Owned(BTreeMap::new()),
        }
    }

    /// Its secrets by name, each with its last characters. A seed's are not shown at all: the end of a key's text says
    /// nothing about the key.
    #[must_use]
    pub fn masked(&self) -> BTreeMap<String, String> {
        match self {
            Self::Seed { fields } => fields.keys().map(|name| (name.clone(), "…".to_owned())).collect(),
            Self::Static { .. } | Self::Oauth(_) => {
                self.fields().iter().map(|(name, secret)| (name.clone(), secret.masked())).collect()
            }
        }
    }

    /// When it ends unless a person does something; `None` where that is not known.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        match self {
            Self::Static { .. } | Self::Seed { .. } => None, // what is pasted says nothing about its end
            Self::Oauth(grant) => grant.expires(),
        }
    }

    /// Who consented, where that is known.
    fn subject(&self) -> Option<&str> {
        match self {
            Self::Static { .. } | Self::Seed { .. } => None,
            Self::Oauth(grant) => grant.subject.as_deref(),
        }
    }

    /// The same kind, without any secret.
    pub(super) fn emptied(&self) -> Self {
        match self {
            Self::Static { .. } => Self::Static { fields: BTreeMap::new() },
            Self::Seed { .. } => Self::Seed { fields: BTreeMap::new() },
            Self::Oauth(grant) => Self::Oauth(Box::new(grant.emptied())),
        }
    }

    pub(super) fn check(&self) -> Result<(), secret_input::Error> {
        match self {
            Self::Static { fields } => secret_input::check(fields),
            Self::Oauth(grant) => grant.check(),
            Self::Seed { fields } => secret_input::check_seed(fields),
        }
    }

    /// Like [`Material::check`], and there is something in it.
    pub(super) fn check_new(&self) -> Result<(), secret_input::Error> {
        match self {
            Self::Static { fields } => secret_input::check(fields),
            Self::Oauth(grant) => grant.check_new(),
            Self::Seed { fields } => secret_input::check_seed(fields),
        }
    }
}

impl fmt::Debug for Material {
    /// The names of the fields, and how a grant fares; no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { fields } => f.debug_tuple("Static").field(&fields.keys()).finish(),
            Self::Oauth(grant) => f.debug_tuple("Oauth").field(&grant.state).finish(),
            Self::Seed { fields } => f.debug_tuple("Seed").field(&fields.keys()).finish(),
        }
    }
}

/// Whether an account may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Status {
    /// It may.
    Active,
    /// It may not, until it is unfrozen. Its secret is kept.
    Frozen {
        /// Who froze it.
        by: String,
    },
    /// It may not: its secret is gone. A new one, by rotation, makes it active again.
    Revoked,
}

impl Status {
    /// `active`, `frozen` or `revoked`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Frozen { .. } => "frozen",
            Self::Revoked => "revoked",
        }
    }
}

/// What is sealed: all of an account but what its key and generation say.
///
/// An unknown field is an error, because writing the record back would lose it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    material: Material,
    scopes: Option<BTreeSet<Scope>>,
    metadata: BTreeMap<String, String>,
    status: Status,
    authorization: Option<String>,
    created: Timestamp,
    updated: Timestamp,
}

impl NewAccount {
    /// Whether it may take the place of the account that there is: it must be the same subject's.
    #[must_use]
    pub fn may_follow(&self, before: &Account) -> bool {
        before.material.subject().is_none_or(|before| self.material.subject() == Some(before))
    }
}

impl Account {
    /// The first generation of a new account.
    pub(super) fn first(new: NewAccount, now: Timestamp) -> Result<Self, Error> {
        new.material.check_new()?;
        secret_input::check_metadata(&new.metadata)?;
        Ok(Self {
            key: new.key,
            generation: 1,
            material: new.material,
            scopes: new.scopes,
            metadata: new.metadata,
            status: Status::Active,
            authorization: new.authorization,
            created: now,
            updated: now,
        })
    }

    /// Takes a new consent in, of the same subject.
    pub(super) fn reconnect(&mut self, new: NewAccount) -> Result<(), Error> {
        if !new.may_follow(self) {
            return Err(Error::OtherSubject(self.key.clone()));
        }
        self.material = new.material;
        self.scopes = new.scopes;
        self.metadata = new.metadata;
        self.authorization = new.authorization;
        if self.status == Status::Revoked {
            self.status = Status::Active;
        }
        Ok(())
    }

    /// The record as text, in memory that is wiped.
    pub(super) fn to_record(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        to_json(&Record {
            material: self.material.clone(),
            scopes: self.scopes.clone(),
            metadata: self.metadata.clone(),
            status: self.status.clone(),
            authorization: self.authorization.clone(),
            created: self.created,
            updated: self.updated,
        })
    }

    /// Reads what [`Account::to_record`] wrote.
    pub(super) fn from_record(
        key: AccountKey,
        generation: u64,
        text: &[u8],
    ) -> Result<Self, serde_json::Error> {
        let record: Record = serde_json::from_slice(text)?;
        Ok(Self {
            key,
            generation,
            material: record.material,
            scopes: record.scopes,
            metadata: record.metadata,
            status: record.status,
            authorization: record.authorization,
            created: record.created,
            updated: record.updated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let fields = [
            ("api_key", &b"key-0123456789"[..]),
            ("app_key", &[0xff, 0xfe, 0x22, 0x5c, 0xc3, 0xa4, 0x80, 0x81]),
        ];
        let key = AccountKey {
            tenant: "acme".parse().unwrap(),
            connector: "datadog".parse().unwrap(),
            principal: crate::id::Principal::Tenant,
        };
        let new = NewAccount {
            key,
            material: Material::Static {
                fields: fields
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), Secret::new(value.to_vec())))
                    .collect(),
            },
            scopes: Some(["metrics:read".parse().unwrap()].into()),
            metadata: [("site".to_owned(), "datadoghq.eu".to_owned())].into(),
            authorization: Some("consent-1".to_owned()),
        };
        let mut account = Account::first(new, Timestamp::now()).unwrap();
        account.status = Status::Frozen { by: "a \"person\"".to_owned() };
        account
    }

    #[test]
    fn a_record_gives_back_the_account_in_a_buffer_that_did_not_grow() {
        let account = account();
        let text = account.to_record().unwrap();
        assert_eq!(text.len(), text.capacity());
        assert_eq!(Account::from_record(account.key.clone(), 1, &text).unwrap(), account);
    }

    #[test]
    fn debug_of_an_account_shows_field_names_and_no_values() {
        let shown = format!("{:?}", account());
        assert!(shown.contains("api_key") && !shown.contains("key-0123456789"), "{shown}");
    }

    #[test]
    fn a_record_of_a_newer_program_is_refused_rather_than_cut() {
        let text = account().to_record().unwrap();
        let newer = String::from_utf8(text.to_vec()).unwrap().replacen('{', r#"{"expires":1,"#, 1);
        assert!(Account::from_record(account().key, 1, newer.as_bytes()).is_err());
    }
}
