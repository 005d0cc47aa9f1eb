//! A connected account, and the record in which it lies sealed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use super::{Error, secret_input};
use crate::{
    id::{AccountKey, Scope},
    secret::{Secret, to_json},
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
        #[serde(serialize_with = "write_fields", deserialize_with = "read_fields")]
        fields: BTreeMap<String, Secret>,
    },
}

impl Material {
    /// The secrets by name, as a connector's templates use them.
    #[must_use]
    pub const fn fields(&self) -> &BTreeMap<String, Secret> {
        match self {
            Self::Static { fields } => fields,
        }
    }

    /// The same kind, without any secret.
    pub(super) const fn emptied(&self) -> Self {
        match self {
            Self::Static { .. } => Self::Static { fields: BTreeMap::new() },
        }
    }

    pub(super) fn check(&self) -> Result<(), secret_input::Error> {
        match self {
            Self::Static { fields } => secret_input::check(fields),
        }
    }
}

impl fmt::Debug for Material {
    /// The names of the fields only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { fields } => f.debug_tuple("Static").field(&fields.keys()).finish(),
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

impl Account {
    /// The first generation of a new account.
    pub(super) fn first(new: NewAccount, now: Timestamp) -> Result<Self, Error> {
        new.material.check()?;
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

/// Secrets as base64: they need not be text, and base64 needs no escapes, so that the reader can borrow it.
fn write_fields<S: Serializer>(fields: &BTreeMap<String, Secret>, out: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::disallowed_methods, reason = "this is where it is sealed")]
    let texts = fields.iter().map(|(name, secret)| {
        // With its room reserved, `encode_string` moves nothing.
        let mut text = Zeroizing::new(String::with_capacity(secret.len().div_ceil(3) * 4));
        STANDARD.encode_string(secret.expose(), &mut text);
        (name, WipedText(text))
    });
    out.collect_map(texts)
}

struct WipedText(Zeroizing<String>);

impl Serialize for WipedText {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

fn read_fields<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let texts = BTreeMap::<String, &'de str>::deserialize(input)?;
    let decode = |(name, text)| match STANDARD.decode(text) {
        Ok(bytes) => Ok((name, Secret::new(bytes))),
        Err(_) => Err(de::Error::custom("a field is not base64")),
    };
    texts.into_iter().map(decode).collect()
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
