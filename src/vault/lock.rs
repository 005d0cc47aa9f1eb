//! One process owns a data directory; another one is told who does.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The lock's name in the data directory. It stays when the process ends: removing it would let two
/// processes each lock a file of that name.
const FILE: &str = "keybearer.lock";

/// [`owner`] holds the lock for the time of one read; an opener that meets it tries again.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// What an opener says about itself to those who come later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What runs, such as `keybearer proxy`. Never with arguments that could be a secret.
    pub command: String,
    /// Where it answers the admin API, if it does.
    pub admin_socket: Option<PathBuf>,
}

/// The process that has a data directory open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// What runs.
    pub command: String,
    /// Where it answers the admin API, if it does.
    pub admin_socket: Option<PathBuf>,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for Owner {
    /// `keybearer proxy (pid 4711, since 2026-11-21T03:00:00Z)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, since {:.0})", self.command, self.pid, self.since)
    }
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("{} is in use by {}: stop it, or let it do the work over its admin socket", dir.display(), named(owner.as_deref()))]
    Taken {
        /// The data directory.
        dir: PathBuf,
        /// Who has it; `None` in the instant before it has written its name.
        owner: Option<Box<Owner>>,
    },
    /// The lock file could not be made, locked or written.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn named(owner: Option<&Owner>) -> String {
    owner.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

/// Who has this data directory open, if anybody has. To be called off the async workers.
///
/// # Errors
/// Where the lock file is there and cannot be read.
pub fn owner(data_dir: &Path) -> io::Result<Option<Owner>> {
    let mut file = match File::open(data_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(read(&mut file)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The directory is ours as long as this lives. The system gives it up when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Makes the directory (mode 0700) where there is none, and takes it.
    pub(super) fn acquire(dir: &Path, claim: &Claim) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let failed = |source| Error::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        for attempt in 1..=ATTEMPTS {
            match file.try_lock() {
                Ok(()) => {
                    write(&mut file, claim).map_err(failed)?;
                    return Ok(Self { file });
                }
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(Error::Taken { dir: dir.to_owned(), owner: read(&mut file).map(Box::new) })
    }
}

impl Drop for Lock {
    /// An empty file tells the next opener that nobody was killed here.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

fn write(file: &mut File, claim: &Claim) -> io::Result<()> {
    let owner = Owner {
        pid: std::process::id(),
        command: claim.command.clone(),
        admin_socket: claim.admin_socket.clone(),
        since: Timestamp::now(),
    };
    let mut text = serde_json::to_vec(&owner)?;
    text.push(b'\n');
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)
}

fn read(file: &mut File) -> Option<Owner> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(64 * 1024).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim { command: "keybearer proxy".to_owned(), admin_socket: Some("/run/admin.sock".into()) }
    }

    #[test]
    fn a_second_opener_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::acquire(dir.path(), &claim()).unwrap();
        let refused = Lock::acquire(dir.path(), &claim()).unwrap_err().to_string();
        let known = owner(dir.path()).unwrap().unwrap();
        assert_eq!(
            (known.pid, known.admin_socket.as_deref()),
            (std::process::id(), Some(Path::new("/run/admin.sock")))
        );
        assert!(
            refused.contains(&format!("in use by keybearer proxy (pid {}, since 20", std::process::id())),
            "{refused}"
        );

        drop(held);
        assert_eq!(owner(dir.path()).unwrap(), None);
        assert!(Lock::acquire(dir.path(), &claim()).is_ok());
    }

    #[test]
    fn what_a_killed_owner_left_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let left = r#"{"pid":1,"command":"x","admin_socket":null,"since":"2026-01-01T00:00:00Z"}"#;
        fs::write(dir.path().join(FILE), left).unwrap();
        assert_eq!(owner(dir.path()).unwrap(), None);
        let _held = Lock::acquire(dir.path(), &claim()).unwrap();
        assert_eq!(owner(dir.path()).unwrap().unwrap().pid, std::process::id());
    }

    #[test]
    fn a_directory_that_is_not_there_has_no_owner() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(&dir.path().join("none")).unwrap(), None);
    }
}
