//! A log is verified or found wanting; no bytes make the verifier panic, and none that are not a log pass.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use keybearer::audit::{Extent, verify};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
static FILE: LazyLock<PathBuf> = LazyLock::new(|| DIR.path().join("audit.jsonl"));

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).unwrap();
    for extent in [Extent::Whole, Extent::Excerpt] {
        let report = verify(std::slice::from_ref(&*FILE), extent).unwrap();
        assert!(!report.is_intact() || bytes.is_empty() || report.lines > 0, "{report:?}");
    }
});
