//! What a test has the token endpoint do, POST by POST, and how it holds an answer back without a clock.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use http::StatusCode;
use tokio::sync::Semaphore;

use super::refusal::Why;

/// What happens to one POST.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(super) before: Option<Gate>,
    pub(super) processed: Processed,
    pub(super) after: Option<Gate>,
    pub(super) says: Says,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Processed {
    #[default]
    Yes,
    No,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Says {
    /// What the ledger decided.
    #[default]
    Usual,
    /// Nothing: the connection is cut.
    Cut,
    /// The head and half of the body, then the connection is cut.
    CutHalf,
    /// The usual answer with an end that no parser takes.
    Garbled,
    /// The usual answer, padded to more than so many bytes.
    Padded(usize),
    /// A refusal in the provider's words.
    Refusal(Why),
    /// A bare status, with `Retry-After` or `Location`.
    Status(StatusCode, Option<(&'static str, String)>),
}

impl Step {
    /// As if nothing had been scripted.
    pub(crate) fn usual() -> Self {
        Self::default()
    }

    /// Processed, and the connection is cut before the answer.
    pub(crate) fn lost() -> Self {
        Self { says: Says::Cut, ..Self::default() }
    }

    /// Processed, and the connection is cut in the middle of the answer.
    pub(crate) fn lost_halfway() -> Self {
        Self { says: Says::CutHalf, ..Self::default() }
    }

    /// The connection is cut, and nothing was processed; the client cannot know that.
    pub(crate) fn cut() -> Self {
        Self::unprocessed(Says::Cut)
    }

    /// Processed, but a gateway in between answers 504.
    pub(crate) fn gateway_timeout() -> Self {
        Self { says: Says::Status(StatusCode::GATEWAY_TIMEOUT, None), ..Self::default() }
    }

    /// Processed, and the answer does not parse.
    pub(crate) fn garbled() -> Self {
        Self { says: Says::Garbled, ..Self::default() }
    }

    /// Processed, and the answer has more than so many bytes.
    pub(crate) fn padded(bytes: usize) -> Self {
        Self { says: Says::Padded(bytes), ..Self::default() }
    }

    /// Not processed: 429, with `Retry-After` as written.
    pub(crate) fn too_many(retry_after: &str) -> Self {
        let header = Some(("retry-after", retry_after.to_owned()));
        Self::unprocessed(Says::Status(StatusCode::TOO_MANY_REQUESTS, header))
    }

    /// Not processed: a bare status, such as 503.
    pub(crate) fn status(status: u16) -> Self {
        Self::unprocessed(Says::Status(StatusCode::from_u16(status).unwrap(), None))
    }

    /// Not processed: 307, which repeats a POST where it is followed.
    pub(crate) fn redirect(location: &str) -> Self {
        let header = Some(("location", location.to_owned()));
        Self::unprocessed(Says::Status(StatusCode::TEMPORARY_REDIRECT, header))
    }

    /// Not processed: refused in the provider's own words.
    pub(crate) fn refused(why: Why) -> Self {
        Self::unprocessed(Says::Refusal(why))
    }

    /// Waits at the gate before anything is processed.
    pub(crate) fn held_before(mut self, gate: &Gate) -> Self {
        self.before = Some(gate.clone());
        self
    }

    /// Waits at the gate when all is processed and only the answer is missing.
    pub(crate) fn held_after(mut self, gate: &Gate) -> Self {
        self.after = Some(gate.clone());
        self
    }

    fn unprocessed(says: Says) -> Self {
        Self { processed: Processed::No, says, ..Self::default() }
    }
}

/// Where a POST waits until the test lets it go on. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Sides>);

#[derive(Debug)]
struct Sides {
    arrived: Semaphore,
    passes: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Sides { arrived: Semaphore::new(0), passes: Semaphore::new(0) }))
    }
}

impl Gate {
    /// Waits until one more POST stands here.
    pub(crate) async fn arrived(&self) {
        self.0.arrived.acquire().await.unwrap().forget();
    }

    /// Lets one POST through, one that comes later if none waits.
    pub(crate) fn open(&self) {
        self.0.passes.add_permits(1);
    }

    pub(super) async fn pass(&self) {
        self.0.arrived.add_permits(1);
        self.0.passes.acquire().await.unwrap().forget();
    }
}

/// The steps to come.
#[derive(Default)]
pub(super) struct Script {
    next: Mutex<VecDeque<Step>>,
    otherwise: Mutex<Step>,
}

impl Script {
    pub(super) fn add(&self, steps: impl IntoIterator<Item = Step>) {
        self.next.lock().unwrap().extend(steps);
    }

    pub(super) fn otherwise(&self, step: Step) {
        *self.otherwise.lock().unwrap() = step;
    }

    pub(super) fn take(&self) -> Step {
        let next = self.next.lock().unwrap().pop_front();
        next.unwrap_or_else(|| self.otherwise.lock().unwrap().clone())
    }

    pub(super) fn is_done(&self) -> bool {
        self.next.lock().unwrap().is_empty()
    }
}
