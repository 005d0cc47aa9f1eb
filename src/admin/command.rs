//! What can be asked of the vault, and what is answered. Both travel as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Asked, Form, KeyText, Secrets};
use crate::{
    id::{AccountKey, ActionId, ConnectorName, Scope, TenantId, UserId},
    vault::{Account, Hold, KeyRotation, Overview, Place, Source, Status, Whole},
};

/// One thing to do: `{"freeze": {"account": "acme/github/role:researcher", "by": "alice"}}`.
///
/// Tagged from outside, because the other forms of serde keep a copy of what they read, secrets among it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Tells what is to be given for an account, before a secret is asked for.
    Form {
        /// Of which connector.
        connector: ConnectorName,
        /// As in `add`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scopes: Option<BTreeSet<Scope>>,
        /// As in `add`; left out for an account that is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<BTreeMap<String, String>>,
    },
    /// Adds an account, active.
    Add {
        /// What names it.
        #[serde(with = "as_text")]
        account: AccountKey,
        /// The fields that its connector wants.
        secrets: Secrets,
        /// What the provider lets this account do, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scopes: Option<BTreeSet<Scope>>,
        /// What fills the connector's placeholders, such as `instance`.
        #[serde(default)]
        metadata: BTreeMap<String, String>,
    },
    /// Makes the URL that a person opens to consent to an account.
    Connect {
        /// Which account.
        #[serde(with = "as_text")]
        account: AccountKey,
        /// What fills the connector's placeholders, such as `instance`.
        #[serde(default)]
        metadata: BTreeMap<String, String>,
    },
    /// Waits a while for what comes of a consent.
    Consent {
        /// Which one.
        id: ActionId,
    },
    /// Takes a question back that nobody has answered: its URL is of no use any more.
    Withdraw {
        /// Which one.
        id: ActionId,
    },
    /// Shows all accounts, or those of one tenant.
    List {
        /// Whose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<TenantId>,
    },
    /// Shows one account.
    Show {
        /// Which one.
        #[serde(with = "as_text")]
        account: AccountKey,
    },
    /// Gives an account another secret.
    Rotate {
        /// Which one.
        #[serde(with = "as_text")]
        account: AccountKey,
        /// The fields that its connector wants.
        secrets: Secrets,
    },
    /// Forbids the use of an account, and ends its open streams.
    Freeze {
        /// Which one.
        #[serde(with = "as_text")]
        account: AccountKey,
        /// Who does it, for the agents to read.
        by: String,
    },
    /// Allows the use of a frozen account.
    Unfreeze {
        /// Which one.
        #[serde(with = "as_text")]
        account: AccountKey,
    },
    /// Takes an account's secret away and keeps the rest.
    Revoke {
        /// Which one.
        #[serde(with = "as_text")]
        account: AccountKey,
    },
    /// Removes an account.
    Remove {
        /// Which one.
        #[serde(with = "as_text")]
        account: AccountKey,
    },
    /// Freezes a tenant or user as a whole: all accounts, those that are added later among them.
    FreezeAll {
        /// Whose accounts.
        whose: Whole,
        /// Who does it, for the agents to read.
        by: String,
    },
    /// Lifts what operators froze as a whole.
    UnfreezeAll {
        /// Whose accounts.
        whose: Whole,
        /// Also what identity providers froze.
        #[serde(default)]
        force: bool,
    },
    /// Takes the secrets of all accounts away that a tenant or user has now.
    RevokeAll {
        /// Whose accounts.
        whose: Whole,
    },
    /// Shows what is frozen as a whole.
    Holds {
        /// Whose; of all tenants where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<TenantId>,
    },
    /// Shows what is in the vault, in numbers.
    VaultStatus,
    /// Seals the vault with another key.
    RotateKey {
        /// The key: 32 bytes in base64.
        key: KeyText,
    },
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What is to be given for an account.
    Form(Form),
    /// The account as it is now.
    Account(Box<Listed>),
    /// A person is asked, and has not answered yet.
    Asked(Box<Asked>),
    /// The person is not asked any more.
    Withdrawn(ActionId),
    /// The accounts, in the order of their keys.
    Accounts(Vec<Listed>),
    /// What is frozen as a whole: all of it, or what remains after a command about one tenant or user.
    Holds(Vec<Held>),
    /// The account is gone.
    Removed(#[serde(with = "as_text")] AccountKey),
    /// The vault.
    Vault(VaultOverview),
    /// The vault is sealed with this key now.
    KeyRotated(RotatedKey),
}

/// An account as people may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// `acme/salesforce/role:researcher`.
    #[serde(with = "as_text")]
    pub account: AccountKey,
    /// The customer organisation.
    pub tenant: TenantId,
    /// The external system.
    pub connector: ConnectorName,
    /// `role:researcher`.
    pub principal: String,
    /// `active`, `frozen` or `revoked`.
    pub status: String,
    /// Who froze it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_by: Option<String>,
    /// Why it is frozen, whatever its own status is: its tenant or user is, as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Held>,
    /// What the provider lets it do; `null` where that is not known.
    pub scopes: Option<BTreeSet<Scope>>,
    /// When its secret ends; `null` where it does not end by itself.
    pub expires: Option<Timestamp>,
    /// Its fields, each with the last characters of its value.
    pub fields: BTreeMap<String, String>,
    /// What fills its connector's placeholders.
    pub metadata: BTreeMap<String, String>,
    /// Counts its changes.
    pub generation: u64,
    /// The id of the event that added it, or of the consent that connected it.
    pub authorization: Option<String>,
    /// When it was added.
    pub created: Timestamp,
    /// When it was changed last.
    pub updated: Timestamp,
}

impl From<&Account> for Listed {
    fn from(account: &Account) -> Self {
        Self {
            account: account.key.clone(),
            tenant: account.key.tenant.clone(),
            connector: account.key.connector.clone(),
            principal: account.key.principal.to_string(),
            status: account.status.as_str().to_owned(),
            frozen_by: match &account.status {
                Status::Frozen { by } => Some(by.clone()),
                Status::Active | Status::Revoked => None,
            },
            hold: None,
            scopes: account.scopes.clone(),
            expires: account.material.expires(),
            fields: account.material.masked(),
            metadata: account.metadata.clone(),
            generation: account.generation,
            authorization: account.authorization.clone(),
            created: account.created,
            updated: account.updated,
        }
    }
}

impl Listed {
    /// The account under what freezes it as a whole, if anything does.
    #[must_use]
    pub(super) fn held(mut self, hold: Option<(Whole, &Hold)>) -> Self {
        if let Some((whose, hold)) = hold {
            if self.status == Status::Active.as_str() {
                "frozen".clone_into(&mut self.status);
                self.frozen_by = Some(hold.by.clone());
            }
            self.hold = Some(Held::new(&whose, hold));
        }
        self
    }
}

/// One reason why a tenant or user is frozen as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The customer organisation.
    pub tenant: TenantId,
    /// The user, in lower case, where it is not the whole tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Who froze it.
    pub by: String,
    /// Who may unfreeze it: `operator`, `scim`, `{"ssf": ISSUER}`.
    pub source: Source,
    /// Since when.
    pub since: Timestamp,
}

impl Held {
    pub(super) fn new(whose: &Whole, hold: &Hold) -> Self {
        Self {
            tenant: whose.tenant().clone(),
            user: whose.user().cloned(),
            by: hold.by.clone(),
            source: hold.source.clone(),
            since: hold.since,
        }
    }
}

/// What is in the vault, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultOverview {
    /// Where the accounts lie: `sled`, `postgres`.
    pub backend: String,
    /// The store's directory, where it has one.
    pub dir: Option<PathBuf>,
    /// The database, where it is one: `db.example:5432/keybearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Tells keys apart, and nothing else about them.
    pub key_fingerprint: String,
    /// How many tenants have accounts.
    pub tenants: usize,
    /// Connector → status → how many accounts. Only what occurs.
    pub accounts: BTreeMap<ConnectorName, BTreeMap<String, usize>>,
    /// The accounts that do not open.
    pub unreadable: Vec<String>,
}

impl From<Overview> for VaultOverview {
    fn from(overview: Overview) -> Self {
        let mut accounts: BTreeMap<ConnectorName, BTreeMap<String, usize>> = BTreeMap::new();
        for ((connector, status), count) in overview.accounts {
            accounts.entry(connector).or_default().insert(status.to_owned(), count);
        }
        let (dir, database) = match overview.place {
            Some(Place::Dir(dir)) => (Some(dir), None),
            Some(Place::Database(name)) => (None, Some(name)),
            None => (None, None),
        };
        Self {
            backend: overview.backend.as_str().to_owned(),
            dir,
            database,
            key_fingerprint: overview.key.to_string(),
            tenants: overview.tenants,
            accounts,
            unreadable: overview.unreadable.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What another key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedKey {
    /// The fingerprint of the key before; the same as the next where nothing was to be done.
    pub from: String,
    /// The fingerprint of the key now.
    pub to: String,
    /// How many tenants' data keys it seals.
    pub tenants: usize,
    /// The tenants whose data keys did not open before, and do not now.
    pub unopened: Vec<TenantId>,
}

impl From<KeyRotation> for RotatedKey {
    fn from(done: KeyRotation) -> Self {
        Self {
            from: done.from.to_string(),
            to: done.to.to_string(),
            tenants: done.tenants,
            unopened: done.unopened,
        }
    }
}

/// A value as the text that it is displayed as.
pub(super) mod as_text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};

    pub(in crate::admin) fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(value)
    }

    pub(in crate::admin) fn deserialize<'de, T, D>(input: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(input)?.parse().map_err(super::custom)
    }
}

fn custom<E: serde::de::Error>(error: impl fmt::Display) -> E {
    E::custom(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::Principal, secret::Secret, vault::Material};

    fn account() -> Account {
        Account {
            key: "acme/slack/role:writer".parse().unwrap(),
            generation: 3,
            material: Material::Static {
                fields: [("token".to_owned(), Secret::new(b"xoxb-0123456789abcd".to_vec()))].into(),
            },
            scopes: None,
            metadata: BTreeMap::new(),
            status: Status::Frozen { by: "alice".to_owned() },
            authorization: None,
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_listed_account_shows_four_characters_of_its_secret() {
        let listed = Listed::from(&account());
        let text = serde_json::to_string(&listed).unwrap();
        assert!(text.contains("…abcd") && !text.contains("0123456789"), "{text}");
        assert_eq!(listed.account.principal, Principal::Role("writer".parse().unwrap()));
        assert_eq!(serde_json::from_str::<Listed>(&text).unwrap(), listed);
    }

    #[test]
    fn commands_read_as_they_are_documented() {
        let freeze: Command =
            serde_json::from_str(r#"{"freeze": {"account": "acme/slack/tenant", "by": "alice"}}"#).unwrap();
        assert!(matches!(freeze, Command::Freeze { by, .. } if by == "alice"));
        assert_eq!(serde_json::from_str::<Command>(r#""vault_status""#).unwrap(), Command::VaultStatus);
        assert!(serde_json::from_str::<Command>(r#"{"show": {"account": "acme"}}"#).is_err());
        assert!(serde_json::from_str::<Command>(r#"{"show": {"account": "a/b/tenant", "x": 1}}"#).is_err());
    }
}
