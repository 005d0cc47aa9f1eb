//! Another key-encryption key, while the vault is in use.
//!
//! Header and data keys are re-wrapped in one step of the store's, so that a kill leaves the vault sealed with the old
//! key or with the new one, and its header says with which. Accounts stay as they are: they lie under the data keys.

use std::sync::Arc;

use super::{
    Error, Fingerprint, KeySource, StoreError, Vault,
    keys::{HEADER, Header},
    seal::{Bound, Key},
    store::Rewrapped,
};
use crate::id::TenantId;

/// How often it is tried again when a tenant was added in between.
const ATTEMPTS: usize = 16;

/// What [`Vault::rotate_key`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRotation {
    /// The key that the vault was sealed with; the new one where that had been done before.
    pub from: Fingerprint,
    /// The key that it is sealed with now.
    pub to: Fingerprint,
    /// How many tenants' data keys it seals.
    pub tenants: usize,
    /// The tenants whose data keys did not open before, and do not now.
    pub unopened: Vec<TenantId>,
}

impl Vault {
    /// Seals the vault with another key, while everything goes on. Once more with the same key does nothing. Where
    /// this fails or is killed, the vault is sealed with the old key or the new one as a whole, and
    /// [`Vault::status`] or the attempt to open it says with which.
    ///
    /// # Errors
    /// Where there is no such key, or the store fails.
    pub async fn rotate_key(&self, to: &KeySource) -> Result<KeyRotation, Error> {
        let to = to.clone();
        self.uncancelled(|vault| async move {
            let new = vault.blocking(move || to.load()).await??;
            let _only = vault.0.keys.rotating.lock().await;
            vault.0.keys.expect(new.clone());
            for _ in 0..ATTEMPTS {
                if let Some(done) = vault.rewrap(&new).await? {
                    return Ok(done);
                }
            }
            Err(Error::Busy)
        })
        .await
    }

    /// `None` where the store changed in between.
    async fn rewrap(&self, new: &Key) -> Result<Option<KeyRotation>, Error> {
        let (old_header, old) = self.key_in_use().await?;
        let stored = self.0.store.data_keys().await?;
        let tenants = stored.len();
        let (from, to) = (old.fingerprint(), new.fingerprint());
        let mut unopened = Vec::new();
        let mut data_keys = Vec::with_capacity(tenants);
        for (tenant, sealed) in stored {
            let bound = Bound::data_key(&tenant);
            if let Ok(bytes) = old.open(&bound, &sealed) {
                let rewrapped = new.seal(&bound, &bytes);
                let cannot = |_| Error::CannotSeal(format!("the data key of {tenant}"));
                data_keys.push((tenant.clone(), sealed, rewrapped.map_err(cannot)?));
            } else {
                data_keys.push((tenant.clone(), sealed.clone(), sealed));
                unopened.push(tenant);
            }
        }
        if from != to {
            let header = Header::make(new)?;
            if !self.0.store.rewrap(Rewrapped { old_header, header, data_keys }).await? {
                return Ok(None);
            }
            self.key_in_use().await?;
        }
        Ok(Some(KeyRotation { from, to, tenants, unopened }))
    }

    /// The header as it is, and its key: also where the vault was re-wrapped since the key was last used.
    pub(super) async fn key_in_use(&self) -> Result<(Vec<u8>, Arc<Key>), Error> {
        for _ in 0..ATTEMPTS {
            // In this order: a header that is read after the key is not older than it.
            let before = self.0.keys.current();
            let stored = self.0.store.header().await?;
            let stored = stored.ok_or_else(|| Error::unopened(HEADER, "it is missing"))?;
            let header = Header::read(&stored)?;
            if header.is_of(&before) {
                return Ok((stored, before));
            }
            let (vault, wanted) = (self.clone(), header.of);
            let found = self.blocking(move || vault.0.keys.find(wanted)).await?;
            let Some(key) = found else {
                if Arc::ptr_eq(&before, &self.0.keys.current()) {
                    header.check(&before)?;
                }
                continue;
            };
            header.check(&key)?;
            if self.0.keys.replace(&before, Arc::clone(&key)) {
                tracing::info!(from = %before.fingerprint(), to = %key.fingerprint(), "the vault has another key");
                return Ok((stored, key));
            }
        }
        Err(Error::Busy)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.drain.spawn_blocking(work).await.map_err(|_| StoreError::Interrupted)
    }
}
