//! Being told to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

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

    /// Returns when either has come; once for each.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
