//! The files of one log, by name: the current one, the rotated ones, and what stands beside them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::chain::{Hash, Link};

/// The names that belong to `audit.jsonl`: `audit.000000000001.jsonl` (rotated, by its first line's `seq`),
/// `audit.head`, `audit.intents`, `audit.lock` and `audit.jsonl.torn`.
#[derive(Debug, Clone)]
pub(super) struct Files {
    current: PathBuf,
    stem: String,
    extension: String,
}

impl Files {
    pub(super) fn of(current: &Path) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        Self {
            stem: text(current.file_stem()),
            extension: text(current.extension()),
            current: current.to_owned(),
        }
    }

    pub(super) fn current(&self) -> &Path {
        &self.current
    }

    pub(super) fn folder(&self) -> &Path {
        self.current
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."))
    }

    pub(super) fn rotated(&self, first_seq: u64) -> PathBuf {
        self.beside(&format!(".{first_seq:012}{}", self.dot_extension()))
    }

    pub(super) fn head(&self) -> PathBuf {
        self.beside(".head")
    }

    pub(super) fn intents(&self) -> PathBuf {
        self.beside(".intents")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.beside(".lock")
    }

    pub(super) fn torn(&self) -> PathBuf {
        self.beside(&format!("{}.torn", self.dot_extension()))
    }

    /// The rotated files with their first `seq`, oldest first.
    pub(super) fn list_rotated(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder())? {
            let entry = entry?;
            if let Some(first) = self.first_seq_in(&entry.file_name().to_string_lossy()) {
                found.push((first, self.folder().join(entry.file_name())));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Every file of the log, oldest first, the current one last.
    pub(super) fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths: Vec<_> = self.list_rotated()?.into_iter().map(|(_, path)| path).collect();
        if self.current.try_exists()? {
            paths.push(self.current.clone());
        }
        Ok(paths)
    }

    fn first_seq_in(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.stem)?.strip_prefix('.')?.strip_suffix(&self.dot_extension())?;
        (digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
        digits.parse().ok()
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.current.with_file_name(format!("{}{ending}", self.stem))
    }

    fn dot_extension(&self) -> String {
        if self.extension.is_empty() { String::new() } else { format!(".{}", self.extension) }
    }
}

/// Opens for reading and writing, made if need be; only its owner may read it.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a rename or a new name survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// `audit.head`: how far the log had reached the disk, so that a shortened log shows.
#[derive(Debug)]
pub(super) struct Head(File);

#[derive(Serialize, Deserialize)]
struct HeadText {
    hash: String,
    seq: u64,
}

impl Head {
    /// Always as many bytes, overwritten in place: one write within one sector.
    const SIZE: usize = 128;

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        open_private(path).map(Self)
    }

    pub(super) fn write(&self, link: Link) -> io::Result<()> {
        let text = HeadText { hash: link.hash.as_str().to_owned(), seq: link.seq };
        let mut bytes = serde_json::to_vec(&text)?;
        bytes.resize(Self::SIZE - 1, b' ');
        bytes.push(b'\n');
        self.0.write_all_at(&bytes, 0)
    }

    /// `None` where there is none yet.
    pub(super) fn read(path: &Path) -> io::Result<Option<Link>> {
        let bytes = match fs::read(path) {
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let text: HeadText = serde_json::from_slice(&bytes)?;
        let hash = Hash::parse(text.hash.as_bytes()).ok_or(ErrorKind::InvalidData)?;
        Ok(Some(Link { seq: text.seq, hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_told_from_everything_else_and_sorted_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(&folder.path().join("audit.jsonl"));
        let (old, new) = (files.rotated(9), files.rotated(1_000_000_000_000_000));
        let others = [files.torn(), files.head(), files.lock(), folder.path().join("audit.12.jsonl")];
        for path in [&new, &old].into_iter().chain(&others) {
            fs::write(path, "").unwrap();
        }
        assert_eq!(files.list().unwrap(), [old, new]);
    }

    #[test]
    fn a_shorter_head_leaves_nothing_of_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.head");
        assert_eq!(Head::read(&path).unwrap(), None);
        let head = Head::open(&path).unwrap();
        for seq in [u64::MAX, 7] {
            let link = Link { seq, hash: Hash::ZERO };
            head.write(link).unwrap();
            assert_eq!(Head::read(&path).unwrap(), Some(link));
        }
    }
}
