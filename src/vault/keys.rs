//! The key-encryption keys at hand: the one that the vault is sealed with, and the one that is to follow it.
//!
//! Which of them it is, only the vault's header says. A process that rotates the key has both at hand until the header
//! and all data keys are re-wrapped, which is one step; another process that shares the store finds its key out of date
//! when a data key does not open, and looks again where keys come from.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{
    Error, Fingerprint, KeyError, KeySource,
    seal::{self, Bound, Key},
};

/// Where keys come from: the vault's, and the one that is to follow it.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) key: KeySource,
    pub(super) next: Option<KeySource>,
}

impl Sources {
    /// All keys that are there, the vault's first. Blocks.
    fn load(&self) -> Vec<Key> {
        let all = [Some(&self.key), self.next.as_ref()];
        all.into_iter().flatten().filter_map(|source| source.load().ok()).collect()
    }

    /// The next key; `None` where there is none yet. Blocks.
    pub(super) fn load_next(&self) -> Result<Option<Key>, KeyError> {
        match self.next.as_ref().map(KeySource::load).transpose() {
            Err(KeyError::NoFile(_) | KeyError::NoValue(_)) => Ok(None),
            loaded => loaded,
        }
    }
}

/// The keys of a vault that is open.
pub(super) struct Keys {
    /// Where another process finds the key that this one sealed the vault with; `None` for a vault in memory.
    sources: Option<Sources>,
    current: ArcSwap<Key>,
    next: ArcSwapOption<Key>,
    /// One rotation at a time has the next key.
    pub(super) rotating: Mutex<()>,
}

impl Keys {
    pub(super) fn new(current: Key, sources: Option<Sources>) -> Self {
        Self {
            sources,
            current: ArcSwap::from_pointee(current),
            next: ArcSwapOption::empty(),
            rotating: Mutex::default(),
        }
    }

    /// Takes the key that opens the header of a vault that is there.
    pub(super) fn fitting(header: &[u8], keys: &[Key], sources: Option<Sources>) -> Result<Self, Error> {
        let header = Header::read(header)?;
        let fitting = keys.iter().find(|key| header.is_of(key)).or_else(|| keys.first());
        let key = fitting.cloned().ok_or(KeyError::Random)?;
        header.check(&key)?;
        Ok(Self::new(key, sources))
    }

    pub(super) fn current(&self) -> Arc<Key> {
        self.current.load_full()
    }

    /// From now on, what is sealed under this key opens, too.
    pub(super) fn expect(&self, next: Key) {
        self.next.store(Some(Arc::new(next)));
    }

    pub(super) fn open(&self, bound: &Bound, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, seal::Error> {
        let opened = self.current.load().open(bound, sealed);
        match (opened, &*self.next.load()) {
            (Err(seal::Error::Forged), Some(next)) => next.open(bound, sealed),
            (opened, _) => opened,
        }
    }

    /// The key with this fingerprint, other than the current one: the one that is to follow, or one that came to be
    /// where keys come from. Blocks.
    pub(super) fn find(&self, wanted: Fingerprint) -> Option<Arc<Key>> {
        let next = self.next.load_full();
        let loaded = || self.sources.as_ref().map(Sources::load).unwrap_or_default();
        next.filter(|next| next.fingerprint() == wanted)
            .or_else(|| loaded().into_iter().find(|key| key.fingerprint() == wanted).map(Arc::new))
    }

    /// Takes a key in the place of the one before, unless somebody has done so: then the header that it was found for
    /// may be an old one.
    pub(super) fn replace(&self, before: &Arc<Key>, by: Arc<Key>) -> bool {
        Arc::ptr_eq(&self.current.compare_and_swap(before, by), before)
    }
}

/// A vault's header: a key's fingerprint, and a sealed text (with the format's version first) that only that key opens.
pub(super) struct Header<'a> {
    /// The key that it says it is of.
    pub(super) of: Fingerprint,
    sealed: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn make(key: &Key) -> Result<Vec<u8>, Error> {
        let sealed =
            key.seal(&Bound::verifier(), b"").map_err(|_| Error::CannotSeal("the header".to_owned()))?;
        Ok([key.fingerprint().as_bytes(), sealed.as_slice()].concat())
    }

    pub(super) fn read(header: &'a [u8]) -> Result<Self, Error> {
        let (of, sealed) =
            header.split_first_chunk().ok_or_else(|| Error::unopened(HEADER, "it is too short"))?;
        Ok(Self { of: Fingerprint::from_bytes(*of), sealed })
    }

    /// Whether it says that it is this key's.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        key.fingerprint() == self.of
    }

    /// Whether it is.
    pub(super) fn check(&self, key: &Key) -> Result<(), Error> {
        if !self.is_of(key) {
            return Err(Error::WrongKey { expected: self.of, found: key.fingerprint() });
        }
        let opened = key.open(&Bound::verifier(), self.sealed);
        opened.map(drop).map_err(|error| Error::unopened(HEADER, error.to_string()))
    }
}

/// What the header is called where it does not open.
pub(super) const HEADER: &str = "the vault's header";
