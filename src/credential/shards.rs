//! A place for each account: found without a lock, made and given up under one that few others share.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::id::AccountKey;

/// A place more or less copies the list of its shard: a tenth of a microsecond for each ten thousand accounts.
const SHARDS: usize = 1024;

/// What stands at a place, and whose it is.
pub(super) trait Placed {
    fn key(&self) -> &AccountKey;
}

/// Places by account.
pub(super) struct Shards<T> {
    shards: Box<[Shard<T>]>,
    hasher: RandomState,
}

/// The places of a few accounts.
struct Shard<T> {
    /// In the order of their hashes.
    places: ArcSwap<Vec<(u64, Arc<T>)>>,
    writing: Mutex<()>,
    /// Counts what was forgotten here, so that what was read before is not remembered after.
    forgotten: AtomicU64,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        let empty = Arc::new(Vec::new());
        let shard = |_| Shard {
            places: ArcSwap::new(Arc::clone(&empty)),
            writing: Mutex::default(),
            forgotten: AtomicU64::default(),
        };
        Self { shards: (0..SHARDS).map(shard).collect(), hasher: RandomState::new() }
    }
}

impl<T: Placed> Shards<T> {
    /// Reads what stands at the account's place. Without a lock.
    pub(super) fn read<R>(&self, key: &AccountKey, read: impl FnOnce(&T) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(key);
        let places = self.shard(hash).places.load();
        find(&places, hash, key).ok().map(|place| read(place))
    }

    /// How much was forgotten where the account is.
    pub(super) fn forgotten(&self, key: &AccountKey) -> u64 {
        self.shard(self.hasher.hash_one(key)).forgotten.load(Ordering::SeqCst)
    }

    /// Keeps all others from writing where the account is.
    pub(super) fn lock(&self, key: &AccountKey) -> Locked<'_, T> {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).lock(hash)
    }

    /// Every shard in turn, locked.
    pub(super) fn each(&self) -> impl Iterator<Item = Locked<'_, T>> {
        self.shards.iter().map(|shard| shard.lock(0))
    }

    fn shard(&self, hash: u64) -> &Shard<T> {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are all that is wanted")]
        let index = hash as usize % SHARDS;
        &self.shards[index]
    }
}

impl<T> Shard<T> {
    fn lock(&self, hash: u64) -> Locked<'_, T> {
        Locked { shard: self, hash, _writing: self.writing.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// A shard that nobody else writes to.
pub(super) struct Locked<'a, T> {
    shard: &'a Shard<T>,
    /// Of the account that it was locked for.
    hash: u64,
    _writing: MutexGuard<'a, ()>,
}

impl<T: Placed> Locked<'_, T> {
    /// How much was forgotten here.
    pub(super) fn forgotten(&self) -> u64 {
        self.shard.forgotten.load(Ordering::SeqCst)
    }

    /// Says that what was read of these accounts before is not to be remembered.
    pub(super) fn forget(&self) {
        self.shard.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    /// All places here.
    pub(super) fn places(&self) -> Vec<Arc<T>> {
        self.shard.places.load().iter().map(|(_, place)| Arc::clone(place)).collect()
    }

    /// The place of the account that this was locked for, made where there is none.
    pub(super) fn place(&self, key: &AccountKey, make: impl FnOnce() -> T) -> Arc<T> {
        let places = self.shard.places.load();
        let at = match find(&places, self.hash, key) {
            Ok(place) => return Arc::clone(place),
            Err(at) => at,
        };
        let place = Arc::new(make());
        let mut more = Vec::with_capacity(places.len() + 1);
        more.extend_from_slice(&places[..at]);
        more.push((self.hash, Arc::clone(&place)));
        more.extend_from_slice(&places[at..]);
        self.shard.places.store(Arc::new(more));
        place
    }

    /// Gives up the places that are not to be kept, and returns them.
    pub(super) fn give_up(&self, is_kept: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let (kept, given_up): (Vec<_>, Vec<_>) =
            self.shard.places.load().iter().cloned().partition(|(_, place)| is_kept(place));
        if !given_up.is_empty() {
            self.shard.places.store(Arc::new(kept));
        }
        given_up.into_iter().map(|(_, place)| place).collect()
    }
}

/// The account's place, or where it would stand.
fn find<'a, T: Placed>(
    places: &'a [(u64, Arc<T>)],
    hash: u64,
    key: &AccountKey,
) -> Result<&'a Arc<T>, usize> {
    let at = places.partition_point(|(other, _)| *other < hash);
    let same = places[at..].iter().take_while(|(other, _)| *other == hash);
    same.map(|(_, place)| place).find(|place| place.key() == key).ok_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Placed for AccountKey {
        fn key(&self) -> &AccountKey {
            self
        }
    }

    fn key(number: usize) -> AccountKey {
        format!("acme/crm/role:r{number}").parse().unwrap()
    }

    /// The places of so many accounts.
    fn places(count: usize) -> Shards<AccountKey> {
        let shards = Shards::default();
        for key in (0..count).map(key) {
            shards.lock(&key).place(&key, || key.clone());
        }
        shards
    }

    #[test]
    fn each_account_has_a_place_of_its_own() {
        let shards = places(10_000);
        assert!((0..10_000).map(key).all(|key| shards.read(&key, AccountKey::clone) == Some(key)));
        assert_eq!(shards.read(&key(10_000), AccountKey::clone), None);
        assert_eq!(shards.each().map(|shard| shard.places().len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn an_account_that_comes_copies_few_of_ten_thousand_others() {
        let longest = places(10_000).each().map(|shard| shard.places().len()).max();
        assert!(longest < Some(40), "{longest:?}");
    }

    #[test]
    fn who_comes_again_finds_the_place_that_was_made() {
        let shards = places(1);
        let place = || shards.lock(&key(0)).place(&key(0), || unreachable!());
        assert!(Arc::ptr_eq(&place(), &place()));
    }

    #[test]
    fn accounts_of_one_hash_are_told_apart() {
        let shard = Shards::<AccountKey>::default();
        let locked = shard.each().next().unwrap();
        let made: Vec<_> = (0..3).map(|number| locked.place(&key(number), || key(number))).collect();
        let found: Vec<_> = (0..3).map(|number| locked.place(&key(number), || unreachable!())).collect();
        assert_eq!((made, locked.places().len()), (found, 3));
    }

    #[test]
    fn a_place_that_is_given_up_leaves_the_others() {
        let shards = places(10_000);
        let given_up = shards.lock(&key(7)).give_up(|place| *place != key(7));
        assert_eq!(given_up, [Arc::new(key(7))]);
        assert_eq!(shards.read(&key(7), AccountKey::clone), None);
        assert_eq!(shards.each().map(|shard| shard.places().len()).sum::<usize>(), 9_999);
    }
}
