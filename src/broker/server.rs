//! HTTPS for sidecars.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{Broker, Door, metrics::Open, room::Peer};
use crate::drain::Fair;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection stays open on which no workload has proved itself.
const UNPROVEN: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection stays open without a request, or within its head.
const IDLE: Duration = Duration::from_mins(2);
/// How often an HTTP/2 connection is asked whether its other end is there, and how long that may take.
const PING: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(10)];
/// The largest head. A workload's token is about 1 KiB.
const HEAD: usize = 16 << 10;
/// What one connection may have open at the same time.
const STREAMS: u32 = 128;
/// What may wait to be taken by a stream's reader, or by us.
const BUFFER: u32 = 64 << 10;

/// Accepts until the drain begins.
pub(super) async fn accept(door: Door, broker: Broker) {
    let Door { listener, certificate, .. } = door;
    let acceptor = TlsAcceptor::from(certificate.server_config());
    let router = broker.clone().router();
    let serve = |stream, share| {
        connection(stream, Peer::unknown(share), acceptor.clone(), router.clone(), broker.clone())
    };
    let room = broker.0.config.connections.get();
    broker.parts().drain.accept(Fair::new(listener, room), room, serve).await;
}

async fn connection(stream: TcpStream, peer: Peer, acceptor: TlsAcceptor, router: Router, broker: Broker) {
    let metrics = &broker.parts().metrics;
    let _open = Open::count(&metrics.connections);
    let _ = stream.set_nodelay(true); // it is only faster with it
    let tls = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            metrics.handshakes_failed.inc();
            tracing::info!(%error, "a TLS handshake failed; does the sidecar trust the certificate's issuer?");
            return;
        }
        Err(_) => return,
    };
    let peer = Arc::new(peer);
    let builder = builder(tls.get_ref().1.alpn_protocol() == Some(b"h2"));
    let service = TowerToHyperService::new(router.layer(Extension(Arc::clone(&peer))));
    let served = broker.parts().drain.served(builder.serve_connection(TokioIo::new(tls), service));
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        },
        () = unproven(&peer) => tracing::info!("a connection was closed on which no workload had proved itself"),
    }
}

/// Ends when nobody has proved itself for too long, or else never.
async fn unproven(peer: &Peer) {
    sleep(UNPROVEN).await;
    if peer.is_known() {
        std::future::pending::<()>().await;
    }
}

fn builder(is_h2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING[0])
        .keep_alive_timeout(PING[1])
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(BUFFER)
        .initial_connection_window_size(BUFFER * 4)
        .max_send_buf_size(BUFFER as usize);
    if is_h2 { builder.http2_only() } else { builder.http1_only() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{Config, room::Rooms},
        identity::Workload,
    };

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nobody_proves_itself_is_not_kept() {
        let peer = Peer::default();
        assert!(timeout(UNPROVEN + Duration::from_secs(1), unproven(&peer)).await.is_ok());
        let crew = Workload::service_account("agents/crew").unwrap();
        peer.enter(&crew, &Rooms::new(&Config::default())).unwrap();
        assert!(timeout(Duration::from_hours(24), unproven(&peer)).await.is_err());
    }
}
