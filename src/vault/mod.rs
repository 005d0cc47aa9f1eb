//! Accounts at rest, sealed.
//!
//! One key-encryption key (from a file or the environment) seals one data key per tenant; the data key seals
//! that tenant's accounts. What a sealed text is, and whose, is associated data, so that nothing opens in
//! another one's place (law 3). The whole record is sealed: nobody can set an account's status, scopes or host
//! by hand either. Older state put back as a whole (the directory restored from a backup) is not noticed.

mod account;
mod change;
mod config;
mod enter;
mod error;
mod fact;
mod grant;
mod hold;
mod key;
mod keys;
mod lease;
mod lock;
mod metrics;
mod rotate;
mod seal;
mod secret_input;
mod store;
mod url;

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::broadcast;

#[cfg(test)]
pub(crate) use self::store::Faults;
pub use self::{
    account::{Account, Material, NewAccount, Status},
    config::{AtBroker, Backend, Config, Place},
    enter::Initialised,
    error::Error,
    fact::{Fact, FactKey, FactKind},
    grant::{Access, Grant, GrantState},
    hold::{Hold, Holds, Lift, Source, Whole},
    key::{Error as KeyError, KeySource},
    lease::{Committed, Intent, Lease, Note, Orphan},
    lock::{Claim, Error as LockError, Owner, owner},
    metrics::Metrics,
    rotate::KeyRotation,
    seal::Fingerprint,
    secret_input::{Error as SecretError, MAX_SECRET, MIN_SECRET, parse_secret_input, parse_seed_input},
    store::{DatabaseUrl, Error as StoreError, UrlError},
    url::Url,
};
use self::{
    keys::Keys,
    seal::{Bound, Key},
    store::{Row, Store},
};
use crate::{
    drain::Drain,
    id::{AccountKey, ConnectorName, TenantId},
};

/// The vault. Cloning is cheap.
///
/// A change that has begun is finished and told to [`Vault::changes`] even if the caller goes away.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    store: Box<dyn Store>,
    keys: Keys,
    backend: Backend,
    place: Option<Place>,
    drain: Drain,
    changes: broadcast::Sender<Change>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This account: it was added, is another generation, or is gone.
    Account(AccountKey),
    /// These accounts as a whole: they were frozen or unfrozen. None of them is another generation.
    Whole(Whole),
    /// Nobody knows: whatever was known of accounts must be forgotten.
    Unknown,
}

/// What `vault status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Where the accounts lie.
    pub backend: Backend,
    /// Where the store is, if it is anywhere.
    pub place: Option<Place>,
    /// The key's fingerprint.
    pub key: Fingerprint,
    /// How many tenants have accounts.
    pub tenants: usize,
    /// How many accounts a connector has in which status, by [`Status::as_str`]; who is frozen as a whole counts as
    /// that. Only what occurs.
    pub accounts: BTreeMap<(ConnectorName, &'static str), usize>,
    /// The accounts that do not open.
    pub unreadable: Vec<AccountKey>,
}

impl Vault {
    /// One account.
    ///
    /// # Errors
    /// Where the store fails, or the account does not open.
    pub async fn account(&self, key: &AccountKey) -> Result<Option<Account>, Error> {
        match self.0.store.row(key).await? {
            Some(row) => {
                let data_key = self.data_key(&key.tenant).await?;
                open_account(&data_key, key, &row).map(Some)
            }
            None => Ok(None),
        }
    }

    /// A tenant's accounts, or all, in the order of their keys.
    ///
    /// # Errors
    /// Where the store fails, or one of them does not open: [`Vault::status`] names all that do not.
    pub async fn list(&self, tenant: Option<&TenantId>) -> Result<Vec<Account>, Error> {
        self.opened(tenant).await?.into_iter().map(|(_, opened)| opened).collect()
    }

    /// The names of a tenant's accounts, those that do not open among them, in their order.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn keys(&self, tenant: &TenantId) -> Result<Vec<AccountKey>, Error> {
        Ok(self.0.store.rows(Some(tenant)).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// A tenant's accounts, or all, in the order of their keys, each or why it does not open.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn each(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<(AccountKey, Result<Account, Error>)>, Error> {
        self.opened(tenant).await
    }

    /// What there is, and what does not open.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn status(&self) -> Result<Overview, Error> {
        let mut overview = Overview {
            backend: self.0.backend,
            place: self.0.place.clone(),
            key: self.key(),
            tenants: 0,
            accounts: BTreeMap::new(),
            unreadable: Vec::new(),
        };
        let mut last = None;
        let holds = self.holds(None).await?;
        for (key, opened) in self.opened(None).await? {
            match opened {
                Ok(account) => {
                    let held = account.status == Status::Active && holds.on(&key).is_some();
                    let status = if held { "frozen" } else { account.status.as_str() };
                    let kind = (key.connector.clone(), status);
                    *overview.accounts.entry(kind).or_default() += 1;
                }
                Err(_) => overview.unreadable.push(key.clone()),
            }
            if last.as_ref() != Some(&key.tenant) {
                overview.tenants += 1;
                last = Some(key.tenant);
            }
        }
        Ok(overview)
    }

    /// The fingerprint of the key that the vault is sealed with, as far as this process knows.
    #[must_use]
    pub fn key(&self) -> Fingerprint {
        self.0.keys.current().fingerprint()
    }

    /// Says which account was changed, after each change, here and in other processes that share the store. A
    /// receiver that lagged behind must forget all it knows.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// Whether a change that others make now would be told. While it would not, accounts in memory are used for
    /// `vault.offline_use`.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.store.is_heard()
    }

    /// Where the store is, if it is anywhere.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    async fn opened(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<(AccountKey, Result<Account, Error>)>, Error> {
        let rows = self.0.store.rows(tenant).await?;
        let mut opened = Vec::with_capacity(rows.len());
        let mut data_key: Option<(TenantId, Result<Key, String>)> = None;
        for (key, row) in rows {
            let of_tenant = match data_key.take() {
                Some((tenant, data_key)) if tenant == key.tenant => data_key,
                _ => self.data_key(&key.tenant).await?,
            };
            let account = open_account(&of_tenant, &key, &row);
            data_key = Some((key.tenant.clone(), of_tenant));
            opened.push((key, account));
        }
        Ok(opened)
    }

    /// A tenant's data key, or why it does not open.
    ///
    /// # Errors
    /// Where the store fails, or the vault was sealed with another key meanwhile: then nothing is wrong with what lies
    /// there, and it must not be taken for torn.
    async fn data_key(&self, tenant: &TenantId) -> Result<Result<Key, String>, Error> {
        let unopened = match self.data_key_at_hand(tenant).await? {
            Err(Some(unopened)) => unopened,
            Err(None) => return Ok(Err("its tenant has no data key".to_owned())),
            Ok(key) => return Ok(Ok(key)),
        };
        // Perhaps another process has re-wrapped it.
        let why = match self.key_in_use().await {
            Err(error @ (Error::Store(_) | Error::WrongKey { .. })) => return Err(error),
            Err(error) => error.to_string(),
            Ok(_) => match self.data_key_at_hand(tenant).await? {
                Ok(key) => return Ok(Ok(key)),
                Err(_) => unopened,
            },
        };
        Ok(Err(format!("its tenant's data key does not open: {why}")))
    }

    /// A tenant's data key by the keys at hand, or why it does not open; no reason where there is none.
    async fn data_key_at_hand(&self, tenant: &TenantId) -> Result<Result<Key, Option<String>>, StoreError> {
        let Some(sealed) = self.0.store.data_key(tenant).await? else { return Ok(Err(None)) };
        let opened = self.0.keys.open(&Bound::data_key(tenant), &sealed);
        let opened = opened.map_err(|error| Some(error.to_string()));
        Ok(opened.and_then(|bytes| {
            Key::from_bytes(&bytes).ok_or_else(|| Some("it has the wrong length".to_owned()))
        }))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("backend", &self.0.backend)
            .field("place", &self.0.place)
            .finish_non_exhaustive()
    }
}

fn open_account(data_key: &Result<Key, String>, key: &AccountKey, row: &Row) -> Result<Account, Error> {
    let unopened = |why: String| Error::Unopened { what: format!("the account {key}"), why, removable: true };
    let data_key = data_key.as_ref().map_err(|why| unopened(why.clone()))?;
    let record = data_key
        .open(&Bound::account(key, row.generation), &row.sealed)
        .map_err(|error| unopened(error.to_string()))?;
    // The reader's error is dropped: it may quote what it read.
    Account::from_record(key.clone(), row.generation, &record)
        .map_err(|_| unopened("a newer keybearer wrote it".to_owned()))
}

#[cfg(test)]
mod tests;
