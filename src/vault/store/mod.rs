//! Where sealed rows lie. A store sees names, generations and sealed bytes, and nothing else.

#[cfg(test)]
mod faulty;
mod leases;
mod memory;
mod postgres;
mod rows;
mod sled;
mod watermark;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::mpsc, task::JoinError};

#[cfg(test)]
pub(crate) use self::faulty::Faults;
#[cfg(test)]
pub(super) use self::faulty::FaultyStore;
pub use self::postgres::{DatabaseUrl, UrlError};
pub(super) use self::{memory::MemoryStore, postgres::PostgresStore, sled::SledStore};
use super::{Change, FactKey, FactKind};
use crate::id::{AccountKey, TenantId};

/// One account at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Which generation is sealed; it is part of the associated data, so that it cannot be changed here.
    pub(super) generation: u64,
    /// What the vault sealed under the tenant's data key.
    pub(super) sealed: Vec<u8>,
}

/// What is about to be sent to a token endpoint for an account, or was when its process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredIntent {
    /// The fence of the lease under which it was written. Both texts are sealed for it.
    pub(super) fence: u64,
    /// What the vault sealed before the request was sent.
    pub(super) sealed: Vec<u8>,
    /// The raw answer, sealed before anybody read it; `None` where none came.
    pub(super) answer: Option<Vec<u8>>,
}

/// What waits to be told: written in the same step as the change that it tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredNote {
    /// Rises from note to note, perhaps with gaps.
    pub(super) id: u64,
    /// The account that it is about.
    pub(super) account: AccountKey,
    /// What the vault sealed.
    pub(super) sealed: Vec<u8>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// It is on disk, all of it.
    Done,
    /// Nothing was written: the account has another generation, or is gone.
    Moved,
    /// Nothing was written: the lease is another one's, or was released.
    Fenced,
}

/// A header and all data keys, sealed under another key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewrapped {
    /// The header as it was read.
    pub(super) old_header: Vec<u8>,
    /// What replaces it.
    pub(super) header: Vec<u8>,
    /// Every tenant's data key, in the order of the tenants: as it was read, and what replaces it.
    pub(super) data_keys: Vec<(TenantId, Vec<u8>, Vec<u8>)>,
}

/// A table of accounts by (tenant, connector, principal), one of data keys by tenant, and one header; beside the
/// accounts their leases and intents, one outbox, and facts by (tenant, kind, name).
///
/// Every change is conditional and done at once, so that a database shared by several writers can hold the
/// tables: what does not find what it expects changes nothing and says `false`. When a change is acknowledged, it
/// is on disk.
///
/// # Leases and fences
///
/// A lease keeps others from refreshing the same account. Each one given has a fence, greater than every fence
/// that this account ever had, also after a restart, and after the account was removed and added again (one counter
/// for all accounts will do). Whoever has the *newest* fence may write, also when its time has run out and nobody
/// took the account since: a rotated token must not be lost to a slow answer. Leases themselves may be forgotten by
/// a restart of the only process; fences, intents, answers and notes may not.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// What the vault wrote when it was made; `None` in a new one.
    async fn header(&self) -> Result<Option<Vec<u8>>, Error>;

    /// Writes the header, unless there is one.
    async fn create_header(&self, header: Vec<u8>) -> Result<bool, Error>;

    /// A tenant's sealed data key.
    async fn data_key(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, Error>;

    /// Every tenant's sealed data key, in the order of the tenants.
    async fn data_keys(&self) -> Result<Vec<(TenantId, Vec<u8>)>, Error>;

    /// Writes a tenant's sealed data key, unless there is one, or the header is not `header`: then it was sealed
    /// under a key that is no longer the vault's.
    async fn create_data_key(&self, tenant: &TenantId, sealed: Vec<u8>, header: &[u8])
    -> Result<bool, Error>;

    /// Replaces the header and every data key in one step, if the header and the whole table of data keys are
    /// what was read: a tenant that came since, or another rotation, makes it `false`.
    async fn rewrap(&self, rewrapped: Rewrapped) -> Result<bool, Error>;

    /// One account.
    async fn row(&self, key: &AccountKey) -> Result<Option<Row>, Error>;

    /// Writes a row: over the row of generation `expected`, or where there is none.
    async fn put(&self, key: &AccountKey, expected: Option<u64>, row: Row) -> Result<bool, Error>;

    /// Removes the row of generation `expected`, and with it the account's lease and intent. Its notes stay.
    async fn delete(&self, key: &AccountKey, expected: u64) -> Result<bool, Error>;

    /// A tenant's accounts, or all, in the order of their keys.
    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error>;

    /// One fact.
    async fn fact(&self, key: &FactKey) -> Result<Option<Row>, Error>;

    /// Writes a fact: over the one of generation `expected`, or where there is none.
    async fn put_fact(&self, key: &FactKey, expected: Option<u64>, row: Row) -> Result<bool, Error>;

    /// Removes the fact of generation `expected`.
    async fn delete_fact(&self, key: &FactKey, expected: u64) -> Result<bool, Error>;

    /// A tenant's facts of a kind, or all of that kind, in the order of their keys.
    async fn facts(&self, kind: FactKind, tenant: Option<&TenantId>) -> Result<Vec<(FactKey, Row)>, Error>;

    /// Leases an account for so long and returns the fence; `None` while another lease lasts, the same holder's
    /// too, or where there is no such account. `holder` is for people to read.
    async fn lease(&self, key: &AccountKey, holder: &str, ttl: Duration) -> Result<Option<u64>, Error>;

    /// Lets the lease last for so long from now, if its fence is the account's newest and it was not released.
    async fn renew(&self, key: &AccountKey, fence: u64, ttl: Duration) -> Result<bool, Error>;

    /// Gives the lease up. Of one that is another's by now, nothing.
    async fn release(&self, key: &AccountKey, fence: u64) -> Result<(), Error>;

    /// Writes what is about to be sent, over an earlier intent: if the lease is this fence's, and no answer lies
    /// there unread. That one must be read and committed, or dropped, first.
    async fn intend(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error>;

    /// Puts the answer beside the intent that this fence wrote, if that one is still there: also when another one
    /// has the lease by now, which has then not sent anything yet and will find the answer.
    async fn quarantine(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error>;

    /// In one step: writes the row over that of generation `expected`, if the lease is this fence's; removes the
    /// account's intent and answer, whoever wrote them; puts the note, if any, into the outbox.
    async fn commit(
        &self,
        key: &AccountKey,
        expected: u64,
        fence: u64,
        row: Row,
        note: Option<Vec<u8>>,
    ) -> Result<Committed, Error>;

    /// In one step: removes the account's intent and answer, whoever wrote them, if the lease is this fence's, and
    /// puts the note, if any, into the outbox. `true` also where there was no intent.
    async fn drop_intent(&self, key: &AccountKey, fence: u64, note: Option<Vec<u8>>) -> Result<bool, Error>;

    /// An account's intent.
    async fn intent(&self, key: &AccountKey) -> Result<Option<StoredIntent>, Error>;

    /// All intents, in the order of their accounts' keys: those of requests under way, and those of processes that
    /// ended.
    async fn intents(&self) -> Result<Vec<(AccountKey, StoredIntent)>, Error>;

    /// The oldest notes, at most so many, in their order.
    async fn outbox(&self, limit: usize) -> Result<Vec<StoredNote>, Error>;

    /// Removes notes.
    async fn delivered(&self, ids: &[u64]) -> Result<(), Error>;

    /// What other processes change. Asked for once; `None` where this process is the only one.
    fn changes(&self) -> Option<mpsc::Receiver<Change>> {
        None
    }

    /// Whether a change that another process makes now would be heard of.
    fn is_heard(&self) -> bool {
        true
    }
}

/// Why a store did not do it. Nothing that was acknowledged before is touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room: the disk, a quota or the largest file. It works again when there is room.
    #[error("no room left for the vault in {}: make room and try again ({source})", dir.display())]
    Full {
        /// The store's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("the vault in {} cannot be read or written: {source}", dir.display())]
    Io {
        /// The store's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files are not what was written.
    #[error("the vault in {} is torn: {what}; restore the whole directory from a backup", dir.display())]
    Torn {
        /// The store's directory.
        dir: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The files open, and lack what was acknowledged.
    #[error(
        "the vault in {} holds {found} of {acknowledged} acknowledged changes: its files were cut or restored in part; \
         restore the whole directory from a backup, or remove the file `acknowledged` there to go on without them",
        dir.display()
    )]
    Lost {
        /// The store's directory.
        dir: PathBuf,
        /// How many changes the files hold.
        found: u64,
        /// How many were acknowledged.
        acknowledged: u64,
    },
    /// The database is away, or does not answer in time. It is asked anew at the next use.
    #[error("PostgreSQL at {database} cannot be reached: {why}")]
    Unreachable {
        /// Where, without user and password.
        database: String,
        /// What the system or the server said.
        why: String,
    },
    /// The database answered, and did not do it: wrong password, missing rights, no room.
    #[error("PostgreSQL at {database} refused: {why}")]
    Database {
        /// Where, without user and password.
        database: String,
        /// What the server said.
        why: String,
    },
    /// A later version has been here.
    #[error(
        "the vault in PostgreSQL at {database} has schema {found}, and this keybearer knows {known}: run the newer version"
    )]
    Newer {
        /// Where, without user and password.
        database: String,
        /// The schema that is there.
        found: i32,
        /// The newest that is known.
        known: i32,
    },
    /// `vault.password_file` is not what it should be.
    #[error("cannot take the database's password from {}: {why}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `vault.roots` cannot be read.
    #[error("vault.roots: {0}")]
    Roots(String),
    /// The process stops.
    #[error("the vault's work was interrupted: the process stops")]
    Interrupted,
}

impl Error {
    /// sled panics at some of the damage that it does not expect.
    pub(super) fn from_join(dir: &Path, error: &JoinError) -> Self {
        if error.is_panic() {
            let what = "the store's library gave up on its files".to_owned();
            return Self::Torn { dir: dir.to_owned(), what };
        }
        Self::Interrupted
    }
}
