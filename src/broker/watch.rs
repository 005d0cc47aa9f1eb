//! One workload's watch: a line for each change that concerns it.
//!
//! Nothing is kept for a reader that is slow but its place among what all are told; when that is overtaken, it is told
//! that anything may have changed.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{Broker, caller::Caller, metrics::Open, news::Told, refusal::Refusal, room::WatchPlace};
use crate::{
    credential::wire::{Begin, Code, Line},
    identity::Workload,
    vault::Change,
};

/// How often it is told that all is well.
const BEAT: Duration = Duration::from_secs(1);

pub(super) async fn watch(State(broker): State<Broker>, caller: Caller) -> Result<Response, Refusal> {
    let place = caller.peer.watch()?;
    // Before anything else is looked at, so that what changes from now on is told.
    let news = broker.0.news.subscribe();
    if !broker.is_sure() {
        let detail =
            "the broker does not hear from its vault's database, so that it could not tell of changes";
        return Err(Refusal::new(Code::VaultUnavailable, detail));
    }
    let watching = Watching::new(broker, caller, news, place);
    let mut response = Body::from_stream(stream::unfold(watching, Watching::next)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Watching {
    broker: Broker,
    workload: Workload,
    news: broadcast::Receiver<Told>,
    /// Of the rules that the workload is handed.
    revision: Arc<str>,
    /// From when on the token is not believed.
    until: Instant,
    beat: Interval,
    has_begun: bool,
    _place: WatchPlace,
    _open: Open,
}

impl Watching {
    fn new(broker: Broker, caller: Caller, news: broadcast::Receiver<Told>, place: WatchPlace) -> Self {
        let left = caller.proven.until.duration_since(SystemTime::now()).unwrap_or_default();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let open = Open::count(&broker.parts().metrics.watches);
        Self {
            revision: broker.revision_for(caller.workload()),
            broker,
            workload: caller.proven.workload,
            news,
            until: Instant::now() + left,
            beat,
            has_begun: false,
            _place: place,
            _open: open,
        }
    }

    /// The next lines, once there is something to say; `None` ends the watch.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let lines = if self.has_begun { self.lines().await? } else { self.begin() };
        Some((Ok(written(&lines)), self))
    }

    fn begin(&mut self) -> Vec<Line> {
        self.has_begun = true;
        vec![Line::Begin(Begin { policy_revision: Some(self.revision.to_string()) })]
    }

    async fn lines(&mut self) -> Option<Vec<Line>> {
        let broker = self.broker.clone();
        loop {
            let lines = tokio::select! {
                // What has changed comes before the word that nothing has.
                biased;
                () = broker.parts().drain.begun() => return None,
                () = sleep_until(self.until) => return None,
                told = self.news.recv() => self.heard(told)?,
                _ = self.beat.tick() => broker.is_sure().then_some(Line::Heard(true)).into_iter().collect(),
            };
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    /// What the workload is told of that; `None` ends the watch.
    fn heard(&mut self, told: Result<Told, RecvError>) -> Option<Vec<Line>> {
        match told {
            Ok(Told::Change(change)) if self.concerns(&change) => Some(vec![Line::of(&change)]),
            Ok(Told::Change(_)) => Some(Vec::new()),
            Ok(Told::Rules) => self.rules_changed(),
            Err(RecvError::Lagged(_)) => {
                let lines = self.rules_changed()?;
                Some(if lines.is_empty() { vec![Line::Unknown(true)] } else { lines })
            }
            Err(RecvError::Closed) => None,
        }
    }

    /// Only of tenants that some binding gives the workload: it learns no others' names.
    fn concerns(&self, change: &Change) -> bool {
        let tenant = match change {
            Change::Account(key) => &key.tenant,
            Change::Whole(whose) => whose.tenant(),
            Change::Unknown => return true,
        };
        self.broker.parts().rules.current().bindings.reaches(&self.workload, tenant)
    }

    /// Under other rules, some of what the workload holds may be none of its business any more. Nothing where what it
    /// is handed of them is what it was. Whoever has no binding at all is sent away, and told why when it comes back.
    fn rules_changed(&mut self) -> Option<Vec<Line>> {
        if !self.broker.is_bound(&self.workload) {
            return None;
        }
        let revision = self.broker.revision_for(&self.workload);
        if revision == self.revision {
            return Some(Vec::new());
        }
        self.revision = Arc::clone(&revision);
        Some(vec![Line::PolicyRevision(revision.to_string()), Line::Unknown(true)])
    }
}

fn written(lines: &[Line]) -> Bytes {
    let mut text = Vec::new();
    for line in lines {
        // Names and numbers, which can always be written.
        text.extend(serde_json::to_vec(line).unwrap_or_else(|_| br#"{"unknown":true}"#.to_vec()));
        text.push(b'\n');
    }
    text.into()
}
