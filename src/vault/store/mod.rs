//! Where sealed rows lie. A store sees names, generations and sealed bytes, and nothing else.

mod memory;
mod rows;
mod sled;
mod watermark;

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tokio::task::JoinError;

pub(super) use self::{memory::MemoryStore, sled::SledStore};
use crate::id::{AccountKey, TenantId};

/// One account at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Which generation is sealed; it is part of the associated data, so that it cannot be changed here.
    pub(super) generation: u64,
    /// What the vault sealed under the tenant's data key.
    pub(super) sealed: Vec<u8>,
}

/// A table of accounts by (tenant, connector, principal), one of data keys by tenant, and one header.
///
/// Every change is conditional and done at once, so that a database shared by several writers can hold the
/// tables: an insert that finds a row, or an update or delete whose generation is not the row's, changes
/// nothing and says `false`. When a change is acknowledged, it is on disk.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// What the vault wrote when it was made; `None` in a new one.
    async fn header(&self) -> Result<Option<Vec<u8>>, Error>;

    /// Writes the header, unless there is one.
    async fn create_header(&self, header: Vec<u8>) -> Result<bool, Error>;

    /// A tenant's sealed data key.
    async fn data_key(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, Error>;

    /// Writes a tenant's sealed data key, unless there is one.
    async fn create_data_key(&self, tenant: &TenantId, sealed: Vec<u8>) -> Result<bool, Error>;

    /// One account.
    async fn row(&self, key: &AccountKey) -> Result<Option<Row>, Error>;

    /// Writes a row: over the row of generation `expected`, or where there is none.
    async fn put(&self, key: &AccountKey, expected: Option<u64>, row: Row) -> Result<bool, Error>;

    /// Removes the row of generation `expected`.
    async fn delete(&self, key: &AccountKey, expected: u64) -> Result<bool, Error>;

    /// A tenant's accounts, or all, in the order of their keys.
    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error>;
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
