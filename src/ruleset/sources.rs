//! The files of a policy: found, read, and which directories to watch for the next version of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::error::Finding;

/// A policy file is written by people: 4 MiB are far more than they write.
const MAX_FILE: u64 = 4 << 20;

/// What was found below the configured paths.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// In the order of the paths, then by name.
    pub(super) files: Vec<Source>,
    /// What could not be read.
    pub(super) findings: Vec<Finding>,
    /// Where a change of any of it shows: canonical, because a symlink may be swapped below an open watch.
    pub(super) directories: BTreeSet<PathBuf>,
    seen: BTreeSet<PathBuf>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Sources {
    /// Reads files, and folders at any depth. In folders, `*.yaml` and `*.yml` count; names that begin with a
    /// dot do not, whereby the copies that Kubernetes (`..data`) and editors keep are not read twice.
    pub(super) fn read(paths: &[PathBuf]) -> Self {
        let mut sources = Self::default();
        for path in paths {
            sources.watch(folder_of(path));
            sources.visit(path, true);
        }
        sources
    }

    fn visit(&mut self, path: &Path, is_named: bool) {
        let canonical = match path.canonicalize() {
            Ok(canonical) => canonical,
            Err(error) => return self.unreadable(path, &error),
        };
        let is_folder = canonical.is_dir();
        if !(is_folder || is_named || is_yaml(path)) || !self.seen.insert(canonical.clone()) {
            return;
        }
        if is_folder {
            self.visit_folder(path);
        } else {
            self.watch(folder_of(&canonical));
            self.read_file(path);
        }
    }

    fn visit_folder(&mut self, path: &Path) {
        self.watch(path);
        let entries = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<BTreeSet<_>, _>>()
        });
        match entries {
            Ok(names) => {
                for name in names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")) {
                    self.visit(&path.join(name), false);
                }
            }
            Err(error) => self.unreadable(path, &error),
        }
    }

    fn read_file(&mut self, path: &Path) {
        let text = fs::metadata(path).and_then(|metadata| {
            if metadata.len() > MAX_FILE {
                return Err(std::io::Error::other("larger than 4 MiB"));
            }
            fs::read_to_string(path)
        });
        match text {
            Ok(text) => self.files.push(Source { path: path.to_owned(), text }),
            Err(error) => self.unreadable(path, &error),
        }
    }

    fn watch(&mut self, directory: &Path) {
        self.directories.extend(directory.canonicalize());
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        self.findings.push(Finding::of_file(path, format!("cannot be read: {error}")));
    }

    /// Names the content: the first 12 hexadecimal digits of a SHA-256 over every file, in order.
    pub(super) fn revision(&self) -> String {
        let mut hash = Sha256::new();
        for source in &self.files {
            hash.update((source.text.len() as u64).to_be_bytes());
            hash.update(&source.text);
        }
        hash.finalize().iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Tells whether anything changed since another reading, also which files could not be read.
    pub(super) fn fingerprint(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|source| &source.path).collect();
        format!("{} {names:?} {:?}", self.revision(), self.findings)
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
