//! Policy files in memory: a name and a text each, wherever they came from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::document::Finding;

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// What findings and audit events call it: its path.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// All files of a policy, and what is wrong with those that could not be had.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// In the order in which they are read.
    pub(super) all: Vec<File>,
    /// What could not be read.
    pub(super) findings: Vec<Finding>,
    /// The revision that whoever handed the files over calls them by, where somebody did.
    pub(super) named: Option<Arc<str>>,
}

impl Files {
    /// Names the content.
    pub(super) fn revision(&self) -> Arc<str> {
        self.named.clone().unwrap_or_else(|| revision(&self.all))
    }

    /// Tells whether anything changed since another reading, also which files could not be read.
    pub(super) fn fingerprint(&self) -> String {
        let names: Vec<_> = self.all.iter().map(|file| &file.name).collect();
        format!("{} {names:?} {:?}", self.revision(), self.findings)
    }
}

/// Names the content: the first 12 hexadecimal digits of a SHA-256 over every text, in order.
pub(super) fn revision(files: &[File]) -> Arc<str> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update((file.text.len() as u64).to_be_bytes());
        hash.update(&file.text);
    }
    hash.finalize().iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}")).into()
}
