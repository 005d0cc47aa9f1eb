//! A store in memory that fails when a test says so.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;

use super::{Committed, Error, MemoryStore, Rewrapped, Row, Store, StoredIntent, StoredNote};
use crate::{
    id::{AccountKey, TenantId},
    vault::{FactKey, FactKind},
};

/// What fails at present. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<Failing>>);

#[derive(Debug, Default)]
enum Failing {
    #[default]
    Nothing,
    Everything,
    These(BTreeSet<&'static str>),
}

impl Faults {
    /// The database is away.
    pub(crate) fn be_away(&self) {
        *self.0.lock().unwrap() = Failing::Everything;
    }

    /// These operations fail, by the names that [`Store`] has for them.
    pub(crate) fn fail(&self, operations: impl IntoIterator<Item = &'static str>) {
        *self.0.lock().unwrap() = Failing::These(operations.into_iter().collect());
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        *self.0.lock().unwrap() = Failing::Nothing;
    }

    fn pass(&self, operation: &str) -> Result<(), Error> {
        let fails = match &*self.0.lock().unwrap() {
            Failing::Nothing => false,
            Failing::Everything => true,
            Failing::These(operations) => operations.contains(operation),
        };
        let away = || Error::Unreachable { database: "a test's".to_owned(), why: operation.to_owned() };
        if fails { Err(away()) } else { Ok(()) }
    }
}

#[derive(Debug, Default)]
pub(in crate::vault) struct FaultyStore {
    store: MemoryStore,
    faults: Faults,
}

impl FaultyStore {
    pub(in crate::vault) fn new(faults: Faults) -> Self {
        Self { store: MemoryStore::default(), faults }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn header(&self) -> Result<Option<Vec<u8>>, Error> {
        self.faults.pass("header")?;
        self.store.header().await
    }

    async fn create_header(&self, header: Vec<u8>) -> Result<bool, Error> {
        self.faults.pass("create_header")?;
        self.store.create_header(header).await
    }

    async fn data_key(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, Error> {
        self.faults.pass("data_key")?;
        self.store.data_key(tenant).await
    }

    async fn data_keys(&self) -> Result<Vec<(TenantId, Vec<u8>)>, Error> {
        self.faults.pass("data_keys")?;
        self.store.data_keys().await
    }

    async fn create_data_key(
        &self,
        tenant: &TenantId,
        sealed: Vec<u8>,
        header: &[u8],
    ) -> Result<bool, Error> {
        self.faults.pass("create_data_key")?;
        self.store.create_data_key(tenant, sealed, header).await
    }

    async fn rewrap(&self, rewrapped: Rewrapped) -> Result<bool, Error> {
        self.faults.pass("rewrap")?;
        self.store.rewrap(rewrapped).await
    }

    async fn row(&self, key: &AccountKey) -> Result<Option<Row>, Error> {
        self.faults.pass("row")?;
        self.store.row(key).await
    }

    async fn put(&self, key: &AccountKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        self.faults.pass("put")?;
        self.store.put(key, expected, row).await
    }

    async fn delete(&self, key: &AccountKey, expected: u64) -> Result<bool, Error> {
        self.faults.pass("delete")?;
        self.store.delete(key, expected).await
    }

    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error> {
        self.faults.pass("rows")?;
        self.store.rows(tenant).await
    }

    async fn fact(&self, key: &FactKey) -> Result<Option<Row>, Error> {
        self.faults.pass("fact")?;
        self.store.fact(key).await
    }

    async fn put_fact(&self, key: &FactKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        self.faults.pass("put_fact")?;
        self.store.put_fact(key, expected, row).await
    }

    async fn delete_fact(&self, key: &FactKey, expected: u64) -> Result<bool, Error> {
        self.faults.pass("delete_fact")?;
        self.store.delete_fact(key, expected).await
    }

    async fn facts(&self, kind: FactKind, tenant: Option<&TenantId>) -> Result<Vec<(FactKey, Row)>, Error> {
        self.faults.pass("facts")?;
        self.store.facts(kind, tenant).await
    }

    async fn lease(&self, key: &AccountKey, holder: &str, ttl: Duration) -> Result<Option<u64>, Error> {
        self.faults.pass("lease")?;
        self.store.lease(key, holder, ttl).await
    }

    async fn renew(&self, key: &AccountKey, fence: u64, ttl: Duration) -> Result<bool, Error> {
        self.faults.pass("renew")?;
        self.store.renew(key, fence, ttl).await
    }

    async fn release(&self, key: &AccountKey, fence: u64) -> Result<(), Error> {
        self.faults.pass("release")?;
        self.store.release(key, fence).await
    }

    async fn intend(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        self.faults.pass("intend")?;
        self.store.intend(key, fence, sealed).await
    }

    async fn quarantine(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        self.faults.pass("quarantine")?;
        self.store.quarantine(key, fence, sealed).await
    }

    async fn commit(
        &self,
        key: &AccountKey,
        expected: u64,
        fence: u64,
        row: Row,
        note: Option<Vec<u8>>,
    ) -> Result<Committed, Error> {
        self.faults.pass("commit")?;
        self.store.commit(key, expected, fence, row, note).await
    }

    async fn drop_intent(&self, key: &AccountKey, fence: u64, note: Option<Vec<u8>>) -> Result<bool, Error> {
        self.faults.pass("drop_intent")?;
        self.store.drop_intent(key, fence, note).await
    }

    async fn intent(&self, key: &AccountKey) -> Result<Option<StoredIntent>, Error> {
        self.faults.pass("intent")?;
        self.store.intent(key).await
    }

    async fn intents(&self) -> Result<Vec<(AccountKey, StoredIntent)>, Error> {
        self.faults.pass("intents")?;
        self.store.intents().await
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<StoredNote>, Error> {
        self.faults.pass("outbox")?;
        self.store.outbox(limit).await
    }

    async fn delivered(&self, ids: &[u64]) -> Result<(), Error> {
        self.faults.pass("delivered")?;
        self.store.delivered(ids).await
    }

    fn is_heard(&self) -> bool {
        self.faults.pass("is_heard").is_ok()
    }
}
