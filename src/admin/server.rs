//! Accepting operators: few connections, bounded in time, ended by the drain.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::net::Listener;

use crate::drain::Drain;

/// More than probes, scrapers and a few people need. Where anybody may connect, one address has a quarter of them.
pub(super) const CONNECTIONS: usize = 256;
/// How long a connection may take for a request's head, and stay open without one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Accepts until the drain begins. Open requests are finished then; idle connections are closed.
pub(super) async fn serve<L>(listener: L, router: Router, drain: Drain)
where
    L: Listener<Io: Unpin + Send + 'static, Addr: Send + 'static>,
{
    drain.accept(listener, CONNECTIONS, |io, from| connection(io, from, router.clone(), drain.clone())).await;
}

async fn connection<I, A>(io: I, _from: A, router: Router, drain: Drain)
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
