//! HTTPS for API servers.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{broker::Settings, certificate, config::Config, review};
use crate::{
    drain::{Drain, Fair, Share},
    telemetry,
    tls::{Served, server_config},
};

/// etcd takes objects up to 1.5 MiB and an API server requests up to 3; a review holds two objects.
const LARGEST_BODY: usize = 8 << 20;
/// API servers wait 30 seconds at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a handshake or a request's head may take, and an HTTP/1.1 connection stay open without one.
const IDLE: Duration = Duration::from_mins(2);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often an HTTP/2 connection is asked whether its other end is there, and how long that may take.
const PING: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(10)];
/// Many more than the API servers of a cluster open. Anybody may connect: one address has a quarter of them.
const CONNECTIONS: usize = 1024;

/// Why the webhook did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
    /// The listener.
    #[error("cannot listen on {address} (webhook.listen); is the port taken?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The broker's address.
    #[error("webhook.broker.url is {0:?}; it must be an https:// URL without a user name")]
    BrokerUrl(String),
    /// The broker's CA.
    #[error(
        "{0} (webhook.broker.roots_file) holds too many certificates to be given to each pod; name the broker's own CA alone"
    )]
    BrokerRoots(PathBuf),
    /// Metrics.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// Listens, and serves until the drain begins. Returns where.
///
/// # Errors
/// [`Error`].
pub async fn start(config: Config, drain: &Drain) -> Result<SocketAddr, Error> {
    let address = config.listen;
    let bind = |source| Error::Bind { address, source };
    let registry = telemetry::registry()?;
    let settings = Settings::open(config)?;
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let config = settings.current();
    let tls = match config.certificate.clone() {
        Some(certificate) => Served::open(certificate, config.key.clone())?.server_config(),
        None => server_config(certificate::keep(config.self_managed.clone(), &registry, drain)?),
    };
    let router = router(settings, registry)?;
    drain.spawn(accept(listener, TlsAcceptor::from(tls), router, drain.clone()));
    Ok(bound)
}

struct Desk {
    settings: Settings,
    reviews: IntCounterVec,
}

fn router(settings: Settings, registry: Registry) -> Result<Router, Error> {
    let reviews = IntCounterVec::new(
        Opts::new("keybearer_admission_reviews_total", "Pods that API servers asked about"),
        &["outcome"],
    )?;
    registry.register(Box::new(reviews.clone()))?;
    Ok(Router::new()
        .route("/mutate", post(mutate))
        .route("/metrics", get(telemetry::metrics).with_state(registry))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Arc::new(Desk { settings, reviews })))
}

async fn mutate(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let refused = |why: String| {
        desk.reviews.with_label_values(&["bad_request"]).inc();
        tracing::warn!(%why, "a review could not be read");
        (StatusCode::BAD_REQUEST, why).into_response()
    };
    let Some(body) = read(request.into_body()).await else {
        return refused(format!("the body did not arrive, or is longer than {LARGEST_BODY} bytes"));
    };
    match review::answer(&body, &desk.settings.current()) {
        Ok((answer, outcome)) => {
            desk.reviews.with_label_values(&[outcome.as_str()]).inc();
            let response = &answer["response"];
            tracing::debug!(uid = %response["uid"], outcome = outcome.as_str(), message = %response["status"]["message"], "reviewed");
            Json(answer).into_response()
        }
        Err(why) => refused(why),
    }
}

async fn read(body: Body) -> Option<bytes::Bytes> {
    let collected = timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await;
    Some(collected.ok()?.ok()?.to_bytes())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, router: Router, drain: Drain) {
    let serve = |stream, share| connection(stream, share, acceptor.clone(), router.clone(), drain.clone());
    drain.accept(Fair::new(listener, CONNECTIONS), CONNECTIONS, serve).await;
}

async fn connection(stream: TcpStream, _share: Share, acceptor: TlsAcceptor, router: Router, drain: Drain) {
    let _ = stream.set_nodelay(true); // it is only faster with it
    let tls = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a TLS handshake failed; is caBundle that of the certificate?");
            return;
        }
        Err(_) => return,
    };
    let builder = builder(tls.get_ref().1.alpn_protocol() == Some(b"h2"));
    let connection = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(router));
    if let Err(error) = drain.served(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn builder(is_h2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING[0]).keep_alive_timeout(PING[1]);
    if is_h2 { builder.http2_only() } else { builder.http1_only() }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;

    /// A client's preface and an empty SETTINGS frame (RFC 9113 §3.4), and not a word after them.
    const SILENT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_whose_other_end_is_gone_gives_its_place_back() {
        let (mut gone, ours) = tokio::io::duplex(64 << 10);
        gone.write_all(SILENT).await.unwrap();
        let service = TowerToHyperService::new(Router::<()>::new());
        let begun = Instant::now();
        let builder = builder(true);
        let served = builder.serve_connection(TokioIo::new(ours), service);
        assert!(timeout(Duration::from_hours(1), served).await.is_ok());
        assert!(begun.elapsed() <= PING[0] + PING[1], "{:?}", begun.elapsed());
        drop(gone);
    }
}
