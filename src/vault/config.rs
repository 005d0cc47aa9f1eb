//! The `vault:` section.

use std::{fmt, num::NonZeroUsize, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{KeySource, store::DatabaseUrl};
use crate::tls::Roots;

/// The `vault:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the accounts lie.
    pub backend: Backend,
    /// Where the key-encryption key is; `vault.key` in the data directory if left out.
    pub key: Option<KeySource>,
    /// The key that is to follow it: what `vault rotate-key` seals the vault with. The vault opens with either.
    pub next_key: Option<KeySource>,
    /// The database of `backend: postgres`.
    pub url: Option<DatabaseUrl>,
    /// A file that holds the database's password, where it is not in the URL.
    pub password_file: Option<PathBuf>,
    /// Whom the database's certificate is checked by.
    pub roots: Roots,
    /// The most connections to the database, besides the one on which it tells of changes.
    pub connections: NonZeroUsize,
    /// How long the database may take for one thing, a connection included.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// How long accounts in memory are used while the database is not heard from.
    #[serde(with = "crate::duration")]
    pub offline_use: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
        Self {
            backend: Backend::default(),
            key: None,
            next_key: None,
            url: None,
            password_file: None,
            roots: Roots::default(),
            connections: CONNECTIONS,
            timeout: Duration::from_secs(3),
            offline_use: Duration::from_millis(500),
        }
    }
}

/// Where the accounts lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Embedded, in the data directory.
    #[default]
    Sled,
    /// A PostgreSQL database, which many processes may share.
    Postgres,
    /// A vault that another keybearer serves. Not supported yet.
    Broker,
    /// In this process's memory, for [`Vault::in_memory`](super::Vault::in_memory). No configuration can name it.
    #[serde(skip)]
    Memory,
}

impl Backend {
    /// As the configuration names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Postgres => "postgres",
            Self::Broker => "broker",
            Self::Memory => "memory",
        }
    }
}

/// Where a store is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Dir(PathBuf),
    /// A database, without user and password: `db.example:5432/keybearer`.
    Database(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(dir) => dir.display().fmt(f),
            Self::Database(name) => write!(f, "PostgreSQL at {name}"),
        }
    }
}
