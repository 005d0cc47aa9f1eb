//! What every watch is told, in the order in which it became known here.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
    },
    time::sleep,
};

use super::Broker;
use crate::{id::AccountKey, vault::Change};

/// How much a watch may be behind before it is told that it missed something.
const KEPT: usize = 1024;
/// How often it is looked whether the store is heard again.
const LOOK: Duration = Duration::from_millis(50);

/// Something to tell.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// Accounts have changed.
    Change(Change),
    /// The rules have. Whom that concerns is looked at for each workload.
    Rules,
}

pub(super) struct News {
    tell: broadcast::Sender<Told>,
    /// Something may have changed unheard, and the watches were not told yet.
    doubt: AtomicBool,
    doubted: Notify,
}

impl Default for News {
    fn default() -> Self {
        Self { tell: broadcast::Sender::new(KEPT), doubt: AtomicBool::default(), doubted: Notify::default() }
    }
}

impl News {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.tell.subscribe()
    }

    fn tell(&self, told: Told) {
        let _ = self.tell.send(told); // an error says that nobody watches
    }
}

impl Broker {
    /// Tells sidecars of a change. What was made here for the accounts must have been dropped before.
    ///
    /// While the store is not heard, sidecars go on with what they have, for as long as they are allowed to: that
    /// anything may have changed, they are told when it is heard again.
    pub fn changed(&self, change: &Change) {
        let news = &self.0.news;
        if *change == Change::Unknown && !self.parts().vault.is_heard() {
            news.doubt.store(true, Ordering::SeqCst);
            news.doubted.notify_one();
        } else {
            news.tell(Told::Change(change.clone()));
        }
    }

    /// Tells sidecars that other rules are in use now, as far as they concern them.
    pub fn rules_changed(&self) {
        self.0.news.tell(Told::Rules);
    }

    /// Whether a watch that is told of nothing may be sure that nothing has changed.
    pub(super) fn is_sure(&self) -> bool {
        !self.0.news.doubt.load(Ordering::SeqCst) && self.parts().vault.is_heard()
    }

    /// Tells of tokens that are minted anew, and ends doubts, until the drain begins.
    pub(super) async fn follow(self, mut replaced: broadcast::Receiver<AccountKey>) {
        let news = &self.0.news;
        loop {
            tokio::select! {
                told = replaced.recv() => match told {
                    Ok(key) => self.changed(&Change::Account(key)),
                    Err(RecvError::Lagged(_)) => self.changed(&Change::Unknown),
                    Err(RecvError::Closed) => return,
                },
                () = self.heard_again() => {
                    news.doubt.store(false, Ordering::SeqCst);
                    news.tell(Told::Change(Change::Unknown));
                }
                () = self.parts().drain.begun() => return,
            }
        }
    }

    /// Waits for a doubt, and then for the store.
    async fn heard_again(&self) {
        while !self.0.news.doubt.load(Ordering::SeqCst) {
            self.0.news.doubted.notified().await;
        }
        while !self.parts().vault.is_heard() {
            sleep(LOOK).await;
        }
    }
}
