//! When the broker was heard from: what it gave is used no longer than that allows.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::Remote;
use crate::{credential::Resolver, vault::Change};

/// When the broker was heard from last, and whether it would be now.
pub(super) struct Heard {
    last: watch::Sender<Option<Instant>>,
    following: AtomicBool,
}

impl Default for Heard {
    fn default() -> Self {
        Self { last: watch::Sender::new(None), following: AtomicBool::default() }
    }
}

impl Heard {
    /// It was, just now.
    pub(super) fn now(&self) {
        self.last.send_replace(Some(Instant::now()));
        self.following.store(true, Ordering::SeqCst);
    }

    /// It is not until [`Heard::now`].
    pub(super) fn lost(&self) {
        self.following.store(false, Ordering::SeqCst);
    }

    /// Whether changes are told at present.
    pub(super) fn is_following(&self) -> bool {
        self.following.load(Ordering::SeqCst)
    }

    /// Whether it was heard from not longer ago than this.
    pub(super) fn is_within(&self, limit: Duration) -> bool {
        self.last.borrow().is_some_and(|last| last.elapsed() < limit)
    }
}

/// Forgets everything as often as the broker has not been heard from for too long. Streams go on: it tells of their
/// accounts when it is back.
pub(super) async fn doubt(remote: &Remote, resolver: &Resolver) {
    let mut heard = remote.0.heard.last.subscribe();
    loop {
        let last = *heard.borrow_and_update();
        if let Some(last) = last {
            sleep_until(last + remote.0.offline_use).await;
            if *heard.borrow() == Some(last) {
                drop(resolver.forget(&Change::Unknown));
                tracing::error!(
                    broker = remote.url(),
                    limit = ?remote.0.offline_use,
                    "the broker has not been heard from for too long: accounts are not used any more"
                );
            } else {
                continue;
            }
        }
        if heard.changed().await.is_err() {
            return;
        }
    }
}
