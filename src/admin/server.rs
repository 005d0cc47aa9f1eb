//! Accepting operators: few connections, bounded in time, ended by the drain.

use std::{sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use crate::drain::Drain;

/// More than probes, scrapers and a few people need.
const CONNECTIONS: usize = 64;
/// How long a connection may take for a request's head, and stay open without one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Accepts until the drain begins. Open requests are finished then; idle connections are closed.
pub(super) async fn serve<L>(mut listener: L, router: Router, drain: Drain)
where
    L: Listener<Io: Unpin>,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await.0)
        };
        let (place, io) = tokio::select! {
            accepted = accepted => accepted,
            () = drain.begun() => return,
        };
        let served = connection(io, router.clone(), drain.clone());
        drain.spawn(async move {
            served.await;
            drop(place);
        });
    }
}

async fn connection<I>(io: I, router: Router, drain: Drain)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    if let Err(error) = drain.served(connection).await {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
