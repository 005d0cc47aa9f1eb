//! What happened: one JSON object a line, each holding on to the one before.
//!
//! # The way of an event
//!
//! A request [reserves](Audit::reserve) room before it is sent (law 8: recorded or refused), its record
//! [emits](Slot::emit) one event from `Drop`, and one thread chains, writes and synchronises what waits. Room
//! is bounded and given back only when its event stands in the file, so that nothing is ever dropped: where
//! the disk is slow, requests wait; where it cannot be written, they are refused until it can again.
//!
//! # Durability
//!
//! `batch` writes within 1 ms and synchronises every second: a kill of the process loses what was queued, a
//! power cut up to a second. `sync` writes down the intent of every action and synchronises it before the
//! action is sent; an action whose event a crash swallowed becomes an event with `error: interrupted` at the
//! next start. [`Audit::record`] is on the disk when it returns, with either.
//!
//! # The format
//!
//! A line is the event as canonical JSON (RFC 8785: members sorted, no spaces, shortest numbers), to which
//! `hash` was added as the last member:
//!
//! ```text
//! {"decision":"allow", ... ,"prev":"<64 hex>", ... ,"seq":7, ... ,"hash":"<64 hex>"}
//! hash = hex(SHA-256(prev || canonical))
//! ```
//!
//! `prev` is the 64 digits as they stand in the line, in ASCII, and `canonical` is the line without
//! `,"hash":"…"`, from brace to brace, without the newline. Nothing has to be serialised again to check it:
//!
//! ```sh
//! body=$(sed -n 7p audit.jsonl | sed -E 's/,"hash":"[0-9a-f]{64}"}$/}/')
//! printf %s "$(jq -r .prev <<<"$body")$body" | sha256sum   # = the line's hash
//! ```
//!
//! `seq` counts from 1 and goes on across files, as does the chain; the first line's `prev` is 64 zeros. The
//! first line of each file is an anchor (`kind: system`, `event: audit.anchor`), an ordinary link: its `prev`
//! is the hash of the last line of the file before, whose `seq` is one less. A full `audit.jsonl` is renamed
//! to `audit.<seq of its anchor, 12 digits>.jsonl`. A whole verifier:
//!
#![doc = concat!("```python\n", include_str!("verify.py"), "```")]
//!
//! # What it can show, and what not
//!
//! Verification names every line that was removed, changed, moved, repeated or replaced, also in an excerpt.
//! A log cut off at its end, or rewritten up to its end, fits itself: that shows only against `audit.head`
//! (the `seq` and hash up to which the log was synchronised). Whoever can rewrite all files *and* the head
//! can forge the log; keep a copy of the head's hash where they cannot write.

mod chain;
mod config;
mod event;
mod files;
mod journal;
mod line;
mod log;
mod place;
mod query;
mod queue;
mod recover;
mod report;
mod reserve;
mod tail;
mod tape;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::{path::PathBuf, sync::Arc, time::Duration};

use prometheus::{IntCounter, IntGauge, Registry};

pub use self::{
    chain::{Hash, Link},
    config::{Config, Durability},
    event::{Decision, Event, Kind, RequestPath, Took},
    query::{Filter, Found, Recorded, query},
    report::{Fault, Report, What},
    reserve::{Audit, Slot},
    tail::Tail,
    verify::{Extent, is_there, verify, verify_log},
};

/// Why something could not be recorded or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("{0}")]
    Setting(&'static str),
    /// The file, or one beside it, cannot be opened.
    #[error("cannot open the audit log {}: {source}; check that its directory can be written", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process writes the file.
    #[error("the audit log {} is written by {by}; stop it, or set another audit.file", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// `process 4711`, as far as is known.
        by: String,
    },
    /// The file has lines, and none is an audit event.
    #[error("{} is no audit log; move it elsewhere, or set another audit.file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The disk is full, or failing. What was handed over before is kept and tried again; from
    /// [`Audit::record`] or [`Slot::begin`] it means that the event is not known to be on the disk, yet it may
    /// still get there.
    #[error("the audit log cannot be written: {0}")]
    Unwritable(Arc<str>),
    /// The writer did not keep up for so long.
    #[error("the audit log had no room for {0:?}: its disk is too slow for so many requests")]
    Overloaded(Duration),
    /// An intent without the id by which its event is found.
    #[error("an action can only begin with its id")]
    NoId,
}

/// What is measured. Cloning shares the measures.
#[derive(Debug, Clone)]
pub struct Metrics {
    events: IntCounter,
    lag: IntGauge,
}

impl Metrics {
    /// Registers `keybearer_audit_events_total` (recorded events) and `keybearer_audit_lag` (events that wait
    /// to be written).
    ///
    /// # Errors
    /// When the registry has these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let events = IntCounter::new("keybearer_audit_events_total", "Audit events recorded.")?;
        let lag = IntGauge::new("keybearer_audit_lag", "Audit events that wait to be written.")?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self { events, lag })
    }
}
