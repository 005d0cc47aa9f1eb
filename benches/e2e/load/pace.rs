//! When a client asks.

use std::time::{Duration, Instant};

use super::Load;

/// The times at which one client asks.
pub(super) enum Pace {
    /// As soon as it has its answer.
    AtOnce,
    /// Every `period`, and next when it is `due`. What is late then counts from when it was due: a proxy that keeps clients
    /// waiting does not get fewer requests for it.
    Every { period: Duration, due: Instant },
}

impl Pace {
    /// Clients take turns at equal distances.
    pub(super) fn of(load: &Load, number: usize) -> Self {
        let Some(rate) = load.pace else { return Self::AtOnce };
        let step = Duration::from_secs(1) / rate;
        let of_all = |count: usize| step * u32::try_from(count).unwrap_or(u32::MAX);
        Self::Every { period: of_all(load.clients), due: Instant::now() + of_all(number) }
    }

    /// Waits for the next time, and says when the request was due.
    pub(super) async fn turn(&mut self) -> Instant {
        let Self::Every { period, due } = self else { return Instant::now() };
        // The runtime's timers count in milliseconds, and would have the clients ask in crowds.
        while Instant::now() < *due {
            tokio::task::yield_now().await;
        }
        let was_due = *due;
        *due += *period;
        was_due
    }

    /// Leaves out the times that passed while the connection was opened.
    pub(super) fn forget_missed(&mut self) {
        let Self::Every { period, due } = self else { return };
        while *due < Instant::now() {
            *due += *period;
        }
    }
}
