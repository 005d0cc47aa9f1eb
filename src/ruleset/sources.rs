//! The files of a policy: found, read, and which directories to watch for the next version of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    error::Finding,
    files::{File, Files},
};

/// A policy file is written by people: 4 MiB are far more than they write.
const MAX_FILE: u64 = 4 << 20;

/// What was found below the configured paths.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// In the order of the paths, then by name.
    pub(super) files: Files,
    /// Where a change of any of it shows: canonical, because a symlink may be swapped below an open watch.
    pub(super) directories: BTreeSet<PathBuf>,
    seen: BTreeSet<PathBuf>,
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
            Ok(text) => self.files.files.push(File { name: path.display().to_string(), text }),
            Err(error) => self.unreadable(path, &error),
        }
    }

    fn watch(&mut self, directory: &Path) {
        self.directories.extend(directory.canonicalize());
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        self.files.findings.push(Finding::of_file(path, format!("cannot be read: {error}")));
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
