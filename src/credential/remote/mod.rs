//! Accounts of a broker: another process has the vault, its key and the refresh tokens.
//!
//! One HTTP/2 connection carries everything. [`follow`] keeps it, and reads on it what changes; each question is a
//! stream of its own beside that. What the broker gives is kept in memory only as long as a change would be heard of.
//!
//! An answer and the line that tells of a later change come on two streams, in any order: the cache does not keep what
//! was asked for before something was forgotten, so that neither order leaves the older one in use.

mod calls;
mod error;
mod follow;
mod heard;
mod link;
mod metrics;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use quick_cache::sync::Cache;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep},
};

use self::{
    calls::Calls,
    heard::Heard,
    link::{Links, Network, System, Way},
    token::TokenFile,
};
pub use self::{error::Error, metrics::Metrics};
use super::{
    Error as CredentialError, Resolver, Trouble,
    found::{Fields, Found, Gives},
    source::{Asked, Refused, Source},
    wire::{Answer, Ask, Problem, Question},
};
use crate::{
    drain::Drain,
    fetch::Url,
    id::{AccountKey, Subject},
    names::Names,
    tls::Roots,
    vault::{Change, Whole},
};

/// How many accounts are looked at for open streams at the same time.
const LOOKS: usize = 16;
/// Until a look is tried again that failed while the broker was there.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often it is tried; then nobody can tell, and streams end.
const MOST_LOOKS: u32 = 25;
/// Of how many accounts that gave nothing it is remembered where people connect them.
const MISSING: usize = 1024;

/// What a broker's client is made of.
pub struct Parts {
    /// Where the broker is, `https`.
    pub url: Url,
    /// Whom its certificate is checked by.
    pub roots: Roots,
    /// A file with the token that says who we are. It is read again when it changes.
    pub token_file: PathBuf,
    /// How long the broker may take for one answer, connecting included.
    pub timeout: Duration,
    /// How much longer where it waits for a provider.
    pub patience: Duration,
    /// How long accounts in memory are used while the broker is not heard from.
    pub offline_use: Duration,
    /// What is measured.
    pub metrics: Metrics,
    /// What every task goes through.
    pub drain: Drain,
}

/// The way to a broker. Cloning is cheap.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    calls: Calls,
    heard: Heard,
    /// The revision of the rules in use at the broker, where it has said so.
    revision: watch::Sender<Option<Arc<str>>>,
    /// What is known besides of accounts that are there.
    known: Mutex<HashMap<AccountKey, Known>>,
    /// Where people connect those that gave nothing, of which agents may name any number.
    missing: Cache<AccountKey, Arc<str>>,
    looks: Semaphore,
    offline_use: Duration,
    metrics: Metrics,
    drain: Drain,
}

/// What is known of an account that is there.
struct Known {
    /// Who asked last.
    subject: Subject,
    reconnect_url: Option<Arc<str>>,
}

impl Remote {
    /// A client at rest: [`Remote::follow`] sets it going. Until then, whoever asks waits.
    ///
    /// # Errors
    /// Where the roots or the token file cannot be read.
    pub fn open(parts: Parts) -> Result<Self, Error> {
        Self::over(Box::new(System(Names::system())), parts)
    }

    fn over(network: Box<dyn Network>, parts: Parts) -> Result<Self, Error> {
        let Parts { url, roots, token_file, timeout, patience, offline_use, metrics, drain } = parts;
        let way = Way::open(network, url, roots, timeout, drain.clone())?;
        let token = TokenFile::open(token_file)?;
        Ok(Self(Arc::new(Inner {
            calls: Calls { links: Links::new(way), token, timeout, patience },
            heard: Heard::default(),
            revision: watch::Sender::new(None),
            known: Mutex::default(),
            missing: Cache::new(MISSING),
            looks: Semaphore::new(LOOKS),
            offline_use,
            metrics,
            drain,
        })))
    }

    /// Connects, and follows what changes until the drain begins: the resolver, which must be over this client, forgets
    /// what the broker names, and everything where the broker is not heard from.
    pub fn follow(&self, resolver: &Resolver) {
        let (drain, remote, resolver) = (&self.0.drain, self.clone(), resolver.clone());
        let stopping = drain.clone();
        drain.spawn(async move {
            tokio::select! {
                () = follow::follow(&remote, &resolver) => {}
                () = heard::doubt(&remote, &resolver) => {}
                () = stopping.begun() => {}
            }
        });
    }

    /// Where the broker is.
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.calls.links.way().name()
    }

    /// Why nothing can be told of accounts now; `None` where all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.0.heard.is_within(self.0.offline_use) {
            return None;
        }
        let why = self.0.calls.links.trouble().unwrap_or_else(|| "it does not tell of changes".to_owned());
        Some(format!("the broker {} is not heard from: {why}", self.url()))
    }

    /// The revision of the rules in use at the broker, as often as it changes; `None` before it was heard from.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.revision.subscribe()
    }

    /// The broker's rules, as far as we may see them: JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn policy(&self) -> Result<Vec<u8>, Error> {
        self.0.calls.policy().await
    }

    /// Asks, and notes what the answer says besides.
    async fn ask(
        &self,
        asked: Asked<'_>,
        ask: Ask,
        refused: Option<Refused>,
    ) -> Result<Found, CredentialError> {
        let question = Question { account: asked.key.clone(), subject: asked.subject.clone(), ask, refused };
        let begun = Instant::now();
        let answered = self.0.calls.answer(&question).await;
        self.0.metrics.called(ask, &answered);
        match answered? {
            Ok(answer) => self.read(&question, answer, begun),
            Err(problem) => {
                if let Some(url) = problem.reconnect_url.as_deref() {
                    self.0.missing.insert(question.account.clone(), url.into());
                }
                Err(problem.error(&question, asked.connector, self.url()))
            }
        }
    }

    fn read(&self, question: &Question, answer: Answer, begun: Instant) -> Result<Found, CredentialError> {
        let unreadable = || Error::Unreadable { broker: self.url().to_owned() };
        if answer.account != question.account {
            return Err(unreadable().into()); // another one's is nobody's
        }
        let reconnect_url = answer.reconnect_url.as_deref().map(Arc::from);
        let known = Known { subject: question.subject.clone(), reconnect_url };
        self.known().insert(question.account.clone(), known);
        let mut found = answer.found(begun).ok_or_else(unreadable)?;
        let is_kept = self.0.heard.is_within(self.0.offline_use);
        match &mut found.gives {
            Gives::Fields(Fields { secrets: None, .. }) if question.ask == Ask::Give => {
                return Err(unreadable().into());
            }
            // A change would not be heard of: it is good for the request that asked for it.
            Gives::Fields(Fields { until, .. }) | Gives::Closed(_, until) if !is_kept => *until = Some(begun),
            _ => {}
        }
        Ok(found)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<AccountKey, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the account may be used, as far as can be told.
    async fn stands(&self, question: &Question) -> Option<bool> {
        let _room = self.0.looks.acquire().await;
        let answered = self.0.calls.answer(question).await;
        self.0.metrics.called(question.ask, &answered);
        match answered {
            Ok(Ok(_)) => Some(true),
            Ok(Err(Problem { error, .. })) => error.stands(),
            Err(_) => None,
        }
    }
}

#[async_trait]
impl Source for Remote {
    async fn settled(&self, _: &AccountKey) {}

    async fn find(&self, asked: Asked<'_>) -> Result<Found, CredentialError> {
        self.ask(asked, Ask::Give, None).await
    }

    async fn look(&self, asked: Asked<'_>) -> Result<Found, CredentialError> {
        self.ask(asked, Ask::Look, None).await
    }

    /// The broker has tried before it answered.
    async fn renewed(&self, _: &AccountKey) -> Option<Trouble> {
        Some(Trouble::Busy)
    }

    async fn challenged(&self, asked: Asked<'_>, refused: Refused) -> bool {
        let Ok(found) = self.ask(asked, Ask::Challenged, Some(refused)).await else { return false };
        match (refused.obtained, &found.gives) {
            (Some(obtained), Gives::Fields(fields)) => fields.obtained != Some(obtained),
            (Some(_), _) => true,
            (None, _) => Some(found.account.generation) != refused.generation,
        }
    }

    fn wake(&self, asked: Asked<'_>) {
        let (remote, key, subject) = (self.clone(), asked.key.clone(), asked.subject.clone());
        let connector = Arc::clone(asked.connector);
        self.0.drain.detach(async move {
            let asked = Asked { key: &key, subject: &subject, connector: &connector };
            if let Err(error) = remote.ask(asked, Ask::Ahead, None).await {
                tracing::debug!(account = %key, %error, "the broker was not asked to replace a token ahead");
            }
        });
    }

    /// Where the broker is away it tells that everything may have changed when it is back, and this is asked again.
    async fn is_over(&self, key: &AccountKey) -> bool {
        let Some(subject) = self.known().get(key).map(|known| known.subject.clone()) else { return true };
        let question = Question { account: key.clone(), subject, ask: Ask::Look, refused: None };
        for _ in 0..MOST_LOOKS {
            if let Some(stands) = self.stands(&question).await {
                return !stands;
            }
            if !self.0.heard.is_following() {
                return false;
            }
            sleep(LOOK_AGAIN).await;
        }
        true
    }

    async fn are_over(&self, _: &Whole) -> Option<bool> {
        None
    }

    fn changed(&self, _: &Change) {}

    fn tidy(&self, is_known: &dyn Fn(&AccountKey) -> bool) {
        self.known().retain(|key, _| is_known(key));
        self.0.missing.clear();
    }

    fn reconnect_url(&self, key: &AccountKey) -> Option<Arc<str>> {
        let known = self.known().get(key).and_then(|known| known.reconnect_url.clone());
        known.or_else(|| self.0.missing.get(key))
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.url()).finish()
    }
}
