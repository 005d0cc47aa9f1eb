//! Facts that stand beside the accounts, sealed like them: who is frozen as a whole, whom an identity provider told
//! of, which of its events were seen.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::{
    Change, Error, StoreError, Vault, Whole,
    seal::{Bound, Key},
    store::Row,
};
use crate::id::TenantId;

/// What names a fact.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is about.
    pub kind: FactKind,
    /// Tells it from the others of its kind; at most 200 bytes, and perhaps empty. It is not sealed.
    pub name: String,
}

/// What a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FactKind {
    /// All accounts of the tenant, or of one of its users, are frozen.
    Hold,
    /// A user of whom an identity provider told.
    User,
    /// A security event that was seen.
    Event,
}

impl FactKind {
    /// As stores name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::User => "user",
            Self::Event => "event",
        }
    }

    /// Reads what [`FactKind::as_str`] gives.
    pub(super) fn read(text: &str) -> Option<Self> {
        [Self::Hold, Self::User, Self::Event].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A fact as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Fact {
    /// What names it.
    pub key: FactKey,
    /// Counts its changes, from 1.
    pub generation: u64,
    /// What it says.
    pub text: Zeroizing<Vec<u8>>,
}

impl Vault {
    /// One fact.
    ///
    /// # Errors
    /// Where the store fails, or the fact does not open.
    pub async fn fact(&self, key: &FactKey) -> Result<Option<Fact>, Error> {
        let Some(row) = self.0.store.fact(key).await? else { return Ok(None) };
        let data_key = self.data_key(&key.tenant).await?;
        open(&data_key, key.clone(), &row).map(Some)
    }

    /// A tenant's facts of a kind, or all of that kind, in the order of their keys.
    ///
    /// # Errors
    /// Where the store fails, or one of them does not open.
    pub async fn facts(&self, kind: FactKind, tenant: Option<&TenantId>) -> Result<Vec<Fact>, Error> {
        self.opened_facts(kind, tenant).await?.into_iter().map(|(_, fact)| fact).collect()
    }

    /// Writes a fact: over the one of generation `expected`, or where there is none. `false` where it is otherwise.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn put_fact(&self, key: &FactKey, expected: Option<u64>, text: &[u8]) -> Result<bool, Error> {
        let (key, text) = (key.clone(), Zeroizing::new(text.to_vec()));
        self.uncancelled(|vault| async move {
            let data_key = vault.data_key_or_new(&key.tenant).await?;
            let generation = expected.unwrap_or(0) + 1;
            let cannot = |_| Error::CannotSeal(what(&key));
            let sealed = data_key.seal(&Bound::fact(&key, generation), &text).map_err(cannot)?;
            let written = vault.0.store.put_fact(&key, expected, Row { generation, sealed }).await;
            vault.told_fact(&key, written)
        })
        .await
    }

    /// Removes the fact of generation `expected`. `false` where it is another one, or gone.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_fact(&self, key: &FactKey, expected: u64) -> Result<bool, Error> {
        let key = key.clone();
        self.uncancelled(|vault| async move {
            let deleted = vault.0.store.delete_fact(&key, expected).await;
            vault.told_fact(&key, deleted)
        })
        .await
    }

    /// Facts with those that do not open.
    pub(super) async fn opened_facts(
        &self,
        kind: FactKind,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<(FactKey, Result<Fact, Error>)>, Error> {
        let rows = self.0.store.facts(kind, tenant).await?;
        let mut data_keys: HashMap<TenantId, Result<Key, String>> = HashMap::new();
        let mut opened = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            if !data_keys.contains_key(&key.tenant) {
                data_keys.insert(key.tenant.clone(), self.data_key(&key.tenant).await?);
            }
            if let Some(data_key) = data_keys.get(&key.tenant) {
                opened.push((key.clone(), open(data_key, key, &row)));
            }
        }
        Ok(opened)
    }

    /// Tells of a hold that was changed or, because the store failed half-way, may have been. Nobody keeps what other
    /// facts say.
    fn told_fact(&self, key: &FactKey, outcome: Result<bool, StoreError>) -> Result<bool, Error> {
        if let (Some(whole), false) = (Whole::of_fact(key), matches!(outcome, Ok(false))) {
            let _ = self.0.changes.send(Change::Whole(whole)); // an error says that nobody listens
        }
        Ok(outcome?)
    }
}

fn open(data_key: &Result<Key, String>, key: FactKey, row: &Row) -> Result<Fact, Error> {
    let data_key = data_key.as_ref().map_err(|why| Error::unopened(what(&key), why.clone()))?;
    let opened = data_key.open(&Bound::fact(&key, row.generation), &row.sealed);
    let text = opened.map_err(|error| Error::unopened(what(&key), error.to_string()))?;
    Ok(Fact { key, generation: row.generation, text })
}

fn what(key: &FactKey) -> String {
    format!("the {} {:?} of {}", key.kind.as_str(), key.name, key.tenant)
}
