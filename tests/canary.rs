//! After the suite: no secret stands in anything that it wrote or showed (law 9).
//!
//! `make test` runs this last. It is no part of a plain `cargo test`, which has nothing to look at before the
//! suite has run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use memchr::memmem;

/// What every secret of the suite begins with.
const MARK: &str = "kb-canary-";
/// What must have been kept: a search of nothing would find nothing.
const KINDS: [&str; 5] = ["log", "audit", "metrics", "answer", "output"];

#[test]
fn no_secret_stands_in_anything_that_the_suite_wrote_or_showed() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("evidence");
    let mut sizes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).expect("run the suite first: make test") {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (files, size) = sizes.entry(name.split('.').next().unwrap().to_owned()).or_default();
        (*files, *size) = (*files + 1, *size + bytes.len());
        found.extend(spelling_in(&bytes).map(|spelling| format!("{name}: {spelling}")));
    }
    println!("canary: searched (files, bytes) {sizes:?}");
    for kind in KINDS {
        assert!(sizes.get(kind).is_some_and(|(_, size)| *size > 0), "nothing was kept of {kind}: {sizes:?}");
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_search_finds_a_secret_in_every_spelling() {
    let secret = "kb-canary-acme-4f1d9c7ab2";
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent = secret.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for before in ["", "u", "us", "use"] {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{before}:{secret}"));
        for planted in [format!("{before}{secret}"), encoded, hex(secret.as_bytes()), percent.clone()] {
            assert!(spelling_in(format!("{{\"x\":\"{planted}\"}}").as_bytes()).is_some(), "{planted}");
        }
    }
    assert_eq!(spelling_in("kb-canar, …7ab2".as_bytes()), None);
}

/// The spelling of the mark that stands in the bytes, if any does.
fn spelling_in(bytes: &[u8]) -> Option<String> {
    let mut spellings = vec![MARK.to_owned(), MARK.replace('-', "%2D"), MARK.replace('-', "%2d")];
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    spellings.extend([hex.to_ascii_uppercase(), hex]);
    spellings.push(MARK.bytes().map(|byte| format!("%{byte:02X}")).collect());
    spellings.push(MARK.bytes().map(|byte| format!("%{byte:02x}")).collect());
    // Whatever stands before the mark shifts it to one of three places within base64's groups of three bytes;
    // the characters that its neighbours share are left out.
    for shift in 0..3 {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{}{MARK}", "x".repeat(shift)));
        let whole = (shift + MARK.len()) / 3 * 4;
        spellings.push(encoded[if shift == 0 { 0 } else { 4 }..whole].to_owned());
    }
    spellings.into_iter().find(|spelling| memmem::find(bytes, spelling.as_bytes()).is_some())
}
