//! Following what changes at the broker, on a connection that everybody shares.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};

use super::{Error, Remote, link::Link};
use crate::{
    credential::{Resolver, wire::Line},
    vault::Change,
};

/// A broker says something every second while it would hear of a change. One that is silent for so long does not.
const SILENCE: Duration = Duration::from_secs(5);
/// No line is longer, in bytes.
const LONGEST: usize = 16 * 1024;
/// Between attempts to connect, at first and at most; by chance somewhat less, so that a fleet does not come at once.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Connects and follows, over and over.
pub(super) async fn follow(remote: &Remote, resolver: &Resolver) {
    let inner = &*remote.0;
    let mut failures = 0;
    loop {
        let mut has_begun = false;
        let why = match inner.calls.links.open().await {
            Ok(link) => {
                let watching = watch(remote, resolver, &link, &mut has_begun);
                tokio::select! {
                    ended = watching => {
                        // Who was refused the watch may still be told why by an answer.
                        if has_begun || !matches!(ended, Error::Refused { .. }) {
                            inner.calls.links.lost(&link);
                        }
                        ended
                    }
                    () = inner.calls.links.is_lost(&link) => inner.calls.links.unreachable("the connection was closed"),
                }
            }
            Err(why) => inner.calls.links.unreachable(&why),
        };
        inner.heard.lost();
        inner.metrics.connected(false);
        if has_begun || failures == 0 {
            tracing::warn!(error = %why, "the broker does not tell of changes; trying to connect again");
        }
        failures = if has_begun { 1 } else { failures + 1 };
        sleep(pause(failures)).await;
    }
}

/// Reads what the broker tells until it does not.
async fn watch(remote: &Remote, resolver: &Resolver, link: &Link, has_begun: &mut bool) -> Error {
    let inner = &*remote.0;
    let mut lines = match inner.calls.watch(link).await {
        Ok(body) => Lines { body, held: Vec::new() },
        Err(error) => return error,
    };
    loop {
        let said = match timeout(SILENCE, lines.next()).await {
            Ok(Ok(said)) => said,
            Ok(Err(why)) => return inner.calls.links.unreachable(why),
            Err(_) => return inner.calls.links.unreachable("it does not hear of changes itself"),
        };
        if !*has_begun && !matches!(said, Line::Begin(_)) {
            return Error::Unreadable { broker: remote.url().to_owned() };
        }
        told(remote, resolver, said, has_begun);
        inner.heard.now();
    }
}

/// What was told is forgotten before the next line is read. Whether streams are to end has to be asked, meanwhile.
fn told(remote: &Remote, resolver: &Resolver, line: Line, has_begun: &mut bool) {
    let inner = &*remote.0;
    let change = match line {
        Line::Begin(begin) => {
            *has_begun = true;
            inner.metrics.connected(true);
            tracing::info!(broker = remote.url(), "the broker tells of changes");
            if let Some(revision) = begin.policy_revision {
                revised(remote, &revision);
            }
            Change::Unknown
        }
        Line::Account(key) => Change::Account(key),
        Line::Whole(whose) => Change::Whole(whose),
        Line::Unknown(_) => Change::Unknown,
        Line::PolicyRevision(revision) => return revised(remote, &revision),
        Line::Heard(_) => return,
    };
    for key in resolver.forget(&change) {
        let resolver = resolver.clone();
        inner.drain.detach(async move {
            let known = [key.clone()];
            resolver.end(&Change::Account(key), &known).await;
        });
    }
}

fn revised(remote: &Remote, revision: &str) {
    remote.0.revision.send_if_modified(|known| {
        let is_new = known.as_deref() != Some(revision);
        if is_new {
            *known = Some(revision.into());
        }
        is_new
    });
}

/// Lines as they come.
struct Lines {
    body: Incoming,
    held: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Line, &'static str> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line = Line::read(&self.held[..end]);
                self.held.drain(..=end);
                return Ok(line);
            }
            if self.held.len() > LONGEST {
                return Err("it tells something that is too long");
            }
            match self.body.frame().await {
                None => return Err("it has ended the watch"),
                Some(Err(_)) => return Err("the connection broke"),
                Some(Ok(frame)) => self.held.extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        }
    }
}

/// How long to wait before the attempt that follows so many failures: between a half and the whole of a time that
/// doubles.
fn pause(failures: u32) -> Duration {
    let [first, most] = PAUSES;
    let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(most);
    let chance = u32::try_from(RandomState::new().hash_one(failures) % 1000).unwrap_or_default();
    whole / 2 + whole / 2 * chance / 1000
}
