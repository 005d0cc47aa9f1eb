//! The embedded store: sled 0.34 in one directory, with what it does not do by itself.
//!
//! - A kill or a full disk while it opens leaves `snap.*.generating`, which every later open takes for a torn
//!   snapshot (spacejam/sled issues 1166, 1527, 1533). Such a file is removed first, under our own lock.
//! - Damage at the end of its log goes unnoticed: see [`Watermark`].
//! - Large pages go to files that it never syncs: see [`super::rows`].
//! - Flushing in its own pool of threads never ends where many flush at once: they take all seven threads, and the
//!   write that they wait for finds none. So it is done on ours, and one flush serves all who wait for it.
//! - After a failed write it refuses everything until it is opened again, so that is what happens.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use sled::{Batch, Db};
use tokio::sync::Semaphore;

use super::{
    Committed, Error, Rewrapped, Row, Store, StoredIntent, StoredNote,
    leases::Leases,
    rows::{
        self, ACCOUNTS, ANSWERS, CHANGES, DATA_KEY, FACTS, Fault, HEADER, INTENTS, NOTES, next_change,
        number, tree_key,
    },
    watermark::Watermark,
};
use crate::{
    drain::Drain,
    id::{AccountKey, TenantId},
    vault::{FactKey, FactKind, lock::Lock, seal},
};

/// Sealed accounts are about a kilobyte each, and the credential cache stands before them.
const PAGE_CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// So many threads are in the store at a time. More would only wait for each other, and take the processor from
/// requests meanwhile; and each of sled's own that they wake keeps memory of its own.
const AT_ONCE: usize = 4;

/// sled's own lock is given up by its threads, a moment after it was closed.
const REOPEN_ATTEMPTS: u32 = 100;
const REOPEN_PAUSE: Duration = Duration::from_millis(20);

/// Accounts in a directory that this process alone has open.
#[derive(Debug, Clone)]
pub(in crate::vault) struct SledStore {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    drain: Drain,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// `None` after a failed write, until the next use opens it again.
    opened: Mutex<Option<Arc<Opened>>>,
    /// In memory only: no other process could refresh an account. Locked after `Opened::changes`.
    leases: Mutex<Leases>,
    /// Given up last.
    _lock: Lock,
}

#[derive(Debug)]
struct Opened {
    db: Db,
    /// How many changes there were. Held while something is read, or a change is checked and applied, which makes
    /// each of them one step: no other process is here.
    changes: Mutex<u64>,
    /// One flush at a time: it takes with it all that was applied before it.
    flushing: tokio::sync::Mutex<()>,
    watermark: Watermark,
}

impl SledStore {
    /// Whether a store was ever made in the directory.
    pub(in crate::vault) fn exists(dir: &Path) -> bool {
        dir.join("db").exists() || Watermark::exists(dir)
    }

    /// Makes an empty store beside its place and moves it there: sled does not open what it was killed while
    /// making. Blocks.
    pub(in crate::vault) fn make(dir: &Path, _lock: &Lock) -> Result<(), Error> {
        let draft = dir.with_extension("new");
        let io = |source| from_io(dir, source);
        match fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => fs::DirBuilder::new().mode(0o700).create(&draft).map_err(io)?,
        }
        let made = Opened::open(&draft)?;
        made.db.flush().map_err(|error| from_fault(dir, error.into()))?;
        drop(made);
        let sync = |dir: &Path| File::open(dir)?.sync_all();
        sync(&draft).and_then(|()| fs::rename(&draft, dir)).map_err(io)?;
        dir.parent().map_or(Ok(()), sync).map_err(io)
    }

    /// Opens the store in `dir`. Blocks.
    pub(in crate::vault) fn open(dir: &Path, lock: Lock, drain: Drain) -> Result<Self, Error> {
        let opened = Opened::open(dir)?;
        let shared = Shared {
            dir: dir.to_owned(),
            opened: Mutex::new(Some(Arc::new(opened))),
            leases: Mutex::default(),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared), room: Arc::new(Semaphore::new(AT_ONCE)), drain })
    }

    /// Runs blocking work off the async workers. A panic inside of sled ends there.
    async fn blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Error::Interrupted)?;
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let _room = room; // until it is done, even if whoever wanted it goes away
            work(&shared)
        };
        match self.drain.spawn_blocking(work).await {
            Ok(done) => done,
            Err(stopped) => {
                *self.shared.slot() = None;
                Err(Error::from_join(&self.shared.dir, &stopped))
            }
        }
    }

    async fn read<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    {
        self.blocking(move |shared| {
            let opened = shared.opened()?;
            opened.read(read).map_err(|fault| shared.failed(&opened, fault))
        })
        .await
    }

    /// Applies what `step` makes of the present state, if anything; returns when it is on disk.
    async fn change<T, F>(&self, step: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Db, &mut Leases) -> Result<Step<T>, Fault> + Send + 'static,
    {
        let (outcome, applied) = self
            .blocking(move |shared| {
                let opened = shared.opened()?;
                let step = |db: &Db| step(db, &mut shared.leases());
                let (outcome, applied) = opened.apply(step).map_err(|fault| shared.failed(&opened, fault))?;
                Ok((outcome, applied.map(|number| (opened, number))))
            })
            .await?;
        if let Some((opened, number)) = applied {
            self.flush(opened, number).await?;
        }
        Ok(outcome)
    }

    /// Returns when the change of this number is on disk, and acknowledged there.
    async fn flush(&self, opened: Arc<Opened>, number: u64) -> Result<(), Error> {
        let flushed = Arc::clone(&opened);
        let _only = opened.flushing.lock().await;
        if opened.watermark.get() >= number {
            return Ok(()); // the flush before took it along
        }
        self.blocking(move |shared| {
            let reached = *flushed.changes();
            flushed.db.flush().map_err(|error| shared.failed(&flushed, error.into()))?;
            flushed.watermark.advance(reached).map_err(|source| from_io(&shared.dir, source))
        })
        .await
    }

    /// Writes a value where there is none.
    async fn create(&self, key: Vec<u8>, value: Vec<u8>) -> Result<bool, Error> {
        self.change(move |db, _| {
            if db.contains_key(&key)? {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            batch.insert(key, value);
            Ok(Step::write(batch, true))
        })
        .await
    }
}

/// What is to be written, if anything, and what to say when it is on disk.
struct Step<T> {
    batch: Option<Batch>,
    outcome: T,
}

impl<T> Step<T> {
    const fn nothing(outcome: T) -> Self {
        Self { batch: None, outcome }
    }

    const fn write(batch: Batch, outcome: T) -> Self {
        Self { batch: Some(batch), outcome }
    }
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Opened>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open store; after a failure, opens it again.
    fn opened(&self) -> Result<Arc<Opened>, Error> {
        let mut slot = self.slot();
        if let Some(opened) = &*slot {
            return Ok(Arc::clone(opened));
        }
        let opened = Arc::new(Opened::open(&self.dir)?);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Closes the store that failed, because sled keeps refusing after one failed write, and because what it
    /// holds in memory may be more than is on disk.
    fn failed(&self, opened: &Arc<Opened>, fault: Fault) -> Error {
        let mut slot = self.slot();
        let is_current = slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, opened));
        if is_current && matches!(fault, Fault::Sled(_)) {
            *slot = None;
        }
        from_fault(&self.dir, fault)
    }
}

impl Opened {
    fn open(dir: &Path) -> Result<Self, Error> {
        let io = |source| from_io(dir, source);
        let watermark = Watermark::open(dir).map_err(io)?;
        let acknowledged = watermark.get();
        let lost = |found| Error::Lost { dir: dir.to_owned(), found, acknowledged };
        if acknowledged > 0 && !dir.join("db").exists() {
            return Err(lost(0)); // before sled makes an empty one
        }
        remove_half_snapshots(dir).map_err(io)?;
        let db = open_sled(dir).map_err(|error| from_fault(dir, error.into()))?;
        let found = number(db.get(CHANGES).map_err(|error| from_fault(dir, error.into()))?)
            .map_err(|fault| from_fault(dir, fault))?;
        if found < acknowledged {
            return Err(lost(found));
        }
        Ok(Self { db, changes: Mutex::new(found), flushing: tokio::sync::Mutex::default(), watermark })
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Db) -> Result<T, Fault>) -> Result<T, Fault> {
        let _changes = self.changes();
        read(&self.db)
    }

    /// Returns what the step says, and the number of the change if it made one.
    fn apply<T, F>(&self, step: F) -> Result<(T, Option<u64>), Fault>
    where
        F: FnOnce(&Db) -> Result<Step<T>, Fault>,
    {
        let mut changes = self.changes();
        let Step { batch, outcome } = step(&self.db)?;
        let Some(mut batch) = batch else { return Ok((outcome, None)) };
        let number = *changes + 1;
        batch.insert(CHANGES, &number.to_be_bytes());
        self.db.apply_batch(batch)?;
        *changes = number;
        Ok((outcome, Some(number)))
    }
}

/// Removes what a kill during start left: see the module's documentation. The snapshot before it, or the log
/// alone, has all that it would have had.
fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"snap.") && name.as_encoded_bytes().ends_with(b".generating")
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn open_sled(dir: &Path) -> sled::Result<Db> {
    // Every change is flushed before it is acknowledged, so nothing is left for a timer to flush.
    let config = sled::Config::new().path(dir).cache_capacity(PAGE_CACHE_BYTES).flush_every_ms(None);
    let mut attempts = 0;
    loop {
        attempts += 1;
        match config.open() {
            Err(sled::Error::Io(error)) if is_locked(&error) && attempts < REOPEN_ATTEMPTS => {
                thread::sleep(REOPEN_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Our own lock says that no other process has it.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().starts_with("could not acquire lock")
}

fn from_fault(dir: &Path, fault: Fault) -> Error {
    let what = match fault {
        Fault::Sled(sled::Error::Io(source)) => return from_io(dir, source),
        Fault::Sled(sled::Error::Corruption { .. }) => {
            "its files do not have the checksums they should".to_owned()
        }
        Fault::Sled(other) => other.to_string(),
        Fault::Malformed(what) => what.to_owned(),
    };
    Error::Torn { dir: dir.to_owned(), what }
}

fn from_io(dir: &Path, source: io::Error) -> Error {
    let dir = dir.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::Full { dir, source }
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::Torn { dir, what: source.to_string() }
        }
        _ => Error::Io { dir, source },
    }
}

#[async_trait]
impl Store for SledStore {
    async fn header(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read(|db| Ok(db.get(HEADER)?.map(|header| header.to_vec()))).await
    }

    async fn create_header(&self, header: Vec<u8>) -> Result<bool, Error> {
        self.create(HEADER.to_vec(), header).await
    }

    async fn data_key(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, Error> {
        let key = tree_key(DATA_KEY, &seal::encode_tenant(tenant));
        self.read(move |db| Ok(db.get(key)?.map(|sealed| sealed.to_vec()))).await
    }

    async fn data_keys(&self) -> Result<Vec<(TenantId, Vec<u8>)>, Error> {
        self.read(rows::data_keys).await
    }

    async fn create_data_key(
        &self,
        tenant: &TenantId,
        sealed: Vec<u8>,
        header: &[u8],
    ) -> Result<bool, Error> {
        let (key, header) = (tree_key(DATA_KEY, &seal::encode_tenant(tenant)), header.to_vec());
        self.change(move |db, _| {
            if db.get(HEADER)?.as_deref() != Some(&header) || db.contains_key(&key)? {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            batch.insert(key, sealed);
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn rewrap(&self, rewrapped: Rewrapped) -> Result<bool, Error> {
        self.change(move |db, _| {
            let present = rows::data_keys(db)?;
            let read = rewrapped.data_keys.iter().map(|(tenant, old, _)| (tenant, old));
            let same = present.iter().map(|(tenant, sealed)| (tenant, sealed)).eq(read);
            if !same || db.get(HEADER)?.as_deref() != Some(&rewrapped.old_header) {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            batch.insert(HEADER, rewrapped.header);
            for (tenant, _, sealed) in rewrapped.data_keys {
                batch.insert(tree_key(DATA_KEY, &seal::encode_tenant(&tenant)), sealed);
            }
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn row(&self, key: &AccountKey) -> Result<Option<Row>, Error> {
        let key = seal::encode(key);
        let found = self.read(move |db| ACCOUNTS.get(db, &key)).await?;
        Ok(found.map(|(generation, sealed)| Row { generation, sealed }))
    }

    async fn put(&self, key: &AccountKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        let key = seal::encode(key);
        self.change(move |db, _| {
            if ACCOUNTS.head(db, &key)?.map(|head| head.number) != expected {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            ACCOUNTS.put(db, &mut batch, &key, row.generation, &row.sealed)?;
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn delete(&self, key: &AccountKey, expected: u64) -> Result<bool, Error> {
        let account = key.clone();
        self.change(move |db, leases| {
            let key = seal::encode(&account);
            if ACCOUNTS.head(db, &key)?.map(|head| head.number) != Some(expected) {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            ACCOUNTS.remove(db, &mut batch, &key)?;
            rows::settle(db, &mut batch, &account, None)?;
            leases.end(&account);
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error> {
        let prefix = ACCOUNTS.prefix(&tenant.map(seal::encode_tenant).unwrap_or_default());
        let entries = self.read(move |db| {
            let entries = db.scan_prefix(prefix);
            entries.map(|entry| ACCOUNTS.entry(db, entry)?.into_row()).collect()
        });
        let mut rows: Vec<(AccountKey, Row)> = entries.await?;
        rows.sort_by(|(one, _), (other, _)| one.cmp(other)); // the bytes sort by length first
        Ok(rows)
    }

    async fn fact(&self, key: &FactKey) -> Result<Option<Row>, Error> {
        let key = seal::encode_fact(key);
        let found = self.read(move |db| FACTS.get(db, &key)).await?;
        Ok(found.map(|(generation, sealed)| Row { generation, sealed }))
    }

    async fn put_fact(&self, key: &FactKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        let key = seal::encode_fact(key);
        self.change(move |db, _| {
            if FACTS.head(db, &key)?.map(|head| head.number) != expected {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            FACTS.put(db, &mut batch, &key, row.generation, &row.sealed)?;
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn delete_fact(&self, key: &FactKey, expected: u64) -> Result<bool, Error> {
        let key = seal::encode_fact(key);
        self.change(move |db, _| {
            if FACTS.head(db, &key)?.map(|head| head.number) != Some(expected) {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            FACTS.remove(db, &mut batch, &key)?;
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn facts(&self, kind: FactKind, tenant: Option<&TenantId>) -> Result<Vec<(FactKey, Row)>, Error> {
        let prefix = FACTS.prefix(&tenant.map(seal::encode_tenant).unwrap_or_default());
        let mut facts = self.read(move |db| rows::facts(db, &prefix, kind)).await?;
        facts.sort_by(|(one, _), (other, _)| one.cmp(other)); // the bytes sort by length first
        Ok(facts)
    }

    async fn lease(&self, key: &AccountKey, _holder: &str, ttl: Duration) -> Result<Option<u64>, Error> {
        let account = key.clone();
        self.change(move |db, leases| {
            if ACCOUNTS.head(db, &seal::encode(&account))?.is_none() || !leases.is_free(&account) {
                return Ok(Step::nothing(None));
            }
            let fence = next_change(db)?;
            leases.give(&account, fence, ttl);
            Ok(Step::write(Batch::default(), Some(fence))) // the count of changes alone
        })
        .await
    }

    async fn renew(&self, key: &AccountKey, fence: u64, ttl: Duration) -> Result<bool, Error> {
        Ok(self.shared.leases().renew(key, fence, ttl))
    }

    async fn release(&self, key: &AccountKey, fence: u64) -> Result<(), Error> {
        self.shared.leases().release(key, fence);
        Ok(())
    }

    async fn intend(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        let account = key.clone();
        self.change(move |db, leases| {
            let key = seal::encode(&account);
            if !leases.is_of(&account, fence) || ANSWERS.head(db, &key)?.is_some() {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            INTENTS.put(db, &mut batch, &key, fence, &sealed)?;
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn quarantine(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        let key = seal::encode(key);
        self.change(move |db, _| {
            if INTENTS.head(db, &key)?.map(|head| head.number) != Some(fence) {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            ANSWERS.put(db, &mut batch, &key, fence, &sealed)?;
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn commit(
        &self,
        key: &AccountKey,
        expected: u64,
        fence: u64,
        row: Row,
        note: Option<Vec<u8>>,
    ) -> Result<Committed, Error> {
        let account = key.clone();
        self.change(move |db, leases| {
            let key = seal::encode(&account);
            if ACCOUNTS.head(db, &key)?.map(|head| head.number) != Some(expected) {
                return Ok(Step::nothing(Committed::Moved));
            }
            if !leases.is_of(&account, fence) {
                return Ok(Step::nothing(Committed::Fenced));
            }
            let mut batch = Batch::default();
            ACCOUNTS.put(db, &mut batch, &key, row.generation, &row.sealed)?;
            rows::settle(db, &mut batch, &account, note)?;
            Ok(Step::write(batch, Committed::Done))
        })
        .await
    }

    async fn drop_intent(&self, key: &AccountKey, fence: u64, note: Option<Vec<u8>>) -> Result<bool, Error> {
        let account = key.clone();
        self.change(move |db, leases| {
            if !leases.is_of(&account, fence) {
                return Ok(Step::nothing(false));
            }
            let mut batch = Batch::default();
            rows::settle(db, &mut batch, &account, note)?;
            Ok(Step::write(batch, true))
        })
        .await
    }

    async fn intent(&self, key: &AccountKey) -> Result<Option<StoredIntent>, Error> {
        let key = seal::encode(key);
        self.read(move |db| rows::intent(db, &key)).await
    }

    async fn intents(&self) -> Result<Vec<(AccountKey, StoredIntent)>, Error> {
        let entries = self.read(move |db| {
            let entries = db.scan_prefix(INTENTS.prefix(&[]));
            entries.map(|entry| INTENTS.entry(db, entry)?.into_intent(db)).collect()
        });
        let mut intents: Vec<(AccountKey, StoredIntent)> = entries.await?;
        intents.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(intents)
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<StoredNote>, Error> {
        self.read(move |db| {
            let entries = db.scan_prefix(NOTES.prefix(&[])).take(limit);
            entries.map(|entry| NOTES.entry(db, entry)?.into_note()).collect()
        })
        .await
    }

    async fn delivered(&self, ids: &[u64]) -> Result<(), Error> {
        let ids = ids.to_vec();
        self.change(move |db, _| {
            let mut batch = Batch::default();
            for id in ids {
                NOTES.remove(db, &mut batch, &id.to_be_bytes())?;
            }
            Ok(Step::write(batch, ()))
        })
        .await
    }
}
