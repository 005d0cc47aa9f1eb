//! A policy file is compiled or refused with a place in it; it never panics.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use keybearer::ruleset::Ruleset;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
static FILE: LazyLock<PathBuf> = LazyLock::new(|| DIR.path().join("policy.yaml"));

fuzz_target!(|text: &str| {
    std::fs::write(&*FILE, text).unwrap();
    if let Err(error) = Ruleset::load(std::slice::from_ref(&*FILE)) {
        assert!(!error.findings().is_empty());
        assert!(error.to_string().contains("policy.yaml"), "{error}");
    }
});
