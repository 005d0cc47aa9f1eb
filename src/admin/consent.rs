//! Consents that were asked for: remembered until the person is back, each for one callback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Error, Fault, command::as_text};
use crate::{
    id::{AccountKey, ActionId, ConnectorName, Scope, TenantId},
    oauth::{App, Apps, Callback, Pending, Transport},
};

/// Where providers send people back to, on the admin listener.
pub(super) const CALLBACK: &str = "/oauth/callback";
/// How long a person may take.
const LIFE: Duration = Duration::from_mins(10);
/// More than operators ask for at a time; each is a few hundred bytes.
const ROOM: usize = 256;
/// How long whoever waits is kept waiting before they are told that there is nothing yet.
const WAIT: Duration = Duration::from_secs(20);

/// A consent that was asked for, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Names it; the id of the event that records it, if it is given.
    pub id: ActionId,
    /// The account that it is for.
    #[serde(with = "as_text")]
    pub account: AccountKey,
    /// What the person opens. Whoever has it can answer.
    pub url: String,
    /// What it is asked for, in our scopes.
    pub scopes: BTreeSet<Scope>,
    /// What the provider is asked for, by its own names.
    pub provider_scopes: Vec<String>,
    /// Where the person is sent back to.
    pub redirect_url: String,
    /// When it is too late.
    pub until: Timestamp,
}

/// What asks for consents: who we are at providers, the way to them, and what was asked and not answered yet. Cloning is
/// cheap.
#[derive(Clone)]
pub struct Consents(Arc<Inner>);

struct Inner {
    apps: Apps,
    transport: Transport,
    book: Mutex<Vec<Entry>>,
}

struct Entry {
    asked: Asked,
    metadata: BTreeMap<String, String>,
    /// Taken by the callback, whatever comes of it.
    pending: Option<Pending>,
    until: Instant,
    outcome: watch::Sender<Outcome>,
}

/// What came of a consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Connected,
    Failed(Fault),
}

/// A consent whose callback has come.
pub(super) struct Answered {
    pub(super) asked: Asked,
    pub(super) metadata: BTreeMap<String, String>,
    outcome: watch::Sender<Outcome>,
}

/// Why there is no consent for a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untaken {
    /// Nobody asked, or it was answered or withdrawn, or is long over.
    Unknown,
    /// It is over.
    Late,
}

impl Answered {
    /// Tells whoever waits.
    pub(super) fn tell(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }
}

impl Consents {
    /// Nothing asked yet. People are sent back to the apps' redirect URL.
    #[must_use]
    pub fn new(apps: Apps, transport: Transport) -> Self {
        Self(Arc::new(Inner { apps, transport, book: Mutex::default() }))
    }

    /// Where people at this machine are sent back to, if the admin listener is here; providers take `http` for loopback
    /// only.
    #[must_use]
    pub fn callback_at(admin: SocketAddr) -> Option<String> {
        let ip = admin.ip();
        let local = match ip {
            _ if ip.is_loopback() => ip,
            _ if !ip.is_unspecified() => return None,
            _ if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
            _ => Ipv6Addr::LOCALHOST.into(),
        };
        Some(format!("http://{}{CALLBACK}", SocketAddr::new(local, admin.port())))
    }

    pub(super) fn redirect_url(&self) -> Result<&str, Error> {
        self.0.apps.redirect_url().ok_or(Error::NoRedirect)
    }

    pub(super) fn app(&self, connector: &ConnectorName, tenant: &TenantId) -> Result<&Arc<App>, Error> {
        let missing = || Error::NoApp { connector: connector.clone(), tenant: tenant.clone() };
        self.0.apps.of(connector, tenant).ok_or_else(missing)
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    /// When a consent that is asked for now is too late.
    pub(super) fn until() -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(LIFE).unwrap_or(now)
    }

    /// Remembers a consent.
    pub(super) fn remember(
        &self,
        asked: Asked,
        metadata: BTreeMap<String, String>,
        pending: Pending,
    ) -> Result<(), Error> {
        let mut book = self.book();
        let now = Instant::now();
        book.retain(|entry| entry.until > now);
        if book.len() >= ROOM {
            book.retain(|entry| *entry.outcome.borrow() == Outcome::Open);
        }
        if book.len() >= ROOM {
            return Err(Error::Consents(ROOM));
        }
        let outcome = watch::Sender::new(Outcome::Open);
        book.push(Entry { asked, metadata, pending: Some(pending), until: now + LIFE, outcome });
        Ok(())
    }

    /// The consent that a callback is the answer to. It is given once, and in time.
    pub(super) fn take(&self, callback: &Callback) -> Result<(Answered, Pending), Untaken> {
        let state = callback.state().ok_or(Untaken::Unknown)?;
        let now = Instant::now();
        let mut book = self.book();
        let is_meant = |pending: &Pending| pending.state() == state;
        let found = book.iter_mut().find(|entry| entry.pending.as_ref().is_some_and(is_meant));
        let found = found.ok_or(Untaken::Unknown)?;
        if found.until <= now {
            return Err(Untaken::Late);
        }
        let pending = found.pending.take().ok_or(Untaken::Unknown)?;
        let (asked, metadata) = (found.asked.clone(), found.metadata.clone());
        Ok((Answered { asked, metadata, outcome: found.outcome.clone() }, pending))
    }

    /// Takes a question back. Says whether nobody had answered it.
    pub(super) fn withdraw(&self, id: ActionId) -> bool {
        let mut book = self.book();
        let is_open = |entry: &Entry| entry.asked.id == id && entry.pending.is_some();
        let Some(at) = book.iter().position(is_open) else { return false };
        book.swap_remove(at).outcome.send_replace(Outcome::Failed(Fault::withdrawn()));
        true
    }

    /// Waits until something has come of a consent, for a while.
    pub(super) async fn wait(&self, id: ActionId) -> Result<(Asked, Outcome), Error> {
        let found = {
            let now = Instant::now();
            let book = self.book();
            let entry = book.iter().find(|entry| entry.asked.id == id && entry.until > now);
            entry.map(|entry| (entry.asked.clone(), entry.until, entry.outcome.subscribe()))
        };
        let over = || Error::NotConnected(Fault::over());
        let (asked, until, mut outcome) = found.ok_or_else(over)?;
        let enough = Instant::now() + WAIT;
        let waited =
            timeout_at(until.min(enough), outcome.wait_for(|outcome| *outcome != Outcome::Open)).await;
        match waited {
            Ok(Ok(outcome)) => Ok((asked, outcome.clone())),
            Ok(Err(_)) => Err(over()),
            Err(_) if until <= enough => Err(over()),
            Err(_) => Ok((asked, Outcome::Open)),
        }
    }

    fn book(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    pub(super) fn over() -> Self {
        let detail =
            "the consent was not given within 10 minutes; begin again with `keybearer account connect`";
        Self { error: "consent_over".to_owned(), detail: detail.to_owned() }
    }

    fn withdrawn() -> Self {
        let detail = "the consent was withdrawn before anybody gave it";
        Self { error: "consent_withdrawn".to_owned(), detail: detail.to_owned() }
    }
}
