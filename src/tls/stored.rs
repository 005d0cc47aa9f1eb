//! The CA's two files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rcgen::KeyPair;
use zeroize::Zeroizing;

use super::Error;

/// The certificate's file name.
pub(super) const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// What the two files hold.
pub(super) struct Stored {
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

/// Reads both files, or makes what is missing. `certify` makes the certificate of a key.
pub(super) fn open(
    dir: &Path,
    certify: impl FnOnce(&KeyPair) -> Result<String, Error>,
) -> Result<Stored, Error> {
    if let Some(stored) = load(dir)? {
        return Ok(stored); // also where the directory is mounted read-only
    }
    let failed = |source| Error::Write { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    // Two processes that start together make one CA: the lock lies on the directory and leaves no file behind.
    let lock = File::open(dir).map_err(failed)?;
    lock.lock().map_err(failed)?;
    match load(dir)? {
        Some(stored) => Ok(stored),
        None => make(dir, certify),
    }
}

/// `None` while there is no certificate: it is written last, so it says that the pair is whole.
fn load(dir: &Path) -> Result<Option<Stored>, Error> {
    let path = dir.join(CERTIFICATE);
    let pem = match fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path, source }),
    };
    match load_key(&dir.join(KEY))? {
        Some(key) => Ok(Some(Stored { pem, key })),
        None => Err(Error::KeyMissing { pem: path, key: dir.join(KEY) }),
    }
}

fn load_key(path: &Path) -> Result<Option<KeyPair>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::LooseKey { path: path.to_owned(), mode });
    }
    let mut pem = Zeroizing::new(String::new());
    file.read_to_string(&mut pem).map_err(failed)?;
    let unusable = |_| Error::Unusable { path: path.to_owned(), reason: "does not hold a private key" };
    KeyPair::from_pem(&pem).map(Some).map_err(unusable)
}

/// The key first. One that a crash left without a certificate is taken up again: nobody has seen it used.
fn make(dir: &Path, certify: impl FnOnce(&KeyPair) -> Result<String, Error>) -> Result<Stored, Error> {
    let path = dir.join(KEY);
    let kept = load_key(&path)?;
    let key = kept.map_or_else(|| make_key(&path), Ok)?;
    let pem = certify(&key)?;
    write(&dir.join(CERTIFICATE), 0o644, pem.as_bytes())?;
    tracing::info!(dir = %dir.display(), "made a new CA");
    Ok(Stored { pem, key })
}

fn make_key(path: &Path) -> Result<KeyPair, Error> {
    let key = KeyPair::generate()?;
    write(path, 0o600, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

/// Whole or not at all, also through a power cut.
fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {} // of a crash; it may have another mode
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    written().map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::super::Authority;
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_first_start_makes_a_key_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("data/ca");
        Authority::open(Some(&ca)).unwrap();
        assert_eq!(mode(&ca.join(KEY)), 0o600);
        assert_eq!(mode(&ca), 0o700);
        let mut names: Vec<_> = fs::read_dir(&ca).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [KEY, CERTIFICATE], "nothing is left over");
    }

    #[test]
    fn a_key_open_to_others_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(Some(dir.path())).unwrap();
        let key = dir.path().join(KEY);
        for loose in [0o640, 0o604, 0o660, 0o602] {
            fs::set_permissions(&key, fs::Permissions::from_mode(loose)).unwrap();
            let error = Authority::open(Some(dir.path())).unwrap_err();
            assert!(matches!(error, Error::LooseKey { mode, .. } if mode == loose), "{error}");
            assert!(error.to_string().contains(&format!("`chmod 600 {}`", key.display())), "{error}");
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        Authority::open(Some(dir.path())).unwrap();
    }

    #[test]
    fn a_second_start_loads_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(Some(dir.path())).unwrap();
        assert_eq!(Authority::open(Some(dir.path())).unwrap().pem(), first.pem());
    }

    #[test]
    fn processes_that_start_together_make_one_ca() {
        let dir = tempfile::tempdir().unwrap();
        let start = Barrier::new(8);
        let open = || {
            start.wait();
            Authority::open(Some(dir.path())).unwrap().fingerprint()
        };
        let mut made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        made.dedup();
        assert_eq!(made.len(), 1);
    }

    #[test]
    fn a_start_killed_between_the_two_files_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(Some(dir.path())).unwrap();
        let key = fs::read(dir.path().join(KEY)).unwrap();
        fs::remove_file(dir.path().join(CERTIFICATE)).unwrap();
        fs::write(dir.path().join("ca.pem.new"), "torn").unwrap();
        Authority::open(Some(dir.path())).unwrap();
        assert_eq!(fs::read(dir.path().join(KEY)).unwrap(), key);
    }

    #[test]
    fn a_pair_that_is_not_one_is_refused_and_left_alone() {
        let [dir, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let at = |name| dir.path().join(name);
        Authority::open(Some(dir.path())).unwrap();
        Authority::open(Some(other.path())).unwrap();
        let refused = |what: &str| {
            let error = Authority::open(Some(dir.path())).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        fs::copy(other.path().join(CERTIFICATE), at(CERTIFICATE)).unwrap();
        refused("another key than ca.key");
        fs::write(at(CERTIFICATE), fs::read(at(KEY)).unwrap()).unwrap();
        refused("holds a private key");
        fs::write(at(CERTIFICATE), "").unwrap();
        refused("does not hold a certificate");
        fs::write(at(KEY), "").unwrap();
        refused("does not hold a private key");
        fs::remove_file(at(KEY)).unwrap();
        refused("ca.key is missing");
        assert_eq!(fs::read_to_string(at(CERTIFICATE)).unwrap(), "");
    }
}
