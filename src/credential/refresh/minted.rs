//! What was minted, in memory and nowhere else: each account's token, or why there is none for now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use tokio::{sync::broadcast, time::Instant};

use super::{Closed, Trouble};
use crate::{id::AccountKey, oauth::Provider, secret::Secret, vault::Account};

/// A token that was minted, or keys that were.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its parts by name, as a connector's templates use them.
    pub fields: BTreeMap<String, Secret>,
    /// When it was obtained.
    pub obtained: Timestamp,
    /// When it ends; `None` where nobody says.
    pub expires: Option<Timestamp>,
    /// The provider's scopes that it has; `None`: those that were asked for.
    pub scopes: Option<Vec<String>>,
}

/// A token in use.
#[derive(Debug)]
pub(in crate::credential) struct Minted {
    pub(in crate::credential) token: Token,
    /// What it was asked for, in the provider's scopes.
    pub(in crate::credential) asked: Vec<String>,
    /// Set when it is not to be used any more: there is another one, or its account has changed.
    pub(in crate::credential) superseded: Superseded,
}

/// Whether a token is not to be used any more. Read on each request, without a lock.
pub(in crate::credential) type Superseded = Arc<AtomicBool>;

/// All that a token depends on, besides its account's name: whatever is another one needs another token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    generation: u64,
    /// An account that was removed and added again counts from one again.
    created: Timestamp,
    provider: Option<Arc<Provider>>,
    /// What it is asked for. Repositories, permissions and the audience are metadata, which a generation has once.
    pub(super) scopes: Vec<String>,
}

impl Stamp {
    pub(super) fn of(account: &Account, provider: Option<&Arc<Provider>>, scopes: Vec<String>) -> Self {
        let (generation, created) = (account.generation, account.created);
        Self { generation, created, provider: provider.cloned(), scopes }
    }
}

/// How an account stands whose tokens are minted.
#[derive(Debug, Clone)]
pub(in crate::credential) enum Minting {
    /// It has one.
    Live(Arc<Minted>),
    /// One has to be minted.
    Over,
    /// The provider gives none, and is not asked again before then.
    Refused(Closed, Instant),
}

/// Why nobody asks at present.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rest {
    Refused(Closed),
    Failing(Trouble),
}

#[derive(Debug)]
struct Kept {
    stamp: Stamp,
    token: Option<Arc<Minted>>,
    rest: Option<(Rest, Instant)>,
    failures: u32,
}

/// How many tokens may have been replaced before whoever listens is told that some were missed.
const REPLACED_KEPT: usize = 1024;

/// What was minted, by account: tenant first. Requests read what the resolver made of it, without this lock.
#[derive(Debug)]
pub(super) struct Mint {
    kept: Mutex<HashMap<AccountKey, Kept>>,
    replaced: broadcast::Sender<AccountKey>,
}

impl Default for Mint {
    fn default() -> Self {
        Self { kept: Mutex::default(), replaced: broadcast::Sender::new(REPLACED_KEPT) }
    }
}

impl Mint {
    /// How the account stands.
    pub(super) fn standing(&self, key: &AccountKey, stamp: &Stamp, now: Timestamp) -> Minting {
        let kept = self.lock();
        let Some(kept) = kept.get(key).filter(|kept| kept.stamp == *stamp) else { return Minting::Over };
        if let Some((Rest::Refused(closed), until)) = kept.rest
            && Instant::now() < until
        {
            return Minting::Refused(closed, until);
        }
        let lives = |minted: &&Arc<Minted>| minted.token.expires.is_none_or(|expires| expires > now);
        kept.token.as_ref().filter(lives).map_or(Minting::Over, |minted| Minting::Live(Arc::clone(minted)))
    }

    /// Until when the account is to be left alone for what befell the last attempt, and why.
    pub(super) fn failing(&self, key: &AccountKey, stamp: &Stamp) -> Option<(Trouble, Instant)> {
        let kept = self.lock();
        match kept.get(key).filter(|kept| kept.stamp == *stamp)?.rest {
            Some((Rest::Failing(trouble), until)) if Instant::now() < until => Some((trouble, until)),
            _ => None,
        }
    }

    /// How many attempts have failed in a row.
    pub(super) fn failures(&self, key: &AccountKey, stamp: &Stamp) -> u32 {
        self.lock().get(key).filter(|kept| kept.stamp == *stamp).map_or(0, |kept| kept.failures)
    }

    /// Keeps a token; whoever uses the one before takes this one at their next request.
    pub(super) fn keep(&self, key: &AccountKey, stamp: Stamp, token: Token) {
        let minted = Minted { token, asked: stamp.scopes.clone(), superseded: Superseded::default() };
        let kept = Kept { stamp, token: Some(Arc::new(minted)), rest: None, failures: 0 };
        if let Some(before) = self.lock().insert(key.clone(), kept) {
            self.replace(key, &before);
        }
    }

    /// Says whose token is not to be used any more though nothing of its account has changed.
    pub(super) fn replaced(&self) -> broadcast::Receiver<AccountKey> {
        self.replaced.subscribe()
    }

    fn replace(&self, key: &AccountKey, before: &Kept) {
        if before.end() {
            let _ = self.replaced.send(key.clone()); // an error says that nobody listens
        }
    }

    /// Leaves the account alone until then. A token that lives is used meanwhile, unless the provider refuses.
    pub(super) fn rest(&self, key: &AccountKey, stamp: Stamp, rest: Rest, until: Instant) {
        let mut all = self.lock();
        let before = all.remove(key);
        let failures = before.as_ref().filter(|kept| kept.stamp == stamp).map_or(0, |kept| kept.failures);
        let token = before.as_ref().filter(|kept| kept.stamp == stamp && matches!(rest, Rest::Failing(_)));
        let token = token.and_then(|kept| kept.token.clone());
        if let Some(before) = before.filter(|_| token.is_none()) {
            self.replace(key, &before);
        }
        let failures = failures.saturating_add(1);
        all.insert(key.clone(), Kept { stamp, token, rest: Some((rest, until)), failures });
    }

    /// Drops the tokens that the resolver has forgotten: who needs one again has another minted.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        self.lock().retain(|_, kept| {
            let is_held = kept.token.as_ref().is_some_and(|minted| Arc::strong_count(&minted.superseded) > 1);
            is_held || kept.rest.is_some_and(|(_, until)| now < until)
        });
    }

    /// Drops what is known of an account.
    pub(super) fn forget(&self, key: &AccountKey) {
        if let Some(kept) = self.lock().remove(key) {
            kept.end();
        }
    }

    /// The same for all accounts that are meant.
    pub(super) fn forget_all(&self, is_meant: impl Fn(&AccountKey) -> bool) {
        self.lock().retain(|key, kept| {
            let is_meant = is_meant(key);
            if is_meant {
                kept.end();
            }
            !is_meant
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountKey, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether there was a token.
    fn end(&self) -> bool {
        if let Some(minted) = &self.token {
            minted.superseded.store(true, Ordering::Relaxed);
        }
        self.token.is_some()
    }
}
