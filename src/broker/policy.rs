//! The rules that a workload may see, for its own proxy to decide by.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Broker, caller::Caller};
use crate::{identity::Workload, ruleset::Ruleset};

/// Which revision each workload is handed of the rules in use: many sidecars are one workload's, and ask together. The
/// rules themselves are not kept for each; they are large.
#[derive(Default)]
pub(super) struct Revisions(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Of which rules.
    of: Arc<str>,
    by_workload: HashMap<Workload, Arc<str>>,
}

impl Revisions {
    fn of(&self, rules: &Ruleset, workload: &Workload) -> Arc<str> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.of != rules.revision {
            *known = Known { of: Arc::clone(&rules.revision), by_workload: HashMap::new() };
        }
        let made = || rules.excerpt(workload).revision;
        Arc::clone(known.by_workload.entry(workload.clone()).or_insert_with(made))
    }
}

/// All of it, or that nothing has changed since the revision that the sidecar has (RFC 9110 §13.1.2).
pub(super) async fn policy(State(broker): State<Broker>, caller: Caller, headers: HeaderMap) -> Response {
    let rules = broker.parts().rules.current();
    let tag = format!("\"{}\"", broker.0.revisions.of(&rules, caller.workload()));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|tags| tags.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    let mut response = if known.any(|known| known == tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(rules.excerpt(caller.workload())).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

impl Broker {
    /// Names what a workload is handed of the rules in use.
    pub(super) fn revision_for(&self, workload: &Workload) -> Arc<str> {
        self.0.revisions.of(&self.parts().rules.current(), workload)
    }
}
