//! A store that ends with the process: for the demo, for `run`, for tests.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Committed, Error, Rewrapped, Row, Store, StoredIntent, StoredNote, leases::Leases};
use crate::{
    id::{AccountKey, TenantId},
    vault::{FactKey, FactKind},
};

#[derive(Debug, Default)]
pub(in crate::vault) struct MemoryStore(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    header: Option<Vec<u8>>,
    data_keys: BTreeMap<TenantId, Vec<u8>>,
    rows: BTreeMap<AccountKey, Row>,
    facts: BTreeMap<FactKey, Row>,
    leases: Leases,
    intents: BTreeMap<AccountKey, StoredIntent>,
    outbox: BTreeMap<u64, (AccountKey, Vec<u8>)>,
    last_fence: u64,
    last_note: u64,
}

impl Tables {
    /// Ends an attempt: its intent goes, and what it has to tell is kept.
    fn settle(&mut self, key: &AccountKey, note: Option<Vec<u8>>) {
        self.intents.remove(key);
        if let Some(sealed) = note {
            self.last_note += 1;
            self.outbox.insert(self.last_note, (key.clone(), sealed));
        }
    }
}

impl MemoryStore {
    /// No operation below can panic half-way, so what a poisoned lock guards is whole.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn header(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.tables().header.clone())
    }

    async fn create_header(&self, header: Vec<u8>) -> Result<bool, Error> {
        let mut tables = self.tables();
        let free = tables.header.is_none();
        if free {
            tables.header = Some(header);
        }
        Ok(free)
    }

    async fn data_key(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.tables().data_keys.get(tenant).cloned())
    }

    async fn data_keys(&self) -> Result<Vec<(TenantId, Vec<u8>)>, Error> {
        Ok(self.tables().data_keys.clone().into_iter().collect())
    }

    async fn create_data_key(
        &self,
        tenant: &TenantId,
        sealed: Vec<u8>,
        header: &[u8],
    ) -> Result<bool, Error> {
        let mut tables = self.tables();
        if tables.header.as_deref() != Some(header) {
            return Ok(false);
        }
        match tables.data_keys.entry(tenant.clone()) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(free) => {
                free.insert(sealed);
                Ok(true)
            }
        }
    }

    async fn rewrap(&self, rewrapped: Rewrapped) -> Result<bool, Error> {
        let mut tables = self.tables();
        let read = rewrapped.data_keys.iter().map(|(tenant, old, _)| (tenant, old));
        if tables.header.as_ref() != Some(&rewrapped.old_header) || !tables.data_keys.iter().eq(read) {
            return Ok(false);
        }
        tables.header = Some(rewrapped.header);
        tables.data_keys = rewrapped.data_keys.into_iter().map(|(tenant, _, new)| (tenant, new)).collect();
        Ok(true)
    }

    async fn row(&self, key: &AccountKey) -> Result<Option<Row>, Error> {
        Ok(self.tables().rows.get(key).cloned())
    }

    async fn put(&self, key: &AccountKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        let mut tables = self.tables();
        let fits = tables.rows.get(key).map(|row| row.generation) == expected;
        if fits {
            tables.rows.insert(key.clone(), row);
        }
        Ok(fits)
    }

    async fn delete(&self, key: &AccountKey, expected: u64) -> Result<bool, Error> {
        let mut tables = self.tables();
        let fits = tables.rows.get(key).is_some_and(|row| row.generation == expected);
        if fits {
            tables.rows.remove(key);
            tables.intents.remove(key);
            tables.leases.end(key);
        }
        Ok(fits)
    }

    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error> {
        let tables = self.tables();
        let wanted = tables.rows.iter().filter(|(key, _)| tenant.is_none_or(|tenant| key.tenant == *tenant));
        Ok(wanted.map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    async fn fact(&self, key: &FactKey) -> Result<Option<Row>, Error> {
        Ok(self.tables().facts.get(key).cloned())
    }

    async fn put_fact(&self, key: &FactKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        let mut tables = self.tables();
        let fits = tables.facts.get(key).map(|row| row.generation) == expected;
        if fits {
            tables.facts.insert(key.clone(), row);
        }
        Ok(fits)
    }

    async fn delete_fact(&self, key: &FactKey, expected: u64) -> Result<bool, Error> {
        let mut tables = self.tables();
        let fits = tables.facts.get(key).is_some_and(|row| row.generation == expected);
        if fits {
            tables.facts.remove(key);
        }
        Ok(fits)
    }

    async fn facts(&self, kind: FactKind, tenant: Option<&TenantId>) -> Result<Vec<(FactKey, Row)>, Error> {
        let tables = self.tables();
        let is_wanted = |key: &FactKey| key.kind == kind && tenant.is_none_or(|tenant| key.tenant == *tenant);
        let wanted = tables.facts.iter().filter(|(key, _)| is_wanted(key));
        Ok(wanted.map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    async fn lease(&self, key: &AccountKey, _holder: &str, ttl: Duration) -> Result<Option<u64>, Error> {
        let mut tables = self.tables();
        if !tables.rows.contains_key(key) || !tables.leases.is_free(key) {
            return Ok(None);
        }
        tables.last_fence += 1;
        let fence = tables.last_fence;
        tables.leases.give(key, fence, ttl);
        Ok(Some(fence))
    }

    async fn renew(&self, key: &AccountKey, fence: u64, ttl: Duration) -> Result<bool, Error> {
        Ok(self.tables().leases.renew(key, fence, ttl))
    }

    async fn release(&self, key: &AccountKey, fence: u64) -> Result<(), Error> {
        self.tables().leases.release(key, fence);
        Ok(())
    }

    async fn intend(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        let mut tables = self.tables();
        let unread = tables.intents.get(key).is_some_and(|intent| intent.answer.is_some());
        if unread || !tables.leases.is_of(key, fence) {
            return Ok(false);
        }
        tables.intents.insert(key.clone(), StoredIntent { fence, sealed, answer: None });
        Ok(true)
    }

    async fn quarantine(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        let mut tables = self.tables();
        let own = tables.intents.get_mut(key).filter(|intent| intent.fence == fence);
        Ok(own.map(|intent| intent.answer = Some(sealed)).is_some())
    }

    async fn commit(
        &self,
        key: &AccountKey,
        expected: u64,
        fence: u64,
        row: Row,
        note: Option<Vec<u8>>,
    ) -> Result<Committed, Error> {
        let mut tables = self.tables();
        if tables.rows.get(key).map(|row| row.generation) != Some(expected) {
            return Ok(Committed::Moved);
        }
        if !tables.leases.is_of(key, fence) {
            return Ok(Committed::Fenced);
        }
        tables.rows.insert(key.clone(), row);
        tables.settle(key, note);
        Ok(Committed::Done)
    }

    async fn drop_intent(&self, key: &AccountKey, fence: u64, note: Option<Vec<u8>>) -> Result<bool, Error> {
        let mut tables = self.tables();
        let own = tables.leases.is_of(key, fence);
        if own {
            tables.settle(key, note);
        }
        Ok(own)
    }

    async fn intent(&self, key: &AccountKey) -> Result<Option<StoredIntent>, Error> {
        Ok(self.tables().intents.get(key).cloned())
    }

    async fn intents(&self) -> Result<Vec<(AccountKey, StoredIntent)>, Error> {
        Ok(self.tables().intents.clone().into_iter().collect())
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<StoredNote>, Error> {
        let tables = self.tables();
        let oldest = tables.outbox.iter().take(limit);
        let note = |(id, (account, sealed)): (&u64, &(AccountKey, Vec<u8>))| StoredNote {
            id: *id,
            account: account.clone(),
            sealed: sealed.clone(),
        };
        Ok(oldest.map(note).collect())
    }

    async fn delivered(&self, ids: &[u64]) -> Result<(), Error> {
        let mut tables = self.tables();
        for id in ids {
            tables.outbox.remove(id);
        }
        Ok(())
    }
}
