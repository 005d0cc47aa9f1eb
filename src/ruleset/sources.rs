//! The files of a policy: found, read, and which directories to watch for the next version of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    bundle,
    files::{File, Files},
    origin::Origin,
};
use crate::{document::Finding, regular};

/// A policy file is written by people: 4 MiB are far more than they write.
const MAX_FILE: u64 = 4 << 20;

/// What was found below the configured paths.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// In the order of the paths, then by name.
    pub(super) files: Files,
    /// Where a change of any of it shows: canonical, because a symlink may be swapped below an open watch.
    pub(super) directories: BTreeSet<PathBuf>,
    /// When each bundle was made.
    pub(super) made: Made,
    seen: BTreeSet<PathBuf>,
}

/// Bundles, and when each was made.
pub(super) type Made = BTreeMap<PathBuf, Timestamp>;

impl Sources {
    /// Reads files, folders at any depth, and bundles. In folders, `*.yaml` and `*.yml` count; names that begin with a
    /// dot do not, whereby the copies that Kubernetes (`..data`) and editors keep are not read twice.
    pub(super) fn read(origins: &[Origin]) -> Self {
        Self::following(&Made::new(), origins)
    }

    /// Reads them again. Of a bundle that is in use, none is taken that was made before: whoever brings bundles may not
    /// sign them, and could bring an old one that allows more.
    pub(super) fn following(in_use: &Made, origins: &[Origin]) -> Self {
        let mut sources = Self::default();
        for origin in origins {
            for path in origin.paths() {
                sources.watch(folder_of(path));
            }
            match origin {
                Origin::Path(path) => sources.visit(path, true),
                Origin::Bundle { bundle, keys } => sources.open_bundle(bundle, keys, in_use.get(bundle)),
            }
        }
        sources
    }

    fn open_bundle(&mut self, path: &Path, keys: &Path, in_use: Option<&Timestamp>) {
        for linked in [path, keys].into_iter().flat_map(Path::canonicalize) {
            self.watch(folder_of(&linked));
        }
        match bundle::open(path, keys) {
            Err(finding) => self.files.findings.push(finding),
            Ok(opened) => match in_use {
                Some(in_use) if opened.made < *in_use => {
                    let says = format!(
                        "was made at {}, before the one in use (made at {in_use}), which stays: make it anew from the files that you want",
                        opened.made
                    );
                    self.files.findings.push(Finding::of_file(path, says));
                }
                _ => {
                    self.made.insert(path.to_owned(), opened.made);
                    self.files.all.extend(opened.files);
                }
            },
        }
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
        match regular::read_text(path, MAX_FILE) {
            Ok(text) if bundle::is_bundle(&text) => {
                let says = "is a signed bundle: name it with the keys that may sign it, in `policies:` as {bundle: FILE, keys: FILE}, for `policy check` as --bundle FILE --keys FILE";
                self.files.findings.push(Finding::of_file(path, says.to_owned()));
            }
            Ok(text) => self.files.all.push(File { name: path.display().to_string(), text }),
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
