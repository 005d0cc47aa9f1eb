//! The `audit:` section of the configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer};

use super::Error;

/// The `audit:` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file that is written; `audit.jsonl` in the data directory if left out.
    pub file: Option<PathBuf>,
    /// What survives what.
    pub durability: Durability,
    /// A file larger than this is renamed and a new one begun. In bytes, 256 MiB if left out.
    pub rotate_bytes: u64,
    /// How many rotated files to keep. All of them if left out: nothing is deleted unless this says so.
    pub keep: Option<usize>,
    /// How many events may be under way or waiting to be written.
    pub room: usize,
    /// How long a request waits for room before it is refused.
    #[serde(deserialize_with = "read_duration")]
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            durability: Durability::Batch,
            rotate_bytes: 256 << 20,
            keep: None,
            room: 16_384,
            patience: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// The smallest `rotate_bytes`: a few events.
    const SMALLEST: u64 = 4096;

    /// The file that is written.
    #[must_use]
    pub fn path(&self, data_dir: &Path) -> PathBuf {
        self.file.clone().unwrap_or_else(|| data_dir.join("audit.jsonl"))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.rotate_bytes < Self::SMALLEST {
            return Err(Error::Setting("audit.rotate_bytes must be at least 4096"));
        }
        if self.room == 0 || self.room > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(Error::Setting("audit.room must be at least 1, and far below what memory holds"));
        }
        Ok(())
    }
}

fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

/// What survives what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written within 1 ms, synchronised every second.
    #[default]
    Batch,
    /// An action's intent is on the disk before the action is sent.
    Sync,
}
