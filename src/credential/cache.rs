//! What requests read without a lock: each account's credential, and until when it may be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Closed, Credential, Trouble,
    found::Bare,
    refresh::{Superseded, Used},
    shards::{Placed, Shards},
};
use crate::{
    catalog::Connector,
    id::{AccountKey, Scope},
};

/// Read without a lock; written under one that few accounts share.
#[derive(Default)]
pub(super) struct Cache(Shards<Slot>);

/// An account's place. It stays through all changes of the account's secret, so that a freeze also ends streams which
/// an earlier one opened.
struct Slot {
    key: AccountKey,
    entry: ArcSwapOption<Entry>,
    /// Whether a request was here since [`Cache::tidy`] was.
    is_used: AtomicBool,
    /// Shared with every credential of the account that somebody still has.
    ended: Arc<CancellationToken>,
}

impl Placed for Slot {
    fn key(&self) -> &AccountKey {
        &self.key
    }
}

impl Slot {
    fn new(key: AccountKey) -> Self {
        Self { key, entry: ArcSwapOption::empty(), is_used: AtomicBool::new(true), ended: Arc::default() }
    }

    /// Whether anything is known here, or a stream hangs on it.
    fn is_needed(&self) -> bool {
        self.entry.load().is_some() || Arc::strong_count(&self.ended) > 1
    }
}

/// An account without its secrets: what requests to it are held against.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) key: AccountKey,
    pub(super) generation: u64,
    /// What the provider lets it do, in our scopes; `None` where that is not known.
    pub(super) scopes: Option<Box<[Scope]>>,
    /// What fills the connector's placeholders.
    metadata: Box<[(String, String)]>,
}

impl Holder {
    /// What fills a placeholder.
    pub(super) fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl From<Bare> for Holder {
    fn from(account: Bare) -> Self {
        let Bare { key, generation, scopes, metadata, .. } = account;
        let (scopes, metadata) = (scopes.map(BTreeSet::into_iter), BTreeMap::into_iter(metadata));
        Self { key, generation, scopes: scopes.map(Iterator::collect), metadata: metadata.collect() }
    }
}

/// What is known of an account.
pub(super) struct Entry {
    pub(super) holder: Holder,
    /// The connector as it was when the headers were made: another policy set makes them anew.
    pub(super) connector: Arc<Connector>,
    /// What requests are given, or why they are given nothing.
    pub(super) given: Result<Arc<Credential>, Withheld>,
    /// Not after this.
    pub(super) until: Option<Instant>,
    /// When to begin to replace it.
    pub(super) due: Option<Instant>,
    is_replaced: AtomicBool,
    pub(super) used: Option<Used>,
    /// Whether what was minted is not to be used any more.
    superseded: Option<Superseded>,
}

/// What was read of an account, before anybody shares it.
pub(super) struct Draft {
    pub(super) holder: Holder,
    pub(super) connector: Arc<Connector>,
    pub(super) given: Result<Credential, Withheld>,
    pub(super) until: Option<Instant>,
    pub(super) due: Option<Instant>,
    pub(super) used: Option<Used>,
    pub(super) superseded: Option<Superseded>,
}

impl Draft {
    fn entry(self, ended: Arc<CancellationToken>) -> Entry {
        let Self { holder, connector, given, until, due, used, superseded } = self;
        let given = given.map(|credential| Arc::new(Credential { ended, ..credential }));
        let is_replaced = AtomicBool::new(false);
        Entry { holder, connector, given, until, due, is_replaced, used, superseded }
    }
}

/// Why an account that may be used gives nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Withheld {
    /// Until a person acts.
    Closed(Closed),
    /// For now.
    Trouble(Trouble),
}

impl Entry {
    /// Whether it may still be used for a request to this connector.
    pub(super) fn serves(&self, connector: &Arc<Connector>) -> bool {
        Arc::ptr_eq(&self.connector, connector)
            && self.until.is_none_or(|until| Instant::now() < until)
            && self.superseded.as_ref().is_none_or(|superseded| !superseded.load(Ordering::Relaxed))
    }

    /// Notes that a request uses it, and says whether it is the first one.
    pub(super) fn touch(&self) -> bool {
        self.used.as_ref().is_some_and(|used| raise(used))
    }

    /// Whether the time has come to replace the token; once.
    pub(super) fn falls_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now()) && raise(&self.is_replaced)
    }
}

/// Sets a flag, and says whether it was not set. Writing costs other cores their copy, so only the first request does.
pub(super) fn raise(flag: &AtomicBool) -> bool {
    !flag.load(Ordering::Relaxed) && !flag.swap(true, Ordering::Relaxed)
}

impl Cache {
    /// What is known of an account.
    pub(super) fn get(&self, key: &AccountKey) -> Option<Arc<Entry>> {
        self.0.read(key, |slot| {
            raise(&slot.is_used);
            slot.entry.load_full()
        })?
    }

    /// Whether an account has a place.
    pub(super) fn has(&self, key: &AccountKey) -> bool {
        self.0.read(key, |_| ()).is_some()
    }

    /// What [`Cache::remember`] compares with.
    pub(super) fn forgotten(&self, key: &AccountKey) -> u64 {
        self.0.forgotten(key)
    }

    /// Forgets what is known of an account, and says whether it has a place. That stays, with the streams that hang
    /// on it.
    pub(super) fn forget(&self, key: &AccountKey) -> bool {
        let shard = self.0.lock(key);
        shard.forget();
        self.0.read(key, |slot| slot.entry.store(None)).is_some()
    }

    /// The same for all accounts that are meant. Names those that have a place.
    pub(super) fn forget_all(&self, is_meant: impl Fn(&AccountKey) -> bool) -> Vec<AccountKey> {
        let mut keys = Vec::new();
        for shard in self.0.each() {
            shard.forget();
            for slot in shard.places().iter().filter(|slot| is_meant(&slot.key)) {
                slot.entry.store(None);
                keys.push(slot.key.clone());
            }
        }
        keys
    }

    /// Gives the places of accounts up, and ends their streams. Whoever has become usable meanwhile begins anew.
    pub(super) fn end(&self, keys: &[AccountKey]) {
        for key in keys {
            let shard = self.0.lock(key);
            shard.forget();
            for slot in shard.give_up(|slot| slot.key != *key) {
                slot.ended.cancel();
            }
        }
    }

    /// Forgets accounts that no request has used since this was called before. A place on which a stream hangs stays.
    pub(super) fn tidy(&self) {
        for shard in self.0.each() {
            for slot in shard.places() {
                if !slot.is_used.swap(false, Ordering::Relaxed) {
                    slot.entry.store(None);
                }
            }
            drop(shard.give_up(Slot::is_needed));
        }
    }

    /// Keeps what was read, unless an account changed since: then it must be read again. Who comes second takes what
    /// the first one kept, so that all requests share one credential.
    pub(super) fn remember(&self, draft: Draft, before: u64) -> Option<Arc<Entry>> {
        let key = &draft.holder.key;
        let shard = self.0.lock(key);
        if shard.forgotten() != before {
            return None;
        }
        let slot = shard.place(key, || Slot::new(key.clone()));
        if let Some(kept) = slot.entry.load_full()
            && kept.holder.generation == draft.holder.generation
            && kept.serves(&draft.connector)
        {
            return Some(kept);
        }
        let entry = Arc::new(draft.entry(Arc::clone(&slot.ended)));
        slot.entry.store(Some(Arc::clone(&entry)));
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stays_as_long_as_a_stream_hangs_on_it() {
        let cache = Cache::default();
        let [idle, streaming]: [AccountKey; 2] =
            ["acme/crm/role:idle", "acme/crm/role:streaming"].map(|key| key.parse().unwrap());
        let place = |key: &AccountKey| cache.0.lock(key).place(key, || Slot::new(key.clone()));
        let stream = Arc::clone(&place(&streaming).ended);
        drop(place(&idle));
        cache.tidy();
        assert_eq!(cache.forget_all(|_| true), [streaming]);
        drop(stream);
        cache.tidy();
        assert_eq!(cache.forget_all(|_| true), []);
    }
}
