//! Between the requests and the writer: a bounded queue that never drops and never makes `Drop` wait.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, oneshot, watch};

use super::{Metrics, event::Event};
use crate::id::ActionId;

/// How long the writer waits for company once something waits for it.
const GATHER: Duration = Duration::from_millis(1);
/// With so many waiting, it does not.
const ENOUGH: usize = 1024;

/// Told when what was asked for has reached the disk; dropped when it never will.
pub(super) type Ack = oneshot::Sender<()>;

/// What the writer is asked to do.
pub(super) enum Entry {
    /// Record an event that owns room; with the intent that it ends, where there was one.
    Event(Box<Event>, Option<ActionId>),
    /// Record an event that owns room, and tell when it is on the disk.
    Awaited(Box<Event>, Ack),
    /// Write down that an action is about to be sent.
    Intent(ActionId, Box<Event>, Ack),
    /// The action of an intent, which owns room, ended without an event.
    Abandoned(ActionId),
    /// Tell when everything before is on the disk.
    Flush(Ack),
}

impl Entry {
    /// Whether somebody waits for it.
    const fn is_urgent(&self) -> bool {
        matches!(self, Self::Awaited(..) | Self::Intent(..) | Self::Flush(_))
    }
}

/// What producers and the writer share.
pub(super) struct Shared {
    /// Room for events; taken by slots, given back by the writer.
    pub(super) room: Semaphore,
    /// Why the file cannot be written, while it cannot.
    trouble: watch::Sender<Option<Arc<str>>>,
    pub(super) metrics: Metrics,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    urgent: bool,
    closed: bool,
}

impl Queue {
    const fn is_worth_waking(&self) -> bool {
        self.urgent || self.closed || self.entries.len() >= ENOUGH
    }
}

impl Shared {
    pub(super) fn new(room: usize, metrics: Metrics) -> Self {
        Self {
            room: Semaphore::new(room),
            trouble: watch::Sender::new(None),
            metrics,
            queue: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Hands an entry over. It has room already, or is bounded by those that have.
    pub(super) fn push(&self, entry: Entry) {
        let mut queue = self.lock();
        let was_empty = queue.entries.is_empty();
        queue.urgent |= entry.is_urgent();
        queue.entries.push(entry);
        let wake = was_empty || queue.urgent || queue.entries.len() == ENOUGH;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Waits for entries, at most `limit`, and swaps them into `batch`, which is empty. Returns false when
    /// none will come any more.
    pub(super) fn take(&self, batch: &mut Vec<Entry>, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut queue = self.lock();
        while queue.entries.is_empty() && !queue.closed {
            queue = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return true,
                Some(left) => self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        if !queue.entries.is_empty() && !queue.is_worth_waking() {
            let gathered = self.wake.wait_timeout_while(queue, GATHER, |queue| !queue.is_worth_waking());
            queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut queue.entries, batch);
        queue.urgent = false;
        !(queue.closed && batch.is_empty())
    }

    /// No more entries will come: everyone who could send one is gone.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Sleeps, unless nobody needs the writer any more. Returns whether somebody does.
    pub(super) fn sleep(&self, limit: Duration) -> bool {
        let slept = self.wake.wait_timeout_while(self.lock(), limit, |queue| !queue.closed);
        !slept.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Says why the file cannot be written, or that it can.
    pub(super) fn report(&self, trouble: Option<Arc<str>>) {
        self.trouble.send_if_modified(|now| {
            let differs = *now != trouble;
            *now = trouble;
            differs
        });
    }

    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.borrow().clone()
    }

    /// Completes when the file cannot be written.
    pub(super) async fn in_trouble(&self) -> Arc<str> {
        let mut trouble = self.trouble.subscribe();
        let reason = trouble.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| Arc::from("the audit writer has stopped"))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere does not leave a Vec of entries half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
