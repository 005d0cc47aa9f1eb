//! Stopping without dropping: who must finish, who is told, how long it may take.

mod fair;
mod shares;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use hyper_util::server::graceful::GracefulConnection;
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{net::Listener, sync::CancellationToken, task::TaskTracker};

pub use self::{
    fair::Fair,
    shares::{Share, Shares},
};

/// After a failed accept, most often for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

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

    /// Accepts until the stop has begun: room first, then the connection. Each is served by a task of its own, at most
    /// `room` at the same time.
    pub async fn accept<L, S>(&self, mut listener: L, room: usize, serve: impl Fn(L::Io, L::Addr) -> S)
    where
        L: Listener,
        S: Future<Output = ()> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(room));
        loop {
            let accepted = async {
                let place = Arc::clone(&room).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = self.begun() => return,
            };
            match accepted {
                Ok((io, from)) => {
                    let served = serve(io, from);
                    self.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(BREATH).await;
                }
            }
        }
    }

    /// Serves a connection to its end. Once the stop has begun, what it has begun is finished and no more is taken.
    ///
    /// # Errors
    /// What the connection ends with.
    pub async fn served<C: GracefulConnection>(&self, connection: C) -> Result<(), C::Error> {
        self.served_until(connection, std::future::pending(), Duration::MAX).await
    }

    /// The same, and ends it when it is `over`: what it has begun then has so much time, and no more is taken.
    ///
    /// # Errors
    /// What the connection ends with.
    pub async fn served_until<C: GracefulConnection>(
        &self,
        connection: C,
        over: impl Future<Output = ()>,
        patience: Duration,
    ) -> Result<(), C::Error> {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = over => {
                connection.as_mut().graceful_shutdown();
                timeout(patience, connection).await.unwrap_or(Ok(()))
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
        let _ = timeout(limit, self.tasks.wait()).await;
        self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        task::{Context, Poll},
    };

    use tokio::io::{Empty, empty};

    use super::*;

    /// What comes to a listener, the last first.
    struct Crowd(Vec<io::Result<(Empty, ())>>);

    impl Listener for Crowd {
        type Io = Empty;
        type Addr = ();

        fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(Empty, ())>> {
            self.0.pop().map_or(Poll::Pending, Poll::Ready)
        }

        fn local_addr(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_served_than_there_is_room_for_and_a_failed_accept_is_not_the_last() {
        let comes = || Ok((empty(), ()));
        let crowd = Crowd(vec![comes(), comes(), Err(io::ErrorKind::Other.into()), comes()]);
        let (drain, leave) = (Drain::default(), Arc::new(Semaphore::new(0)));
        let (came, seen) = tokio::sync::mpsc::unbounded_channel();
        let (accepting, leaves) = (drain.clone(), Arc::clone(&leave));
        let serve = move |_, ()| {
            came.send(()).unwrap();
            let leaves = Arc::clone(&leaves);
            async move { leaves.acquire().await.unwrap().forget() }
        };
        drain.spawn(async move { accepting.accept(crowd, 2, serve).await });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.len(), 2, "one before the failure and one after it");
        leave.add_permits(1);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.len(), 3);
        leave.add_permits(2);
        assert_eq!(drain.finish(Duration::from_secs(1)).await, 0);
    }

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
