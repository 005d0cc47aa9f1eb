//! The ruleset in use, and its replacement when the files change.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::mpsc, time};

use super::{LoadError, Ruleset, Summary, sources::Sources};
use crate::drain::Drain;

/// How long files must have been left alone before they are read: whoever writes several is waited for.
const QUIET: Duration = Duration::from_millis(50);
/// However busy the files are, they are read after this many waits.
const MOST_WAITS: usize = 40;
/// Some file systems tell nobody of changes (NFS, some bind mounts), so the files are compared this often.
const POLL: Duration = Duration::from_secs(30);

/// The rules in use. Cloning is cheap, and all clones see the same.
#[derive(Debug, Clone)]
pub struct Rules {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    paths: Vec<PathBuf>,
    current: ArcSwap<Ruleset>,
    last_error: ArcSwapOption<LoadError>,
    /// Of the files as they were first read.
    fingerprint: String,
}

/// What became of changed files.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// They are in use now.
    Loaded(Summary),
    /// They cannot be used; those before stay in use.
    Refused(Arc<LoadError>),
}

impl Rules {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`LoadError`]: there is no last good one to fall back on.
    pub fn load(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let files = Sources::read(paths).files;
        let fingerprint = files.fingerprint();
        Ok(Self::new(paths.to_vec(), Ruleset::from_files(files)?, fingerprint))
    }

    /// Rules that never change, such as those of a demonstration.
    #[must_use]
    pub fn fixed(ruleset: Ruleset) -> Self {
        Self::new(Vec::new(), ruleset, Sources::default().files.fingerprint())
    }

    fn new(paths: Vec<PathBuf>, ruleset: Ruleset, fingerprint: String) -> Self {
        let current = ArcSwap::from_pointee(ruleset);
        Self { shared: Arc::new(Shared { paths, current, last_error: ArcSwapOption::empty(), fingerprint }) }
    }

    /// The rules in use. Ask once a request: two calls may give two rulesets.
    #[must_use]
    pub fn current(&self) -> Arc<Ruleset> {
        self.shared.current.load_full()
    }

    /// Why the files are not what is in use, if so. `/readyz` tells it.
    #[must_use]
    pub fn last_error(&self) -> Option<Arc<LoadError>> {
        self.shared.last_error.load_full()
    }

    /// Follows the files until the stop begins. `on_outcome` hears of every change of content, also of one that is
    /// undone. Changes since [`Rules::load`] are not lost: the files are read once more before this returns.
    pub fn watch(&self, drain: &Drain, mut on_outcome: impl FnMut(Outcome) + Send + 'static) {
        let (tell, changes) = mpsc::channel(1);
        let mut reloader = Reloader {
            fingerprint: self.shared.fingerprint.clone(),
            shared: Arc::clone(&self.shared),
            directories: BTreeSet::new(),
            watcher: watcher(tell.clone()),
        };
        if let Some(outcome) = reloader.reload() {
            on_outcome(outcome);
        }
        drain.spawn(follow(reloader, tell, changes, drain.clone(), on_outcome));
    }
}

/// `_open` keeps the channel open where there is no watcher to hold its other end.
async fn follow(
    mut reloader: Reloader,
    _open: mpsc::Sender<()>,
    mut changes: mpsc::Receiver<()>,
    drain: Drain,
    mut on_outcome: impl FnMut(Outcome) + Send,
) {
    loop {
        tokio::select! {
            () = drain.begun() => return,
            _ = changes.recv() => settle(&mut changes).await,
            () = time::sleep(POLL) => {}
        }
        // On its own thread: file systems can hang.
        let reading = drain.spawn_blocking(move || {
            let outcome = reloader.reload();
            (reloader, outcome)
        });
        let Ok((returned, outcome)) = reading.await else {
            tracing::error!("reading the policy failed: the one in use stays, and is not followed any more");
            return;
        };
        reloader = returned;
        if let Some(outcome) = outcome {
            on_outcome(outcome);
        }
    }
}

/// Waits until nothing has changed for a while.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    for _ in 0..MOST_WAITS {
        if time::timeout(QUIET, changes.recv()).await.is_err() {
            return;
        }
    }
}

fn watcher(tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let heard = move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, is_change) {
            // A full channel already says it.
            let _ = tell.try_send(());
        }
    };
    notify::recommended_watcher(heard)
        .inspect_err(|error| {
            tracing::warn!(%error, "the policy cannot be watched; it is compared every 30 seconds instead");
        })
        .ok()
}

/// Our own reading opens and closes files too: that is no change.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => event.need_rescan(),
        _ => true,
    }
}

/// Reads the files again and again, remembering what they were.
#[derive(Debug)]
struct Reloader {
    shared: Arc<Shared>,
    fingerprint: String,
    directories: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
}

impl Reloader {
    /// Reads the files and, where they differ from the last reading, takes them or says why not.
    fn reload(&mut self) -> Option<Outcome> {
        let files = self.read_watched().files;
        let fingerprint = files.fingerprint();
        if self.fingerprint == fingerprint {
            return None;
        }
        self.fingerprint = fingerprint;
        Some(match Ruleset::from_files(files) {
            Ok(ruleset) => {
                let summary = ruleset.summary.clone();
                self.shared.current.store(Arc::new(ruleset));
                self.shared.last_error.store(None);
                Outcome::Loaded(summary)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.shared.last_error.store(Some(Arc::clone(&error)));
                Outcome::Refused(error)
            }
        })
    }

    /// Reads until every directory that is read has been watched since before: what changes after the reading
    /// is heard.
    fn read_watched(&mut self) -> Sources {
        // One that was removed and made anew has lost its watch.
        for directory in std::mem::take(&mut self.directories) {
            if self.watcher.as_mut().is_some_and(|watcher| watch(&directory, watcher)) {
                self.directories.insert(directory);
            }
        }
        let mut sources = Sources::read(&self.shared.paths);
        for _ in 0..MOST_WAITS {
            if !self.watch_only(&sources.directories) {
                break;
            }
            sources = Sources::read(&self.shared.paths);
        }
        sources
    }

    /// Whether a watch was added.
    fn watch_only(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        self.directories.retain(|directory| {
            let is_wanted = wanted.contains(directory);
            if !is_wanted {
                // A directory that was removed took its watch with it.
                let _ = watcher.unwatch(directory);
            }
            is_wanted
        });
        let mut is_added = false;
        for new in wanted {
            if !self.directories.contains(new) && watch(new, watcher) {
                self.directories.insert(new.clone());
                is_added = true;
            }
        }
        is_added
    }
}

fn watch(directory: &Path, watcher: &mut RecommendedWatcher) -> bool {
    watcher
        .watch(directory, RecursiveMode::NonRecursive)
        .inspect_err(|error| {
            tracing::debug!(%error, directory = %directory.display(), "not watched; compared every 30 seconds");
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind, RenameMode};

    use super::*;

    #[test]
    fn reading_the_files_is_no_change_of_them() {
        let of = |kind| is_change(&Event::new(kind));
        for kind in [AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read), AccessKind::Any]
        {
            assert!(!of(EventKind::Access(kind)), "{kind:?}");
        }
        assert!(of(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(of(EventKind::Create(CreateKind::Folder)));
        assert!(of(EventKind::Modify(ModifyKind::Name(RenameMode::To))));
        assert!(is_change(&Event::new(EventKind::Other).set_flag(Flag::Rescan)), "events were lost");
    }
}
