//! How much room there is, and how much of it one workload may take.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use governor::{
    Quota, RateLimiter,
    clock::DefaultClock,
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Config;
use crate::{drain::Share, identity::Workload};

/// The part of all connections that one workload may have.
const SHARE: usize = 4;
/// How many watches one connection may have: one, and another while its token is replaced.
const WATCHES: usize = 4;
/// How many workloads are known before those without a connection are forgotten.
const KNOWN: usize = 1024;

/// What each workload takes.
pub(super) struct Rooms {
    connections: usize,
    per_second: NonZeroU32,
    taken: Mutex<HashMap<Workload, Arc<Room>>>,
}

/// What one workload may take.
struct Room {
    connections: Arc<Semaphore>,
    requests: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
}

/// A connection, and whose it is.
#[derive(Default)]
pub(super) struct Peer {
    /// Of the first workload that proved itself on it. Others may not use it.
    place: OnceLock<Place>,
    /// Of its address, until somebody has proved itself: behind one address there may be many workloads.
    share: Mutex<Option<Share>>,
    watches: AtomicUsize,
}

struct Place {
    workload: Workload,
    room: Arc<Room>,
    _taken: OwnedSemaphorePermit,
}

/// One of a connection's watches, until it is dropped.
pub(super) struct WatchPlace(Arc<Peer>);

/// Why there is no room. The text says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// Of connections.
    #[error("this workload has as many connections as it may have")]
    Connections,
    /// Of requests.
    #[error("this workload asks more often than broker.per_second allows")]
    Requests,
    /// Of watches.
    #[error("this connection has as many watches as it may have")]
    Watches,
    /// Another workload proved itself on this connection before.
    #[error("this connection is another workload's: open one of your own")]
    NotYours,
}

impl Rooms {
    pub(super) fn new(config: &Config) -> Self {
        let connections = config.connections.get().div_ceil(SHARE);
        Self { connections, per_second: config.per_second, taken: Mutex::default() }
    }

    fn of(&self, workload: &Workload) -> Arc<Room> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = taken.get(workload) {
            return Arc::clone(room);
        }
        if taken.len() >= KNOWN {
            taken.retain(|_, room| Arc::strong_count(room) > 1);
        }
        let room = Arc::new(Room {
            connections: Arc::new(Semaphore::new(self.connections)),
            requests: RateLimiter::direct(Quota::per_second(self.per_second)),
        });
        taken.insert(workload.clone(), Arc::clone(&room));
        room
    }
}

impl Peer {
    /// Of a connection that has just come.
    pub(super) fn unknown(share: Share) -> Self {
        Self { share: Mutex::new(Some(share)), ..Self::default() }
    }

    /// Whether anybody has proved itself on it.
    pub(super) fn is_known(&self) -> bool {
        self.place.get().is_some()
    }

    /// Lets one request of a workload in that has proved itself.
    pub(super) fn enter(&self, workload: &Workload, rooms: &Rooms) -> Result<(), Full> {
        let place = if let Some(place) = self.place.get() {
            place
        } else {
            let room = rooms.of(workload);
            let taken = Arc::clone(&room.connections).try_acquire_owned();
            let taken = taken.map_err(|_| Full::Connections)?;
            drop(self.share.lock().unwrap_or_else(PoisonError::into_inner).take());
            // Another request may have been first: then its place is kept and this one is given back.
            self.place.get_or_init(|| Place { workload: workload.clone(), room, _taken: taken })
        };
        if place.workload != *workload {
            return Err(Full::NotYours);
        }
        place.room.requests.check().map_err(|_| Full::Requests)
    }

    pub(super) fn watch(self: &Arc<Self>) -> Result<WatchPlace, Full> {
        let place = WatchPlace(Arc::clone(self));
        if self.watches.fetch_add(1, Ordering::Relaxed) < WATCHES { Ok(place) } else { Err(Full::Watches) }
    }
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(connections: usize, per_second: u32) -> Rooms {
        let connections = connections.try_into().unwrap();
        let per_second = per_second.try_into().unwrap();
        Rooms::new(&Config { connections, per_second, ..Config::default() })
    }

    fn workload(name: &str) -> Workload {
        Workload::service_account(&format!("agents/{name}")).unwrap()
    }

    #[test]
    fn one_workload_takes_a_quarter_of_the_connections_and_gives_them_back() {
        let rooms = rooms(8, 100);
        let (crew, other) = (workload("crew"), workload("other"));
        let mut peers: Vec<Peer> = (0..2).map(|_| Peer::default()).collect();
        assert!(peers.iter().all(|peer| peer.enter(&crew, &rooms).is_ok()));
        let one_more = Peer::default();
        assert_eq!(one_more.enter(&crew, &rooms), Err(Full::Connections));
        assert!(!one_more.is_known());
        assert_eq!(Peer::default().enter(&other, &rooms), Ok(()));
        peers.pop();
        assert_eq!(one_more.enter(&crew, &rooms), Ok(()));
        assert!(one_more.is_known());
    }

    #[test]
    fn requests_are_counted_by_workload_over_all_its_connections() {
        let rooms = rooms(100, 3);
        let (one, two) = (Peer::default(), Peer::default());
        let crew = workload("crew");
        for peer in [&one, &two, &one] {
            assert_eq!(peer.enter(&crew, &rooms), Ok(()));
        }
        assert_eq!(two.enter(&crew, &rooms), Err(Full::Requests));
        assert_eq!(Peer::default().enter(&workload("other"), &rooms), Ok(()));
    }

    #[test]
    fn a_connection_is_the_workloads_that_proved_itself_first() {
        let rooms = rooms(100, 100);
        let peer = Peer::default();
        assert_eq!(peer.enter(&workload("crew"), &rooms), Ok(()));
        assert_eq!(peer.enter(&workload("other"), &rooms), Err(Full::NotYours));
    }

    #[test]
    fn a_connection_has_so_many_watches_and_no_more() {
        let peer = Arc::new(Peer::default());
        let mut watches: Vec<_> = (0..WATCHES).map(|_| peer.watch().ok().unwrap()).collect();
        assert_eq!(peer.watch().err(), Some(Full::Watches));
        assert_eq!(peer.watch().err(), Some(Full::Watches), "a refused one takes no place");
        watches.pop();
        assert!(peer.watch().is_ok());
    }

    #[test]
    fn workloads_without_a_connection_are_forgotten_when_there_are_many() {
        let rooms = rooms(100, 100);
        let stays = Peer::default();
        stays.enter(&workload("stays"), &rooms).unwrap();
        for n in 0..KNOWN {
            Peer::default().enter(&workload(&format!("w{n}")), &rooms).unwrap();
        }
        let known = rooms.taken.lock().unwrap();
        assert!(known.len() < 3 && known.contains_key(&workload("stays")), "{}", known.len());
    }
}
