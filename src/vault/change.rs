//! Changing accounts: each change is a new generation, written only over the one that was read.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Account, Change, Error, Material, NewAccount, Status, StoreError, Vault,
    seal::{Bound, Key},
    store::Row,
};
use crate::{
    id::{AccountKey, TenantId},
    secret::Secret,
};

/// How often a change is tried again when another one came in between.
const ATTEMPTS: usize = 16;
impl Vault {
    /// Adds an account, active.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Secret`], or where the store fails.
    pub async fn add(&self, new: NewAccount) -> Result<Account, Error> {
        let account = Account::first(new, Timestamp::now())?;
        self.uncancelled(|vault| async move {
            let key = account.key.clone();
            let is_added = vault.write(&account, None).await?;
            if is_added { Ok(account) } else { Err(Error::Exists(key)) }
        })
        .await
    }

    /// Adds an account, or gives the one that is there a new consent: its material, scopes, metadata and
    /// authorization are replaced. A revoked one is active again; a frozen one stays frozen.
    ///
    /// # Errors
    /// [`Error::OtherSubject`] where another one had consented, [`Error::Secret`], or where the store fails.
    pub async fn connect(&self, new: NewAccount) -> Result<Account, Error> {
        Account::first(new.clone(), Timestamp::now())?;
        for _ in 0..ATTEMPTS {
            let consent = new.clone();
            let connected = self.change(&new.key, move |account| {
                account.reconnect(consent.clone())?;
                Ok(true)
            });
            match connected.await {
                Err(Error::Missing(_)) => {}
                connected => return connected,
            }
            match self.add(new.clone()).await {
                Err(Error::Exists(_)) => {}
                added => return added,
            }
        }
        Err(Error::Contended(new.key))
    }

    /// Gives an account another secret. A revoked one is active again; a frozen one stays frozen.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Secret`], or where the store fails.
    pub async fn rotate(&self, key: &AccountKey, fields: BTreeMap<String, Secret>) -> Result<Account, Error> {
        self.replace(key, Material::Static { fields }).await
    }

    /// [`Vault::rotate`], whatever kind of secret it is.
    ///
    /// # Errors
    /// As there.
    pub async fn replace(&self, key: &AccountKey, material: Material) -> Result<Account, Error> {
        material.check()?;
        self.change(key, move |account| {
            account.material = material.clone();
            if account.status == Status::Revoked {
                account.status = Status::Active;
            }
            Ok(true)
        })
        .await
    }

    /// Forbids the use of an account until it is unfrozen. One that is frozen already stays as it is.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Revoked`], or where the store fails.
    pub async fn freeze(&self, key: &AccountKey, by: &str) -> Result<Account, Error> {
        let frozen = Status::Frozen { by: by.to_owned() };
        self.change(key, move |account| match account.status {
            Status::Active => {
                account.status = frozen.clone();
                Ok(true)
            }
            Status::Frozen { .. } => Ok(false),
            Status::Revoked => Err(Error::Revoked(account.key.clone())),
        })
        .await
    }

    /// Allows the use of a frozen account. One that is active stays as it is.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Revoked`], or where the store fails.
    pub async fn unfreeze(&self, key: &AccountKey) -> Result<Account, Error> {
        self.change(key, |account| match account.status {
            Status::Active => Ok(false),
            Status::Frozen { .. } => {
                account.status = Status::Active;
                Ok(true)
            }
            Status::Revoked => Err(Error::Revoked(account.key.clone())),
        })
        .await
    }

    /// Takes the secret away and keeps the rest. Once more does nothing.
    ///
    /// # Errors
    /// [`Error::Missing`], or where the store fails.
    pub async fn revoke(&self, key: &AccountKey) -> Result<Account, Error> {
        self.change(key, |account| {
            let is_new = account.status != Status::Revoked;
            account.status = Status::Revoked;
            account.material = account.material.emptied();
            Ok(is_new)
        })
        .await
    }

    /// Removes an account, also one that does not open.
    ///
    /// # Errors
    /// [`Error::Missing`], or where the store fails.
    pub async fn remove(&self, key: &AccountKey) -> Result<(), Error> {
        let key = key.clone();
        self.uncancelled(|vault| async move {
            for _ in 0..ATTEMPTS {
                let row = vault.0.store.row(&key).await?.ok_or_else(|| Error::Missing(key.clone()))?;
                let removed = vault.0.store.delete(&key, row.generation).await;
                if vault.told(&key, removed.map(|is_removed| (is_removed, is_removed)))? {
                    return Ok(());
                }
            }
            Err(Error::Contended(key))
        })
        .await
    }

    /// Makes the next generation of an account; `edit` says whether there is anything to write.
    async fn change<F>(&self, key: &AccountKey, edit: F) -> Result<Account, Error>
    where
        F: Fn(&mut Account) -> Result<bool, Error> + Send + 'static,
    {
        let key = key.clone();
        self.uncancelled(|vault| async move {
            for _ in 0..ATTEMPTS {
                let mut account = vault.account(&key).await?.ok_or_else(|| Error::Missing(key.clone()))?;
                if !edit(&mut account)? {
                    return Ok(account);
                }
                let before = account.generation;
                account.generation += 1;
                account.updated = Timestamp::now();
                if vault.write(&account, Some(before)).await? {
                    return Ok(account);
                }
            }
            Err(Error::Contended(key))
        })
        .await
    }

    /// Runs a change to its end, even if the caller is gone: an agent that hangs up must not keep others from
    /// hearing of a change that is on disk.
    pub(super) async fn uncancelled<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.0.drain.spawn(work(self.clone())).await.map_err(|_| Error::Interrupted)?
    }

    /// Seals and writes an account over the generation before.
    async fn write(&self, account: &Account, before: Option<u64>) -> Result<bool, Error> {
        let row = self.sealed_row(account).await?;
        let written = self.0.store.put(&account.key, before, row).await;
        self.told(&account.key, written.map(|is_written| (is_written, is_written)))
    }

    pub(super) async fn sealed_row(&self, account: &Account) -> Result<Row, Error> {
        let data_key = self.data_key_or_new(&account.key.tenant).await?;
        let cannot = || Error::CannotSeal(format!("the account {}", account.key));
        let record = account.to_record().map_err(|_| cannot())?;
        let bound = Bound::account(&account.key, account.generation);
        let sealed = data_key.seal(&bound, &record).map_err(|_| cannot())?;
        Ok(Row { generation: account.generation, sealed })
    }

    /// Tells of a change that was made or, because the store failed half-way, may have been. The outcome comes with
    /// whether anything changed.
    pub(super) fn told<T>(
        &self,
        key: &AccountKey,
        outcome: Result<(bool, T), StoreError>,
    ) -> Result<T, Error> {
        if !matches!(outcome, Ok((false, _))) {
            let _ = self.0.changes.send(Change::Account(key.clone())); // an error says that nobody listens
        }
        Ok(outcome?.1)
    }

    /// The tenant's data key, made with its first account.
    pub(super) async fn data_key_or_new(&self, tenant: &TenantId) -> Result<Key, Error> {
        let what = || format!("the data key of {tenant}");
        let store = &self.0.store;
        for _ in 0..ATTEMPTS {
            if store.data_key(tenant).await?.is_some() {
                return self.data_key(tenant).await?.map_err(|why| Error::unopened(what(), why));
            }
            let cannot = |_| Error::CannotSeal(what());
            let (header, kek) = self.key_in_use().await?;
            let new = Key::generate().map_err(cannot)?;
            let sealed = kek.seal(&Bound::data_key(tenant), new.bytes()).map_err(cannot)?;
            // Another one's is as good; and where the vault was re-wrapped, it is sealed once more.
            store.create_data_key(tenant, sealed, &header).await?;
        }
        Err(Error::Busy)
    }
}
