//! Room of which nobody takes more than a part.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// How much of some room each has taken.
pub struct Shares<K> {
    most: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// What one of them has taken, until it is dropped.
#[must_use]
pub struct Share<K: Hash + Eq = IpAddr> {
    of: K,
    amount: usize,
    shares: Shares<K>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// Nobody takes more than this.
    #[must_use]
    pub fn of_at_most(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// The most that one may take.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Takes so much, if one may have so much more.
    pub fn take(&self, of: &K, amount: usize) -> Option<Share<K>> {
        let mut share = Share { of: of.clone(), amount: 0, shares: self.clone() };
        share.grow(amount).then_some(share)
    }
}

impl<K: Hash + Eq + Clone> Share<K> {
    /// Takes so much more, if there may be so much more. Says whether there was.
    pub fn grow(&mut self, by: usize) -> bool {
        if by == 0 || by > self.shares.most {
            return by == 0;
        }
        let mut all = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.entry(self.of.clone()).or_default();
        let fits = by <= self.shares.most - *taken;
        if fits {
            *taken += by;
            self.amount += by;
        }
        fits
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut all = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.of) {
            *taken -= self.amount;
            if *taken == 0 {
                all.remove(&self.of);
            }
        }
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self { most: self.most, taken: Arc::clone(&self.taken) }
    }
}

impl<K: Hash + Eq> fmt::Debug for Share<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("amount", &self.amount).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_its_part_and_what_is_given_back_is_its_own_again() {
        let shares = Shares::of_at_most(3);
        let one = shares.take(&"acme", 1).unwrap();
        let mut more = shares.take(&"acme", 1).unwrap();
        assert!(more.grow(1) && !more.grow(1));
        assert!(shares.take(&"acme", 1).is_none());
        let other = shares.take(&"globex", 3).unwrap();
        drop(one);
        assert!(shares.take(&"acme", 2).is_none());
        drop(shares.take(&"acme", 1).unwrap());
        drop((more, other));
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
