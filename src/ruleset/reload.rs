//! Following the files of a policy: noticed when they change, read when they are left alone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::mpsc, time};

use super::{
    Outcome,
    origin::Origin,
    rules::Shared,
    sources::{Made, Sources},
};
use crate::drain::Drain;

/// How long files must have been left alone before they are read: whoever writes several is waited for.
const QUIET: Duration = Duration::from_millis(50);
/// However busy the files are, they are read after this many waits.
const MOST_WAITS: usize = 40;
/// Some file systems tell nobody of changes (NFS, some bind mounts), so the files are compared this often.
const POLL: Duration = Duration::from_secs(30);

/// What was read before.
#[derive(Debug)]
pub(super) struct Last {
    /// Of the last reading.
    pub(super) fingerprint: String,
    /// Of the bundles in use.
    pub(super) made: Made,
}

/// Follows the files until the stop begins; they are read once more before this returns.
pub(super) fn watch(
    shared: &Arc<Shared>,
    origins: Vec<Origin>,
    last: Last,
    drain: &Drain,
    mut on_outcome: impl FnMut(Outcome) + Send + 'static,
) {
    let (tell, changes) = mpsc::channel(1);
    let mut reloader = Reloader {
        shared: Arc::clone(shared),
        origins,
        last,
        directories: BTreeSet::new(),
        watcher: watcher(tell.clone()),
    };
    if let Some(outcome) = reloader.reload() {
        on_outcome(outcome);
    }
    drain.spawn(follow(reloader, tell, changes, drain.clone(), on_outcome));
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
    origins: Vec<Origin>,
    last: Last,
    directories: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
}

impl Reloader {
    /// Reads the files and, where they differ from the last reading, takes them or says why not.
    fn reload(&mut self) -> Option<Outcome> {
        let Sources { files, made, .. } = self.read_watched();
        let fingerprint = files.fingerprint();
        if self.last.fingerprint == fingerprint {
            return None;
        }
        self.last.fingerprint = fingerprint;
        let outcome = self.shared.take(files);
        if matches!(outcome, Outcome::Loaded(_)) {
            self.last.made = made;
        }
        Some(outcome)
    }

    /// Reads until every directory that is read has been watched since before: what changes after the reading
    /// is heard.
    fn read_watched(&mut self) -> Sources {
        // One that was removed and made anew has lost its watch.
        for directory in std::mem::take(&mut self.directories) {
            if self.watcher.as_mut().is_some_and(|watcher| listen(&directory, watcher)) {
                self.directories.insert(directory);
            }
        }
        let mut sources = Sources::following(&self.last.made, &self.origins);
        for _ in 0..MOST_WAITS {
            if !self.watch_only(&sources.directories) {
                break;
            }
            sources = Sources::following(&self.last.made, &self.origins);
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
            if !self.directories.contains(new) && listen(new, watcher) {
                self.directories.insert(new.clone());
                is_added = true;
            }
        }
        is_added
    }
}

fn listen(directory: &Path, watcher: &mut RecommendedWatcher) -> bool {
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
