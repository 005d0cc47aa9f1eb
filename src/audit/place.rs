//! Where the file that is written belongs, and whether it is there.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// The place of the current file. The writer says which file that is, and requests see for themselves whether it is there:
/// nobody else would notice that a program moved it away while nothing was written.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: Mutex<Identity>,
    since: Instant,
    /// The millisecond after `since` in which the file was seen there last.
    seen: AtomicU64,
}

/// Device and inode.
type Identity = (u64, u64);

impl Place {
    pub(super) fn of(path: &Path, file: &File) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(identity(&file.metadata()?)),
            since: Instant::now(),
            seen: AtomicU64::new(u64::MAX),
        })
    }

    /// This file is written from now on.
    pub(super) fn turn_to(&self, file: &File) -> io::Result<()> {
        let identity = identity(&file.metadata()?);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// Whether the file is there.
    pub(super) fn holds_the_file(&self) -> io::Result<bool> {
        let ours = *self.file.lock().unwrap_or_else(PoisonError::into_inner);
        leads_to(&self.path, ours)
    }

    /// Whether the file was there within this millisecond, which takes a look at most as often: a microsecond of a request.
    pub(super) fn held_the_file_just_now(&self) -> bool {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        if self.seen.load(Ordering::Relaxed) == now {
            return true;
        }
        let there = self.holds_the_file().unwrap_or(false);
        if there {
            self.seen.store(now, Ordering::Relaxed);
        }
        there
    }
}

/// Whether `path` still leads to `file`.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    leads_to(path, identity(&file.metadata()?))
}

fn leads_to(path: &Path, file: Identity) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => Ok(identity(&there) == file),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
