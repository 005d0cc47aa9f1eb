//! Tokens that end, and are renewed before they do.
//!
//! One attempt at a time for an account, in this process ([`flight`]) and in all that share the vault (its lease).
//! An attempt ([`attempt`]) leaves on disk what it is about to do before it does it, and what came of it before
//! anybody uses that; one that was interrupted is found and ended by whoever leases the account next. What an outcome
//! means for an account is decided by pure functions ([`outcome`], [`state`]); when the next attempt is due, too
//! ([`schedule`], [`backoff`]). Where tokens are minted from what the account holds, an attempt is simpler: it spends
//! nothing, so that it needs no lease and leaves nothing behind ([`mint`], [`minted`]). `docs/refresh.md` holds all of it against what goes wrong elsewhere.

mod apps;
mod attempt;
mod backoff;
mod breaker;
mod bucket;
pub(in crate::credential) mod clock;
mod exchange;
mod flight;
mod metrics;
mod mint;
mod minted;
mod note;
mod outcome;
mod pump;
mod schedule;
mod scheduler;
mod state;
#[cfg(test)]
mod tests;
mod way;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use tokio::{
    sync::{Notify, broadcast, mpsc},
    time::Instant,
};

use self::{
    apps::Apps,
    bucket::Priority,
    flight::{Flight, Flights, Landing},
    state::{Reason, Want},
};
pub(in crate::credential) use self::{
    attempt::token_host,
    minted::{Minted, Minting, Superseded},
    state::{Standing, standing},
};
pub use self::{
    clock::Clock,
    exchange::{Exchange, Server},
    metrics::Metrics,
    minted::Token,
    state::Closed,
};
use crate::{
    audit::Event,
    catalog::Connector,
    drain::Drain,
    id::{AccountKey, ConnectorName, Scope},
    oauth,
    vault::{Account, Material, Vault},
};

/// The `refresh:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many times a second an app may ask its token endpoint; as often at once.
    pub per_second: NonZeroU32,
    /// How many accounts are refreshed in the background at the same time.
    pub at_once: NonZeroU32,
    /// How long a token endpoint may take in all. An account is leased for three times as long.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// How long a request waits for a token when its account has none that works.
    #[serde(with = "crate::duration")]
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
        const AT_ONCE: NonZeroU32 = NonZeroU32::new(32).expect("32 is not 0");
        Self {
            per_second: PER_SECOND,
            at_once: AT_ONCE,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(3),
        }
    }
}

/// A token that is younger was not refused for its age.
const YOUNG: Duration = Duration::from_secs(30);
/// Nor one that is younger than this and took the place of one that was refused: some providers answer 401 where a
/// scope is missing, and they would be asked for a token by every request.
const YOUNG_AGAIN: Duration = Duration::from_mins(10);

/// What the engine is made of.
pub struct Parts {
    /// Accounts at rest.
    pub vault: Vault,
    /// The way to authorization servers.
    pub exchange: Arc<dyn Exchange>,
    /// Who we are there.
    pub apps: oauth::Apps,
    /// The connectors as they are now.
    pub connectors: Connectors,
    /// What the roles' grants need of an account, now.
    pub needs: Needs,
    /// What time it is.
    pub clock: Clock,
    /// Bounds.
    pub config: Config,
    /// What is measured.
    pub metrics: Metrics,
    /// What every task goes through.
    pub drain: Drain,
    /// What others call this process.
    pub replica: String,
}

/// Gives the connector of a name as it is now.
pub type Connectors = Arc<dyn Fn(&ConnectorName) -> Option<Arc<Connector>> + Send + Sync>;

/// Gives the scopes of ours that requests need which may use an account of a connector.
pub type Needs = Arc<dyn Fn(&AccountKey, &Connector) -> BTreeSet<Scope> + Send + Sync>;

/// Keeps tokens alive. Cloning is cheap.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    flights: Arc<Flights>,
    shared: Apps,
    /// What was minted.
    minted: minted::Mint,
    /// Accounts whose last attempt left nothing in the vault that says when to try again.
    paced: Mutex<HashMap<AccountKey, (Instant, Trouble)>>,
    /// Whether a request used an account since it was refreshed.
    used: Mutex<HashMap<AccountKey, Used>>,
    /// Accounts whose interrupted attempt is being looked into.
    recovering: Mutex<HashSet<AccountKey>>,
    /// Tokens that were obtained because the provider refused the one before: by when they were obtained.
    forced: Mutex<HashMap<AccountKey, Timestamp>>,
    /// Accounts that a request uses for the first time since they were refreshed: they are to be kept fresh from now on.
    waking: mpsc::UnboundedSender<AccountKey>,
    /// Those that were woken and not looked at yet. A sidecar may wake its accounts as often as it likes.
    waiting: Mutex<HashSet<AccountKey>>,
    woken: Mutex<Option<mpsc::UnboundedReceiver<AccountKey>>>,
    /// Something is in the vault's outbox, or in `untold`.
    noted: Notify,
    untold: Mutex<VecDeque<Event>>,
}

/// Whether a request used an account since it was refreshed. Set on each one, without a lock.
pub(in crate::credential) type Used = Arc<AtomicBool>;

/// Why there is no token yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The token endpoint is down, or wants to be left alone.
    #[error("the token endpoint gives no token at present")]
    Unreachable {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The provider refuses the app; no account is to blame.
    #[error(
        "the provider refuses the app itself: an operator has to correct its client id or secret (oauth.apps)"
    )]
    AppPaused {
        /// When to ask again.
        retry_after: Duration,
    },
    /// No app is configured for the connector.
    #[error("no app is configured for the connector: an operator adds it to oauth.apps")]
    NoApp,
    /// The provider gave a token in a form that the connector does not describe. It is kept.
    #[error("the provider's last answer cannot be read: an operator has to correct the connector's dialect")]
    Unreadable,
    /// Nothing can be minted from what the account holds.
    #[error("nothing can be minted from what the account holds: an operator has to rotate it")]
    Seed,
    /// It takes longer than a request waits.
    #[error("the token endpoint has not answered yet")]
    Slow,
    /// Others are at it.
    #[error("the account is being refreshed elsewhere")]
    Busy,
    /// The vault fails, so that what the provider would give could not be kept.
    #[error("the vault cannot be read or written")]
    Vault,
    /// The process stops.
    #[error("the refresh was interrupted")]
    Interrupted,
}

impl Trouble {
    /// One word for it.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "token_endpoint",
            Self::AppPaused { .. } => "app_paused",
            Self::NoApp => "app_missing",
            Self::Unreadable => "token_unreadable",
            Self::Seed => "account_unusable",
            Self::Slow | Self::Busy | Self::Interrupted => "token_pending",
            Self::Vault => "vault",
        }
    }

    /// When to ask again.
    #[must_use]
    pub const fn retry_after(self) -> Duration {
        match self {
            Self::Unreachable { retry_after } | Self::AppPaused { retry_after } => retry_after,
            Self::NoApp | Self::Unreadable | Self::Seed => Duration::from_mins(1),
            Self::Slow | Self::Busy | Self::Vault | Self::Interrupted => Duration::from_secs(1),
        }
    }
}

impl Trouble {
    /// How long it holds for every request alike, without anybody asking again.
    pub(in crate::credential) const fn rest(self) -> Duration {
        match self {
            Self::Unreachable { .. } | Self::AppPaused { .. } | Self::Vault => self.retry_after(),
            Self::NoApp | Self::Unreadable | Self::Seed | Self::Slow | Self::Busy | Self::Interrupted => {
                Duration::ZERO
            }
        }
    }

    /// The same, for so much longer.
    const fn lasting(self, left: Duration) -> Self {
        match self {
            Self::Unreachable { .. } => Self::Unreachable { retry_after: left },
            other => other,
        }
    }
}

impl Engine {
    /// An engine at rest: [`Engine::recover`] and [`Engine::run`] set it going.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let shared = Apps::new(parts.config.per_second);
        let (waking, woken) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            parts,
            flights: Arc::default(),
            shared,
            minted: minted::Mint::default(),
            paced: Mutex::default(),
            used: Mutex::default(),
            recovering: Mutex::default(),
            forced: Mutex::default(),
            waking,
            waiting: Mutex::default(),
            woken: Mutex::new(Some(woken)),
            noted: Notify::new(),
            untold: Mutex::default(),
        }))
    }

    /// Begins to find out what became of every attempt that its process did not end, here or elsewhere (F6). Requests
    /// for these accounts wait for that, within bounds.
    ///
    /// # Errors
    /// Where the vault cannot be read.
    pub async fn recover(&self) -> Result<usize, crate::vault::Error> {
        let intents = self.0.parts.vault.intents().await?;
        let count = intents.len();
        for (key, _) in intents {
            lock(&self.0.recovering).insert(key.clone());
            self.join(&key, Reason { priority: Priority::Demand, want: Want::Recovery });
        }
        Ok(count)
    }

    /// The connectors are others now: what could not be read before is read again (F39).
    ///
    /// # Errors
    /// Where the vault cannot be read.
    pub async fn connectors_changed(&self) -> Result<usize, crate::vault::Error> {
        lock(&self.0.paced).clear();
        self.recover().await
    }

    /// Says of which account a minted token is not to be used any more though nothing of the account has changed: there
    /// is another one, or the provider gives none now. Whoever lags behind must take it for all accounts.
    #[must_use]
    pub fn replaced_tokens(&self) -> broadcast::Receiver<AccountKey> {
        self.0.minted.replaced()
    }

    pub(in crate::credential) fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    /// Waits for a token, within bounds. `Ok`: read the account again.
    pub(in crate::credential) async fn renewed(&self, key: &AccountKey) -> Landing {
        self.demanded(key, Want::Any).await
    }

    /// Waits for another token than the one obtained then, which the provider refused. Not for one that is too young to
    /// have ended: then the token is not what is wrong, and another one would be refused as well.
    pub(in crate::credential) async fn replaced(&self, key: &AccountKey, obtained: Timestamp) -> bool {
        let is_forced = lock(&self.0.forced).get(key) == Some(&obtained);
        let young = if is_forced { YOUNG_AGAIN } else { YOUNG };
        let age = clock::between(obtained, self.0.parts.clock.now());
        age >= young && self.demanded(key, Want::Newer(obtained)).await.is_ok()
    }

    /// Remembers that the token obtained then was obtained because the provider refused the one before.
    pub(in crate::credential) fn was_forced(&self, key: &AccountKey, obtained: Timestamp) {
        lock(&self.0.forced).insert(key.clone(), obtained);
    }

    /// Waits, within bounds, until it is known what became of an attempt that was interrupted.
    pub(in crate::credential) async fn recovered(&self, key: &AccountKey) {
        let is_recovering = lock(&self.0.recovering).contains(key);
        if let Some(flight) = self.0.flights.of(key).filter(|_| is_recovering) {
            let _ = tokio::time::timeout(self.0.parts.config.patience, flight.landed()).await;
        }
    }

    /// When to begin to replace the account's token.
    pub(in crate::credential) fn due(&self, account: &Account) -> Option<Timestamp> {
        let Material::Oauth(grant) = &account.material else { return None };
        let access = grant.access.as_ref().filter(|_| grant.refresh.is_some())?;
        self.due_between(account, access.obtained, access.expires)
    }

    /// The same, of a token that was obtained then and ends then.
    pub(in crate::credential) fn due_between(
        &self,
        account: &Account,
        obtained: Timestamp,
        expires: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let spread = schedule::Spread::of(&account.key, account.generation, &self.0.parts.replica);
        Some(schedule::due(obtained, expires?, spread))
    }

    /// Where requests that use the account say so.
    pub(in crate::credential) fn usage(&self, key: &AccountKey) -> Used {
        Arc::clone(lock(&self.0.used).entry(key.clone()).or_default())
    }

    /// A request uses the account for the first time since it was refreshed, or its token ends soon. What is to be done is
    /// begun in the background, within its bounds; nobody waits for it.
    pub(in crate::credential) fn wake(&self, key: &AccountKey) {
        if lock(&self.0.waiting).insert(key.clone()) {
            let _ = self.0.waking.send(key.clone()); // an error says that nothing runs in the background
        }
    }

    /// Forgets what was noted of accounts and says nothing any more.
    pub(in crate::credential) fn tidy(&self) {
        let (now, instant) = (self.0.parts.clock.now(), Instant::now());
        lock(&self.0.used).retain(|_, used| Arc::strong_count(used) > 1 || used.load(Ordering::Relaxed));
        lock(&self.0.paced).retain(|_, (until, _)| *until > instant);
        lock(&self.0.forced).retain(|_, obtained| clock::between(*obtained, now) < YOUNG_AGAIN);
        self.0.minted.tidy();
    }

    /// Forgets everything of an account that is gone.
    fn forget(&self, key: &AccountKey) {
        lock(&self.0.used).remove(key);
        lock(&self.0.paced).remove(key);
        lock(&self.0.forced).remove(key);
    }

    async fn demanded(&self, key: &AccountKey, want: Want) -> Landing {
        let flight = self.join(key, Reason { priority: Priority::Demand, want });
        let landed = tokio::time::timeout(self.0.parts.config.patience, flight.landed());
        landed.await.unwrap_or(Err(Trouble::Slow))
    }

    fn join(&self, key: &AccountKey, reason: Reason) -> Flight {
        let (engine, own) = (self.clone(), key.clone());
        self.0.flights.join(key, reason.priority, &self.0.parts.drain, move |urgent| async move {
            let landing = engine.attempt(&own, reason, &urgent).await;
            lock(&engine.0.recovering).remove(&own);
            landing
        })
    }

    fn is_used_no_more(&self, key: &AccountKey) {
        if let Some(used) = lock(&self.0.used).get(key) {
            used.store(false, Ordering::Relaxed);
        }
    }

    fn is_used(&self, key: &AccountKey) -> bool {
        lock(&self.0.used).get(key).is_some_and(|used| used.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
