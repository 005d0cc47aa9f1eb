//! The key-encryption key: where it comes from, and its file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    Fingerprint,
    seal::{self, Key},
};
use crate::secret::Secret;

/// Where the key-encryption key is: `{file: vault.key}` or `{env: NAME}`. It is 32 random bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// A file that only its owner, or for Kubernetes its group, may read.
    File(PathBuf),
    /// The name of an environment variable. `config` reads it and puts a [`KeySource::Value`] here; one that
    /// is still here when the vault is opened was not set.
    Env(String),
    /// The key's text itself.
    #[serde(skip)]
    Value(Secret),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read or written.
    #[error("cannot {attempt} the vault key {}: {source}", path.display())]
    Io {
        /// `read`, `create`.
        attempt: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("there is no vault key at {}: put it there, or say in vault.key where it is", .0.display())]
    NoFile(PathBuf),
    /// The variable is not set.
    #[error("the vault key is to come from the environment variable {0}, which is not set")]
    NoValue(String),
    /// Others than owner and group may read it, or others than the owner may change it.
    #[error("the vault key {} has mode {mode:03o}: run `chmod 600` on it", path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 32 bytes in base64.
    #[error(
        "the vault key in {0} is not 32 bytes in base64: put the copy of it back that was kept elsewhere, since no other opens what it sealed; for a vault that is yet to be made, `head -c 32 /dev/urandom | base64` makes one"
    )]
    Malformed(String),
    /// The system gives no random bytes.
    #[error("cannot make a vault key: the system gives no random bytes")]
    Random,
}

/// Bits that no key file may have: anything for others, and writing for the group. Kubernetes mounts secrets
/// for a `fsGroup` with mode 0440, so the group may read.
const LOOSE: u32 = 0o027;

/// No key file is longer; a path such as `/dev/zero` ends here.
const LONGEST: usize = 1024;

impl KeySource {
    /// Reads the key.
    pub(super) fn load(&self) -> Result<Key, Error> {
        match self {
            Self::File(path) => load(path),
            Self::Env(name) => Err(Error::NoValue(name.clone())),
            Self::Value(text) => {
                #[expect(clippy::disallowed_methods, reason = "the key is what seals")]
                let text = text.expose();
                parse(text).ok_or_else(|| Error::Malformed("the environment".to_owned()))
            }
        }
    }

    /// The key as text, for a process that has the vault open; makes the file where there is none yet. Says whether
    /// it did. Blocks.
    ///
    /// # Errors
    /// [`Error`], which shows no part of a key.
    pub fn text_or_new(&self) -> Result<(Secret, bool), Error> {
        let (key, is_new) = self.load_or_create()?;
        Ok((Secret::new(text(&key).as_bytes().to_vec()), is_new))
    }

    /// What tells the key apart. Blocks.
    ///
    /// # Errors
    /// [`Error`].
    pub fn fingerprint(&self) -> Result<Fingerprint, Error> {
        self.load().map(|key| key.fingerprint())
    }

    /// Reads the key, and makes the file where there is none yet. Says whether it did.
    pub(super) fn load_or_create(&self) -> Result<(Key, bool), Error> {
        match (self, self.load()) {
            (Self::File(path), Err(Error::NoFile(_))) => create(path).map(|key| (key, true)),
            (_, key) => key.map(|key| (key, false)),
        }
    }
}

fn load(path: &Path) -> Result<Key, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::NoFile(path.to_owned()),
        _ => Error::Io { attempt: "read", path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & LOOSE != 0 {
        return Err(Error::Mode { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(vec![0; LONGEST]);
    let length = read_up_to(file, &mut text).map_err(failed)?;
    parse(&text[..length]).ok_or_else(|| Error::Malformed(path.display().to_string()))
}

fn read_up_to(mut file: File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match io::Read::read(&mut file, &mut buffer[length..])? {
            0 => return Ok(length),
            n => length += n,
        }
    }
}

fn parse(text: &[u8]) -> Option<Key> {
    // A few bytes more than a key, because the decoder wants room for its estimate.
    let mut bytes = Zeroizing::new([0; seal::KEY + 4]);
    let length = STANDARD.decode_slice(text.trim_ascii(), bytes.as_mut_slice()).ok()?;
    Key::from_bytes(&bytes[..length])
}

/// In base64, with room for a line break.
fn text(key: &Key) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(64));
    STANDARD.encode_string(key.bytes(), &mut text);
    text
}

/// Writes a new key beside its place and links it there: a kill leaves no half key, and a key that another
/// process made in between stays.
fn create(path: &Path) -> Result<Key, Error> {
    let failed = |source| Error::Io { attempt: "create", path: path.to_owned(), source };
    let key = Key::generate().map_err(|_| Error::Random)?;
    let mut text = text(&key);
    text.push('\n');

    let parent = parent(path);
    fs::create_dir_all(parent).map_err(failed)?;
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&draft);
    let written = write_synced(&draft, text.as_bytes()).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    written.and_then(|()| File::open(parent)?.sync_all()).map_err(failed)?;
    Ok(key)
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/vault.key");
        let source = KeySource::File(path.clone());
        assert!(matches!(source.load(), Err(Error::NoFile(_))));

        let (made, new) = source.load_or_create().unwrap();
        let (read, again) = source.load_or_create().unwrap();
        let (text, again_as_text) = source.text_or_new().unwrap();
        assert_eq!(KeySource::Value(text).fingerprint().unwrap(), source.fingerprint().unwrap());
        assert!(!again_as_text);
        assert!(new && !again);
        assert_eq!(made.bytes(), read.bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_key_that_others_could_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.key");
        KeySource::File(path.clone()).load_or_create().unwrap();
        for mode in [0o644, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = KeySource::File(path.clone()).load().err().unwrap();
            assert!(matches!(refused, Error::Mode { mode: found, .. } if found == mode), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert!(KeySource::File(path).load().is_ok(), "as Kubernetes mounts it");
    }

    #[test]
    fn a_malformed_key_is_neither_taken_nor_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.key");
        for text in ["", "c2hvcnQ=", "not base64 at all, but long enough to be one", &"A".repeat(5000)] {
            let _ = fs::remove_file(&path);
            write_synced(&path, text.as_bytes()).unwrap();
            let refused = KeySource::File(path.clone()).load().err().unwrap();
            assert!(matches!(refused, Error::Malformed(_)), "{refused}");
            assert!(refused.to_string().contains("put the copy of it back"), "{refused}");
            assert!(text.is_empty() || !refused.to_string().contains(text));
            let refused =
                KeySource::Value(Secret::new(text.as_bytes().to_vec())).load_or_create().err().unwrap();
            assert!(matches!(refused, Error::Malformed(_)), "{refused}");
        }
    }

    #[test]
    fn the_key_may_come_as_a_value() {
        let text = STANDARD.encode([7; 32]) + "\n";
        let key = KeySource::Value(Secret::new(text.into_bytes())).load().unwrap();
        assert_eq!(key.bytes(), &[7; 32]);
        let unset = KeySource::Env("KEYBEARER_KEY".to_owned()).load().err().unwrap();
        assert!(unset.to_string().contains("KEYBEARER_KEY, which is not set"));
    }
}
