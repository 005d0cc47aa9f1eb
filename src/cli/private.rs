//! The proxy of one command: our own, or the running one that has the vault.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{Failure, served::Served};
use crate::{admin::Client, config::Config, drain::Drain, vault};

/// How long what the command left behind may go on using the proxy.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// How long a running proxy may take to say what its CA is, and how long that may be in bytes.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_CA: usize = 64 * 1024;

/// A proxy for one command.
pub(super) struct Private {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What is to be trusted.
    pub(super) ca_pem: String,
    app: Option<Served>,
}

impl Private {
    /// Starts one on free ports of 127.0.0.1; where a proxy is running over the same vault, uses that.
    pub(super) async fn start(mut config: Config) -> Result<Self, Failure> {
        let data_dir = config.data_dir.clone();
        let owner = Drain::default().spawn_blocking(move || vault::owner(&data_dir)).await;
        let unread = |error: String| {
            Failure::new(format!("cannot see who has {}: {error}", config.data_dir.display()))
        };
        let owner =
            owner.map_err(|error| unread(error.to_string()))?.map_err(|error| unread(error.to_string()))?;
        if let Some(owner) = owner {
            return Self::running(&config, &owner.to_string()).await;
        }
        // A vault in a database or at a broker is nobody's own, but the rest of the data directory is.
        if matches!(config.vault.backend, vault::Backend::Postgres | vault::Backend::Broker)
            && Client::find(&config.admin_socket(), &Drain::default()).await?.is_some()
        {
            return Self::running(&config, "another proxy").await;
        }
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        (config.listen.proxy, config.listen.admin) = (anywhere, anywhere);
        config.listen.transparent = None; // what the system redirects is not this command's alone
        config.limits.drain = config.limits.drain.min(AFTERWARDS);
        let app = Served::start(config, "keybearer run").await?;
        Ok(Self { address: app.proxy(), ca_pem: app.ca_pem().to_owned(), app: Some(app) })
    }

    async fn running(config: &Config, owner: &str) -> Result<Self, Failure> {
        let address = config.listen.proxy;
        let failure = |why: &str| {
            Failure::new(format!("{owner} has the vault in {}, and {why}", config.data_dir.display()))
                .hint("several commands can share one `keybearer proxy` with a fixed listen.proxy; or set another data_dir")
        };
        if address.port() == 0 {
            return Err(failure("listen.proxy has no port to find it by"));
        }
        let ca_pem = timeout(PATIENCE, ca_of(address)).await.ok().and_then(Result::ok);
        let ca_pem = ca_pem.ok_or_else(|| failure(&format!("no proxy answers at {address}")))?;
        Ok(Self { address, ca_pem, app: None })
    }

    /// Stops the proxy if it is our own.
    pub(super) async fn stop(self) {
        if let Some(app) = self.app {
            app.stop().await;
        }
    }
}

/// Asks a proxy for its CA, which it tells to everyone.
async fn ca_of(address: SocketAddr) -> anyhow::Result<String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    Drain::default().detach(async move {
        let _ = connection.await; // the request tells what went wrong
    });
    let request = Request::get("http://keybearer.internal/ca.pem").header(header::HOST, "keybearer.internal");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    anyhow::ensure!(response.status() == StatusCode::OK, "answered {}", response.status());
    let body = Limited::new(response.into_body(), LARGEST_CA).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    let pem = String::from_utf8(body.into())?;
    anyhow::ensure!(pem.contains("BEGIN CERTIFICATE"), "answered something else");
    Ok(pem)
}
