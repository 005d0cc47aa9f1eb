//! Being told to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, output::say};

/// SIGINT (Ctrl-C) and SIGTERM. From when they are listened for, they no longer end the process by themselves, and none
/// that comes is lost.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(super) fn listen() -> Result<Self, Failure> {
        let cannot = |error| Failure::new(format!("cannot listen for signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate()).map_err(cannot)? })
    }

    /// Waits until it is told, then for `stopping`, which says how many tasks were still open when its time was up.
    ///
    /// # Errors
    /// Where it is told again before that.
    pub(super) async fn then(mut self, stopping: impl Future<Output = usize>) -> Result<(), Failure> {
        self.told().await;
        say("stopping: open requests may finish, a second signal ends them");
        let open = tokio::select! {
            open = stopping => open,
            () = self.told() => return Err(Failure::new("stopped before open requests had finished")),
        };
        if open > 0 {
            say(format!("warning: limits.drain was over before {open} connections and requests had ended"));
        }
        Ok(())
    }

    /// Returns when either has come; once for each.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
