//! Accepting agents: room first, then the connection.

use std::{convert::Infallible, future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    Proxy,
    answer::Answer,
    arrival::Entry,
    connection,
    metrics::Open,
    refusal::{Code, Refusal},
    seat::Seated,
    serve::refuse,
};
use crate::drain::Drain;

/// How many that find no room are told so at the same time; more are closed without a word.
const TOLD: usize = 64;
/// How long one of them may take to send its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failed accept, most often for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The proxy's, for agents that know of it.
    Proxy,
    /// The one that connections are redirected to.
    Transparent,
}

impl Proxy {
    /// Accepts connections until the drain begins. The listeners are closed then; open connections go on.
    ///
    /// `transparent` are those that the system's rules redirect to: one for each IP version, or none.
    pub async fn run(self, agents: TcpListener, transparent: Vec<TcpListener>) {
        let room = Arc::new(Semaphore::new(self.limits.connections));
        let told = Arc::new(Semaphore::new(TOLD));
        loop {
            let (accepted, door) = tokio::select! {
                accepted = agents.accept() => (accepted.map(|(stream, _)| stream), Door::Proxy),
                accepted = any(&transparent) => (accepted, Door::Transparent),
                () = self.drain.begun() => return,
            };
            match accepted.and_then(prepared) {
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
                Ok(stream) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(place) => drop(self.drain.spawn(self.clone().one(stream, door, place))),
                    Err(_) => self.turn_away(stream, door, &told),
                },
            }
        }
    }

    async fn one(self, stream: TcpStream, door: Door, place: OwnedSemaphorePermit) {
        let agent = Seated::new(stream, place, Open::count(&self.metrics.connections));
        match door {
            Door::Proxy => {
                if speaks(agent.stream(), self.limits.idle_timeout, &self.drain).await {
                    connection::sniff(&self, agent, Bytes::new(), Entry::Direct).await;
                }
            }
            // Boxed, so that the connections of the other listener need not have room for it.
            Door::Transparent => Box::pin(self.redirected(agent)).await,
        }
    }

    /// Tells an agent that there is no room, as far as there is room for that. A redirected one is closed: it most
    /// often begins TLS, and would not read HTTP.
    fn turn_away(&self, stream: TcpStream, door: Door, told: &Arc<Semaphore>) {
        self.metrics.turned_away.inc();
        if door == Door::Transparent {
            return;
        }
        let Ok(place) = Arc::clone(told).try_acquire_owned() else { return };
        let proxy = self.clone();
        self.drain.spawn(async move {
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<Response<Answer>, Infallible>(proxy.no_room().await)
            });
            let told = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _told_or_late = timeout(PATIENCE, told).await;
            drop(place);
        });
    }

    async fn no_room(&self) -> Response<Answer> {
        let detail = format!(
            "overloaded: {} connections are open, which is limits.connections; close some or try again",
            self.limits.connections
        );
        refuse(self.record().await, &Refusal::new(Code::Overloaded, detail), &Entry::Direct)
    }
}

/// Whether anything comes before the connection was idle for too long, or the drain begins. HTTP's own limits hold only
/// once it is known which version is spoken.
async fn speaks(stream: &TcpStream, limit: Duration, drain: &Drain) -> bool {
    let mut first = [0]; // readiness alone may be a mistake
    tokio::select! {
        biased; // what is there when the drain begins has come
        comes = timeout(limit, stream.peek(&mut first)) => matches!(comes, Ok(Ok(1))),
        () = drain.begun() => false,
    }
}

/// The next connection that comes to any of them; never, where there are none.
async fn any(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        let accepted = listeners.iter().find_map(|listener| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, |accepted| Poll::Ready(accepted.map(|(stream, _)| stream)))
    })
    .await
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(2);

    /// An agent, and its connection here.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (agent, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_comes_is_not_kept() {
        let (mut agent, ours) = connected().await;
        let drain = Drain::default();
        tokio::time::pause();
        let begun = Instant::now();
        assert!(!speaks(&ours, LIMIT, &drain).await);
        assert!((LIMIT..LIMIT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        tokio::time::resume();
        agent.write_all(b"G").await.unwrap();
        assert!(speaks(&ours, LIMIT, &drain).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_waits_for_nobody_who_says_nothing() {
        let (_agent, ours) = connected().await;
        let drain = Drain::default();
        drain.finish(Duration::ZERO).await;
        let begun = Instant::now();
        assert!(!speaks(&ours, LIMIT, &drain).await);
        assert!(begun.elapsed() < LIMIT);
    }
}
