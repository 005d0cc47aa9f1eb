//! One leaf a name, minted once and kept for half its life.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use prometheus::{IntCounter, Registry};
use quick_cache::{
    Equivalent,
    sync::{Cache, EntryAction, EntryResult},
};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::{Authority, Error, authority::Leaf};
use crate::host::Host;

/// What this module counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    minted: IntCounter,
}

impl Metrics {
    /// Registers `keybearer_leaf_certificates_total`.
    ///
    /// # Errors
    /// If it is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let minted =
            IntCounter::new("keybearer_leaf_certificates_total", "Leaf certificates signed by the CA")?;
        registry.register(Box::new(minted.clone()))?;
        Ok(Self { minted })
    }
}

/// The leaves in use, at most as many as the capacity. A hit takes a read lock and allocates nothing.
pub struct Leaves {
    authority: Arc<Authority>,
    cache: Cache<Key, Leaf>,
    minted: IntCounter,
}

impl Leaves {
    /// An empty cache for `capacity` names. A leaf takes about 2 KiB.
    #[must_use]
    pub fn new(authority: Arc<Authority>, capacity: usize, metrics: &Metrics) -> Self {
        Self { authority, cache: Cache::new(capacity), minted: metrics.minted.clone() }
    }

    /// The leaf of a host: from the cache, or minted (about 0.1 ms). Of many who ask at once, one mints and
    /// the others wait for it.
    ///
    /// # Errors
    /// [`Error::Mint`], or [`Error::Expired`] once the CA has.
    pub fn for_host(&self, host: &Host) -> Result<Arc<CertifiedKey>, Error> {
        self.at(host, OffsetDateTime::now_utc())
    }

    /// The leaf for a server name as a client sent it; `None` for one that is no host in one reading.
    pub(super) fn for_server_name(&self, sni: &str) -> Option<Result<Arc<CertifiedKey>, Error>> {
        let now = OffsetDateTime::now_utc();
        match self.kept(&Destination::Name(sni), now) {
            Some(certified) => Some(Ok(certified)),
            None => Host::parse(sni).ok().map(|host| self.at(&host, now)),
        }
    }

    fn at(&self, host: &Host, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, Error> {
        if let Some(certified) = self.kept(&Destination::from(host), now) {
            return Ok(certified);
        }
        let fresh_or_replaced = |_: &Key, leaf: &mut Leaf| {
            if leaf.is_fresh(now) {
                return EntryAction::Retain(leaf.certified.clone());
            }
            EntryAction::ReplaceWithGuard
        };
        match self.cache.entry(&Key(host.clone()), None, fresh_or_replaced) {
            EntryResult::Retained(certified) => Ok(certified),
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => {
                let leaf = self.mint(host, now)?;
                let _evicted_meanwhile = guard.insert(leaf.clone());
                Ok(leaf.certified)
            }
            // Neither is asked for above; a leaf that nobody keeps is right all the same.
            EntryResult::Removed(..) | EntryResult::Timeout => Ok(self.mint(host, now)?.certified),
        }
    }

    fn kept(&self, destination: &Destination<'_>, now: OffsetDateTime) -> Option<Arc<CertifiedKey>> {
        self.cache.get(destination).filter(|leaf| leaf.is_fresh(now)).map(|leaf| leaf.certified)
    }

    fn mint(&self, host: &Host, now: OffsetDateTime) -> Result<Leaf, Error> {
        let leaf = self.authority.mint(host, now)?;
        self.minted.inc();
        Ok(leaf)
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves").field("kept", &self.cache.len()).finish_non_exhaustive()
    }
}

/// A host as the cache keeps it, to be found by a [`Destination`].
#[derive(Clone, PartialEq, Eq)]
struct Key(Host);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Destination::from(&self.0).hash(state);
    }
}

/// A host as it is asked for: borrowed, so that asking does not allocate.
#[derive(PartialEq, Eq, Hash)]
enum Destination<'a> {
    Name(&'a str),
    Ip(IpAddr),
}

impl<'a> From<&'a Host> for Destination<'a> {
    fn from(host: &'a Host) -> Self {
        match host {
            Host::Name(name) => Self::Name(name),
            Host::Ip(ip) => Self::Ip(*ip),
        }
    }
}

impl Equivalent<Key> for Destination<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == Destination::from(&key.0)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Barrier, thread};

    use time::Duration;

    use super::*;

    fn leaves(capacity: usize) -> Leaves {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Leaves::new(Arc::new(Authority::open(None).unwrap()), capacity, &metrics)
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn a_thundering_herd_mints_once() {
        let leaves = leaves(16);
        let start = Barrier::new(64);
        let ask = || {
            start.wait();
            leaves.for_host(&host("api.github.com")).unwrap()
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(leaves.minted.get(), 1);
        assert!(answers.iter().all(|leaf| Arc::ptr_eq(leaf, &answers[0])));
    }

    #[test]
    fn a_herd_at_half_life_mints_once_more() {
        let leaves = leaves(16);
        let old = leaves.for_host(&host("a.test")).unwrap();
        let later = OffsetDateTime::now_utc() + Duration::hours(13);
        let start = Barrier::new(16);
        let ask = || {
            start.wait();
            leaves.at(&host("a.test"), later).unwrap()
        };
        thread::scope(|scope| {
            for thread in (0..16).map(|_| scope.spawn(ask)).collect::<Vec<_>>() {
                assert!(!Arc::ptr_eq(&thread.join().unwrap(), &old));
            }
        });
        assert_eq!(leaves.minted.get(), 2);
    }

    #[test]
    fn a_server_name_finds_the_leaf_of_its_host_in_every_spelling() {
        let leaves = leaves(16);
        let leaf = leaves.for_host(&host("api.github.com")).unwrap();
        for sni in ["api.github.com", "API.github.com", "api.github.com."] {
            assert!(Arc::ptr_eq(&leaves.for_server_name(sni).unwrap().unwrap(), &leaf), "{sni}");
        }
        assert!(leaves.for_server_name("a..b").is_none());
        assert_eq!(leaves.minted.get(), 1);
    }

    #[test]
    fn no_two_leaves_share_a_key() {
        let authority = Arc::new(Authority::open(None).unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let [one, other] = [(); 2].map(|()| Leaves::new(authority.clone(), 16, &metrics));
        let keys: HashSet<_> = [(&one, "a.test"), (&one, "b.test"), (&one, "127.0.0.1"), (&other, "a.test")]
            .map(|(leaves, name)| leaves.for_host(&host(name)).unwrap().key.public_key().unwrap().to_vec())
            .into();
        assert_eq!(keys.len(), 4);
    }

    #[test]
    fn names_beyond_the_capacity_push_others_out() {
        let leaves = leaves(8);
        for n in 0..100 {
            leaves.for_host(&host(&format!("n{n}.test"))).unwrap();
        }
        assert!(leaves.cache.len() <= 8);
    }
}
