//! Stopping without dropping: who must finish, who is told, how long it may take.

use std::{future::Future, pin::pin, time::Duration};

use hyper_util::server::graceful::GracefulConnection;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Every task is spawned through one of these, so that a stop waits for them all. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Spawns a task that [`Drain::finish`] waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Spawns a task that ends when its last user does, such as an upstream connection's: [`Drain::finish`]
    /// does not wait for it.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns without tracking")]
    pub fn detach<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(tokio::spawn(task));
    }

    /// Runs blocking work off the async workers; [`Drain::finish`] waits for it.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tasks.spawn_blocking(work)
    }

    /// Serves a connection to its end. Once the stop has begun, what it has begun is finished and no more is taken.
    ///
    /// # Errors
    /// What the connection ends with.
    pub async fn served<C: GracefulConnection>(&self, connection: C) -> Result<(), C::Error> {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    /// Completes when the stop has begun: take no new work, finish what is open.
    pub async fn begun(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether the stop has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Begins the stop and waits for every task, at most `limit`. Returns how many were still open then.
    pub async fn finish(&self, limit: Duration) -> usize {
        self.stopping.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
        self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_tasks_and_counts_those_that_do_not_end() {
        let drain = Drain::default();
        let told = drain.clone();
        drain.spawn(async move { told.begun().await });
        assert_eq!(drain.finish(Duration::from_secs(1)).await, 0);

        let stuck = Drain::default();
        stuck.spawn(std::future::pending::<()>());
        assert_eq!(stuck.finish(Duration::from_secs(1)).await, 1);
    }
}
