//! `keybearer policy bundle` and `policy keys`: policy files signed, and the keys that the signature is believed by.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::refused;
use crate::{
    cli::{
        Failure,
        output::{Out, counted, say},
    },
    ruleset::{self, BundleKey, Signed, Summary},
    secret::Secret,
};

#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// The file with the private key: Ed25519 or P-256, PEM
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,
    /// What key sets call the key [default: its thumbprint, as `policy keys` does]
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// Where to write the bundle [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Keys {
    /// The files with the private keys: Ed25519 or P-256, PEM
    #[arg(value_name = "KEY.pem", required = true)]
    keys: Vec<PathBuf>,
}

/// What was made, for programs.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    made: Timestamp,
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<&'a str>,
}

impl Bundle {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        let key = read_key(&self.key, self.key_id)?;
        let made = Timestamp::now();
        let signed = match ruleset::bundle(&self.paths, &key, made) {
            Ok(signed) => signed,
            Err(error) => return refused(error, out),
        };
        if let Some(path) = &self.out {
            write(path, &signed.text)?;
        }
        let Signed { text, summary } = &signed;
        if out.is_json() {
            let bundle = self.out.is_none().then_some(&**text);
            let made = Timestamp::from_second(made.as_second()).map_err(Failure::new)?;
            return out.json(&Report { summary, made, key_id: key.id(), out: self.out.as_deref(), bundle });
        }
        let what = format!(
            "{} signed by {} (revision {})",
            counted(summary.files, "file"),
            key.id(),
            summary.revision
        );
        if let Some(path) = &self.out {
            return out.line(format!("ok: {}: {what}", path.display()));
        }
        say(format!("ok: {what}"));
        out.line(text)
    }
}

impl Keys {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        let keys: Vec<BundleKey> =
            self.keys.iter().map(|path| read_key(path, None)).collect::<Result<_, _>>()?;
        let public: Vec<_> = keys.iter().map(BundleKey::public).collect();
        out.json(&json!({ "keys": public }))
    }
}

fn read_key(path: &Path, id: Option<String>) -> Result<BundleKey, Failure> {
    let wrong = |why: String| Failure::new(format!("{}: {why}", path.display()));
    let pem = fs::read(path).map(Secret::new).map_err(|error| wrong(error.to_string()))?;
    BundleKey::from_pem(&pem, id).map_err(|error| wrong(error.to_string()))
}

/// Whole or not at all: somebody may be watching.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let draft = path.with_added_extension("new");
    let written = fs::write(&draft, format!("{text}\n")).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
