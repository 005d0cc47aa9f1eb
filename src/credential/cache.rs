//! What requests read without a lock: each account's credential, and until when it may be used.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Closed, Credential, Trouble, refresh::Used};
use crate::{catalog::Connector, id::AccountKey, vault::Account};

/// Read without a lock; written under one.
#[derive(Default)]
pub(super) struct Cache {
    slots: ArcSwap<HashMap<AccountKey, Arc<Slot>>>,
    writing: Mutex<()>,
    /// Counts what was forgotten, so that what was read before is not remembered after.
    forgotten: AtomicU64,
}

/// An account's place. It stays through all changes of the account's secret, so that a freeze also ends streams which
/// an earlier one opened.
#[derive(Default)]
struct Slot {
    entry: ArcSwapOption<Entry>,
    ended: CancellationToken,
}

/// What is known of an account.
pub(super) struct Entry {
    pub(super) account: Account,
    /// The connector as it was when the headers were made: another policy set makes them anew.
    pub(super) connector: Arc<Connector>,
    /// What requests are given, or why they are given nothing.
    pub(super) given: Result<Arc<Credential>, Withheld>,
    /// Not after this.
    pub(super) until: Option<Instant>,
    /// When to begin to replace it, and when it was obtained.
    pub(super) due: Option<(Instant, Timestamp)>,
    is_replaced: AtomicBool,
    pub(super) used: Option<Used>,
}

/// What was read of an account, before anybody shares it.
pub(super) struct Draft {
    pub(super) account: Account,
    pub(super) connector: Arc<Connector>,
    pub(super) given: Result<Credential, Withheld>,
    pub(super) until: Option<Instant>,
    pub(super) due: Option<(Instant, Timestamp)>,
    pub(super) used: Option<Used>,
}

impl Draft {
    fn entry(self, ended: CancellationToken) -> Entry {
        let Self { account, connector, given, until, due, used } = self;
        let given = given.map(|credential| Arc::new(Credential { ended, ..credential }));
        Entry { account, connector, given, until, due, is_replaced: AtomicBool::new(false), used }
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
        Arc::ptr_eq(&self.connector, connector) && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Notes that a request uses it, and says whether it is the first one. Writing costs other cores their copy, so
    /// only that one does.
    pub(super) fn touch(&self) -> bool {
        let used = self.used.as_ref().filter(|used| !used.load(Ordering::Relaxed));
        used.is_some_and(|used| !used.swap(true, Ordering::Relaxed))
    }

    /// When the token was obtained, if the time has come to replace it; once.
    pub(super) fn falls_due(&self) -> Option<Timestamp> {
        let (_, obtained) = self.due.filter(|(due, _)| *due <= Instant::now())?;
        (!self.is_replaced.swap(true, Ordering::Relaxed)).then_some(obtained)
    }
}

impl Cache {
    /// What is known of an account.
    pub(super) fn get(&self, key: &AccountKey) -> Option<Arc<Entry>> {
        self.slots.load().get(key)?.entry.load_full()
    }

    /// What [`Cache::remember`] compares with.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// Forgets what is known of accounts, and names them. Their places stay, with the streams that hang on them.
    pub(super) fn forget(&self, is_meant: impl Fn(&AccountKey) -> bool) -> Vec<AccountKey> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        let slots = self.slots.load();
        let meant = slots.iter().filter(|(key, _)| is_meant(key));
        meant
            .map(|(key, slot)| {
                slot.entry.store(None);
                key.clone()
            })
            .collect()
    }

    /// Gives the places of accounts up, and ends their streams. Whoever has become usable meanwhile begins anew.
    pub(super) fn end(&self, keys: &[AccountKey]) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        let mut slots = HashMap::clone(&self.slots.load());
        for slot in keys.iter().filter_map(|key| slots.remove(key)) {
            slot.ended.cancel();
        }
        self.slots.store(Arc::new(slots));
    }

    /// Keeps what was read, unless an account changed since: then it must be read again. Who comes second takes what
    /// the first one kept, so that all requests share one credential.
    pub(super) fn remember(&self, draft: Draft, before: u64) -> Option<Arc<Entry>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.forgotten() != before {
            return None;
        }
        let slot = self.slot(&draft.account.key);
        if let Some(kept) = slot.entry.load_full()
            && kept.account.generation == draft.account.generation
            && kept.serves(&draft.connector)
        {
            return Some(kept);
        }
        let entry = Arc::new(draft.entry(slot.ended.clone()));
        slot.entry.store(Some(Arc::clone(&entry)));
        Some(entry)
    }

    /// The account's place, made where there is none.
    fn slot(&self, key: &AccountKey) -> Arc<Slot> {
        let slots = self.slots.load();
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        let slot = Arc::<Slot>::default();
        let mut slots = HashMap::clone(&slots);
        slots.insert(key.clone(), Arc::clone(&slot));
        self.slots.store(Arc::new(slots));
        slot
    }
}
