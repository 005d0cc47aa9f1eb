//! The `vault:` section.

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{Error, KeySource, Url};
use crate::{fetch, tls::Roots};

/// The key's file in the data directory, where the configuration names none.
const KEY_FILE: &str = "vault.key";

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
    /// The database of `backend: postgres`, or the broker of `backend: broker`.
    pub url: Option<Url>,
    /// A file that holds the database's password, where it is not in the URL.
    pub password_file: Option<PathBuf>,
    /// A file that holds the token by which a broker knows this process. It is read again when it changes.
    pub token_file: Option<PathBuf>,
    /// Whom the database's or the broker's certificate is checked by.
    pub roots: Roots,
    /// The most connections to the database, besides the one on which it tells of changes.
    pub connections: NonZeroUsize,
    /// How long the database or the broker may take for one thing, a connection included.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// How long accounts in memory are used while the database or the broker is not heard from; if left out, 500 ms
    /// with a database and 60 s with a broker.
    #[serde(with = "crate::duration::option")]
    pub offline_use: Option<Duration>,
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
            token_file: None,
            roots: Roots::default(),
            connections: CONNECTIONS,
            timeout: Duration::from_secs(3),
            offline_use: None,
        }
    }
}

/// A broker, and how it is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtBroker {
    /// Where it is, `https`.
    pub url: fetch::Url,
    /// The file with the token by which it knows this process.
    pub token_file: PathBuf,
    /// Whom its certificate is checked by.
    pub roots: Roots,
    /// How long it may take for one answer, a connection included.
    pub timeout: Duration,
    /// How long accounts in memory are used while it is not heard from.
    pub offline_use: Duration,
}

impl AtBroker {
    /// The URL as people are told it.
    #[must_use]
    pub fn name(&self) -> String {
        self.url.to_string().trim_end_matches('/').to_owned()
    }
}

impl Config {
    /// Where the key is: as it says, or in the data directory.
    pub(super) fn key_source(&self, data_dir: &Path) -> KeySource {
        self.key.clone().unwrap_or_else(|| KeySource::File(data_dir.join(KEY_FILE)))
    }

    /// The file with the key, if it is one.
    #[must_use]
    pub fn key_file(&self, data_dir: &Path) -> Option<PathBuf> {
        match self.key_source(data_dir) {
            KeySource::File(file) => Some(file),
            KeySource::Env(_) | KeySource::Value(_) => None,
        }
    }

    /// The broker that has the accounts; `None` where this process opens a vault itself.
    ///
    /// # Errors
    /// Where it is not said which, or as whom.
    pub fn at_broker(&self) -> Result<Option<AtBroker>, Error> {
        if self.backend != Backend::Broker {
            return Ok(None);
        }
        let Some(Url::Broker(url)) = &self.url else { return Err(Error::NoBrokerUrl) };
        Ok(Some(AtBroker {
            url: url.clone(),
            token_file: self.token_file.clone().ok_or(Error::NoTokenFile)?,
            roots: self.roots.clone(),
            timeout: self.timeout,
            offline_use: self.offline_use(),
        }))
    }

    /// How long accounts in memory are used while the database or the broker is not heard from.
    #[must_use]
    pub fn offline_use(&self) -> Duration {
        self.offline_use.unwrap_or(match self.backend {
            Backend::Broker => Duration::from_mins(1),
            Backend::Sled | Backend::Postgres | Backend::Memory => Duration::from_millis(500),
        })
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
    /// At another keybearer, which serves its vault ([`Config::at_broker`]).
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
