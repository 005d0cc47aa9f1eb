//! One attempt at a time for an account, however many wait for it (F1).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Trouble, bucket::Priority};
use crate::{drain::Drain, id::AccountKey};

/// What an attempt comes to: the account may be read again, or why that is no use yet.
pub(super) type Landing = Result<(), Trouble>;

/// The attempts under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<AccountKey, Flight>>);

/// An attempt under way, to wait for.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    landing: watch::Receiver<Option<Landing>>,
    urgent: Arc<Notify>,
}

impl Flight {
    /// Waits for its end.
    pub(super) async fn landed(mut self) -> Landing {
        match self.landing.wait_for(Option::is_some).await {
            Ok(landing) => landing.unwrap_or(Err(Trouble::Interrupted)),
            Err(_) => Err(Trouble::Interrupted),
        }
    }
}

impl Flights {
    /// The account's attempt: the one under way, or else `attempt` in a task of its own, which nobody who waits for
    /// it can abort. One that was begun in the background and now has somebody waiting for it is told so.
    pub(super) fn join<F>(
        self: &Arc<Self>,
        key: &AccountKey,
        priority: Priority,
        drain: &Drain,
        attempt: impl FnOnce(Arc<Notify>) -> F,
    ) -> Flight
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(key) {
            if priority == Priority::Demand {
                flight.urgent.notify_one();
            }
            return flight.clone();
        }
        let urgent = Arc::new(Notify::new());
        let (told, landing) = watch::channel(None);
        let attempt = attempt(Arc::clone(&urgent));
        let end = End { flights: Arc::clone(self), key: key.clone() };
        drain.spawn(async move {
            let landing = attempt.await;
            drop(end); // first: who asks after the landing begins another attempt
            told.send_replace(Some(landing));
        });
        let flight = Flight { landing, urgent };
        flights.insert(key.clone(), flight.clone());
        flight
    }

    /// The account's attempt, if one is under way.
    pub(super) fn of(&self, key: &AccountKey) -> Option<Flight> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountKey, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the attempt out of the table when it ends, also by a panic.
struct End {
    flights: Arc<Flights>,
    key: AccountKey,
}

impl Drop for End {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;

    fn key() -> AccountKey {
        "acme/crm/tenant".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_an_attempt_is_under_way_joins_it_and_who_comes_after_begins_another() {
        let (flights, drain, count) =
            (Arc::<Flights>::default(), Drain::default(), Arc::<AtomicU32>::default());
        let join = || {
            let count = Arc::clone(&count);
            flights.join(&key(), Priority::Demand, &drain, |_| async move {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            })
        };
        let all: Vec<Flight> = (0..64).map(|_| join()).collect();
        for flight in all {
            assert_eq!(flight.landed().await, Ok(()));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(join().landed().await, Ok(()));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_panics_lets_those_go_who_wait_and_the_next_one_begin() {
        let (flights, drain) = (Arc::<Flights>::default(), Drain::default());
        let broken = flights.join(&key(), Priority::Demand, &drain, |_| async { panic!("on purpose") });
        assert_eq!(broken.landed().await, Err(Trouble::Interrupted));
        assert!(flights.of(&key()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_background_attempt_is_told_when_a_request_waits_for_it() {
        let (flights, drain) = (Arc::<Flights>::default(), Drain::default());
        let ahead = flights.join(&key(), Priority::Ahead, &drain, |urgent| async move {
            urgent.notified().await;
            Ok(())
        });
        let demand = flights.join(&key(), Priority::Demand, &drain, |_| async { Err(Trouble::Interrupted) });
        assert_eq!(demand.landed().await, Ok(()));
        assert_eq!(ahead.landed().await, Ok(()));
    }
}
