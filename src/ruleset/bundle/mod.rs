//! Signed bundles: all files of a policy in one file, with a signature that says who made it.
//!
//! A bundle is a compact JWS (RFC 7515) of type `keybearer-policy+jwt`. It claims when it was made (`iat`), the `revision`
//! and the `files`, in order. Whoever has one of the keys is believed, whoever brings the bundle.

mod key;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::key::{BundleKey, UnfitKey};
use super::{
    LoadError, Ruleset, Summary,
    files::{File, revision},
    origin::Origin,
    sources::Sources,
};
use crate::{
    document::Finding,
    identity::{KeyRing, Unverified},
    regular,
    secret::Secret,
};

/// What a bundle says it is: whatever else its key signs is none.
const TYP: &str = "keybearer-policy+jwt";
/// The largest bundle and key set, in bytes: far more than people write.
const MAX_BUNDLE: u64 = 16 << 20;

/// A new bundle.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The bundle.
    pub text: String,
    /// What it is made of.
    pub summary: Summary,
}

/// A bundle whose signature was checked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) files: Vec<File>,
    /// When it was made, by its maker's clock.
    pub(super) made: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iat: i64,
    revision: Arc<str>,
    files: Vec<File>,
}

/// Makes a bundle of policy files, if nothing is wrong with them.
///
/// # Errors
/// All that is wrong, also that there is too much of it.
pub fn bundle(paths: &[PathBuf], key: &BundleKey, made: Timestamp) -> Result<Signed, LoadError> {
    let origins: Vec<Origin> = paths.iter().cloned().map(Origin::Path).collect();
    let mut files = Sources::read(&origins).files;
    for file in &mut files.all {
        file.name = inside(Path::new(""), &file.name);
    }
    let ruleset = Ruleset::from_files(files)?;
    let claims = Claims { iat: made.as_second(), revision: ruleset.revision, files: ruleset.files };
    let text = key.sign(&claims).filter(|text| text.len() as u64 <= MAX_BUNDLE);
    let text = text.ok_or_else(|| {
        let file = paths.first().map_or_else(|| Path::new(""), PathBuf::as_path);
        LoadError { findings: vec![Finding::of_file(file, format!("makes {}", too_large()))] }
    })?;
    Ok(Signed { text, summary: ruleset.summary })
}

/// Reads a bundle and believes it by the keys in a file.
///
/// # Errors
/// What is wrong with it, and what to do.
pub(super) fn open(bundle: &Path, keys: &Path) -> Result<Opened, Finding> {
    let wrong = |says: String| Finding::of_file(bundle, says);
    let ring = read(keys).and_then(|bytes| KeyRing::parse(&bytes)).map_err(|why| {
        Finding::of_file(
            keys,
            format!("has no keys for bundles: {why}; `keybearer policy keys` makes such a file"),
        )
    })?;
    let text = read(bundle).map_err(|why| wrong(format!("cannot be read: {why}")))?;
    let signed =
        ring.verify(Secret::new(text.trim_ascii().to_vec())).map_err(|why| wrong(advice(why, keys)))?;
    if signed.typ.as_deref() != Some(TYP) {
        let says = "is signed, but is no bundle: make one with `keybearer policy bundle`";
        return Err(wrong(says.to_owned()));
    }
    let claims: Claims = serde_json::from_value(Value::Object(signed.claims))
        .map_err(|error| wrong(format!("is a bundle of another version: make it anew ({error})")))?;
    let made = Timestamp::from_second(claims.iat)
        .map_err(|_| wrong("does not say when it was made: make it anew".to_owned()))?;
    if claims.revision != revision(&claims.files) {
        return Err(wrong("names another revision than that of its files: make it anew".to_owned()));
    }
    let named = |file: File| File { name: inside(bundle, &file.name), ..file };
    Ok(Opened { files: claims.files.into_iter().map(named).collect(), made })
}

/// What a file is called that lies in a bundle, wherever it lay before.
fn inside(bundle: &Path, name: &str) -> String {
    let parts = Path::new(name).components().filter(|part| matches!(part, Component::Normal(_)));
    bundle.join(parts.collect::<PathBuf>()).display().to_string()
}

/// Whether a text is a compact JWS and not YAML: named without its keys, a bundle would be an odd YAML error.
pub(super) fn is_bundle(text: &str) -> bool {
    let text = text.trim_end();
    text.starts_with("eyJ") && text.split('.').count() == 3 && !text.contains(char::is_whitespace)
}

fn advice(why: Unverified, keys: &Path) -> String {
    let keys = keys.display();
    match why {
        Unverified::Form => "is no signed bundle: make one with `keybearer policy bundle`".to_owned(),
        Unverified::UnknownKey => format!(
            "is signed with a key that is not in {keys}: add its public key there (`keybearer policy keys`), or sign with one that is"
        ),
        Unverified::Forged | Unverified::Unavailable => {
            format!(
                "was changed after it was signed, or signed by somebody else than the key of that name in {keys}: get it anew"
            )
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    regular::read(path, MAX_BUNDLE).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => too_large(),
        _ => error.to_string(),
    })
}

fn too_large() -> String {
    "a bundle larger than 16 MiB: name fewer files".to_owned()
}
