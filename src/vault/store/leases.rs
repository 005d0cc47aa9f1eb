//! Leases that end with the process: enough where one process has all accounts.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::id::AccountKey;

/// Who may refresh which account, and until when.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<AccountKey, Lease>);

#[derive(Debug)]
struct Lease {
    fence: u64,
    until: Instant,
}

impl Leases {
    /// Whether nobody has the account.
    pub(super) fn is_free(&self, key: &AccountKey) -> bool {
        self.0.get(key).is_none_or(|lease| lease.until <= Instant::now())
    }

    /// Gives the account away. Whoever had it before has it no more.
    pub(super) fn give(&mut self, key: &AccountKey, fence: u64, ttl: Duration) {
        self.0.insert(key.clone(), Lease { fence, until: Instant::now() + ttl });
    }

    /// Whether this fence is the newest, and was not released. Its time may have run out.
    pub(super) fn is_of(&self, key: &AccountKey, fence: u64) -> bool {
        self.0.get(key).is_some_and(|lease| lease.fence == fence)
    }

    /// Begins the lease's time anew; says whether it is this fence's.
    pub(super) fn renew(&mut self, key: &AccountKey, fence: u64, ttl: Duration) -> bool {
        let lease = self.0.get_mut(key).filter(|lease| lease.fence == fence);
        lease.map(|lease| lease.until = Instant::now() + ttl).is_some()
    }

    /// Takes the lease back, if it is this fence's.
    pub(super) fn release(&mut self, key: &AccountKey, fence: u64) {
        if self.is_of(key, fence) {
            self.end(key);
        }
    }

    /// Takes the account's lease back, whoever has it.
    pub(super) fn end(&mut self, key: &AccountKey) {
        self.0.remove(key);
    }
}
