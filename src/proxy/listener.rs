//! Accepting agents: room first, then the connection.

use std::{convert::Infallible, future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

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
    connection::{self, Protocol},
    metrics::Open,
    refusal::{Code, Refusal},
    serve::refuse,
};

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
        let _open = Open::count(&self.metrics.connections);
        match door {
            Door::Proxy => connection::serve(&self, stream, Entry::Direct, Protocol::Sniffed).await,
            // Boxed, so that the connections of the other listener need not have room for it.
            Door::Transparent => Box::pin(self.redirected(stream)).await,
        }
        drop(place);
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
