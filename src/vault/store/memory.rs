//! A store that ends with the process: for the demo, for `run`, for tests.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Error, Row, Store};
use crate::id::{AccountKey, TenantId};

#[derive(Debug, Default)]
pub(in crate::vault) struct MemoryStore(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    header: Option<Vec<u8>>,
    data_keys: BTreeMap<TenantId, Vec<u8>>,
    rows: BTreeMap<AccountKey, Row>,
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

    async fn create_data_key(&self, tenant: &TenantId, sealed: Vec<u8>) -> Result<bool, Error> {
        match self.tables().data_keys.entry(tenant.clone()) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(free) => {
                free.insert(sealed);
                Ok(true)
            }
        }
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
        }
        Ok(fits)
    }

    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error> {
        let tables = self.tables();
        let wanted = tables.rows.iter().filter(|(key, _)| tenant.is_none_or(|tenant| key.tenant == *tenant));
        Ok(wanted.map(|(key, row)| (key.clone(), row.clone())).collect())
    }
}
