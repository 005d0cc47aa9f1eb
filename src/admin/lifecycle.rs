//! What an identity provider tells of its users: over SCIM who is there, over SSF what happened to whom.
//!
//! Both come to the TCP listener through whatever ends TLS in front of it, under a public name; both authenticate
//! every request themselves, so that the name is not looked at (a page of another site has no token).

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Desk, Error, scim, ssf, token};
use crate::{
    audit::{Event, Kind},
    drain::Drain,
    identity::FetchJwks,
};

/// The `lifecycle:` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleConfig {
    /// The address under which identity providers reach the admin listener, for the locations that SCIM answers.
    pub url: Option<String>,
    /// Who may provision users, one entry a token.
    pub scim: Vec<scim::Config>,
    /// Who may send security events, one entry a transmitter.
    pub ssf: Vec<ssf::Config>,
}

impl LifecycleConfig {
    /// The files that the section names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let scim = self.scim.iter_mut().map(|client| &mut client.token.file);
        scim.chain(self.ssf.iter_mut().flat_map(ssf::Config::files_mut))
    }
}

/// Where a token is: `{file: PATH}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSource {
    /// The file, which has the token and perhaps a line break.
    pub file: PathBuf,
}

impl TokenSource {
    pub(super) fn read(&self) -> Result<crate::secret::Secret, Error> {
        token::read(&self.file)
    }
}

/// What the TCP listener serves for identity providers.
pub struct Lifecycle(Router);

impl Lifecycle {
    /// Reads tokens and key files.
    ///
    /// # Errors
    /// Where a file cannot be read, or the section makes no sense.
    pub fn open(
        config: &LifecycleConfig,
        desk: &Desk,
        fetch: &FetchJwks,
        drain: &Drain,
    ) -> Result<Self, Error> {
        let directory = scim::Directory::new(desk.clone(), drain.clone());
        let mut router = Router::new();
        if !config.scim.is_empty() {
            router = router.merge(scim::router(config, directory.clone())?);
        }
        if !config.ssf.is_empty() {
            router = router.merge(ssf::router(&config.ssf, directory, fetch, drain)?);
        }
        Ok(Self(router))
    }

    pub(super) fn into_router(self) -> Router {
        self.0
    }
}

/// Records who was turned away. Anyone can be, at any rate, so there is a bound: an audit log that strangers fill
/// is worth nothing. The rest is in the log at its finer levels.
pub(super) struct Refusals {
    event: &'static str,
    recorded: Mutex<Option<(Instant, u32)>>,
}

/// How many are recorded in a minute.
const RECORDED: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);

impl Refusals {
    pub(super) const fn new(event: &'static str) -> Self {
        Self { event, recorded: Mutex::new(None) }
    }

    /// Records one, with our own words for it.
    pub(super) async fn record(&self, desk: &Desk, why: &'static str) {
        if !self.has_room() {
            tracing::debug!(event = self.event, why, "an identity provider's request was refused");
            return;
        }
        tracing::warn!(event = self.event, why, "an identity provider's request was refused");
        let event = Event { detail: Some(why.into()), ..Event::of(Kind::System, self.event) };
        if let Err(error) = desk.audit().record(event).await {
            tracing::error!(%error, "a refusal could not be recorded");
        }
    }

    fn has_room(&self) -> bool {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, count) =
            recorded.filter(|(since, _)| now.duration_since(*since) < MINUTE).unwrap_or((now, 0));
        *recorded = Some((since, count + 1));
        count < RECORDED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn strangers_fill_no_audit_log() {
        let refusals = Refusals::new("scim.refused");
        let recorded = |count: usize| (0..count).filter(|_| refusals.has_room()).count();
        assert_eq!(recorded(500), 10);
        tokio::time::advance(MINUTE).await;
        assert_eq!(recorded(500), 10);
    }
}
