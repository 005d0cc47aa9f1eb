//! Transparent mode, in pods made of network namespaces: agents that know of no proxy, our own rules, real names at
//! public addresses, another user for the sidecar. Where namespaces may not be made, each test says that it is skipped.

use std::{sync::Arc, time::Duration};

use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keybearer::{drain::Drain, id::Principal};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    clients::proxy,
    support::{
        agent::{Answer, Body, Connection, http_over, identity, inside},
        pod::{Making, Pod},
        stage::{SECRETS, account},
    },
};

pub(crate) mod clients;
mod destinations;
mod neighbours;
mod rules;
mod tunnels;

/// Where the provider of most tests is, under its name and in truth.
const HOST: &str = "api.provider.test";
const ADDRESS: &str = "140.82.121.6:443";
/// Longer than anything here takes to end.
const LIMIT: Duration = Duration::from_secs(30);

/// A pod with the clients' connectors.
async fn pod(test: &str, egress: &'static str, config: &'static str) -> Option<Pod> {
    let (policies, accounts) = (proxy::policies(), proxy::accounts());
    Pod::start(test, Making { policies, accounts, egress, config, ..Making::default() }).await
}

/// A pod with one account, for tests of what is refused.
async fn small_pod(test: &str, redirect: &'static [&'static str]) -> Option<Pod> {
    Pod::start(test, Making { redirect, ..small() }).await
}

fn small() -> Making {
    let accounts = vec![account("acme", "plain", Principal::Tenant, SECRETS[0].1)];
    Making { policies: proxy::policies(), accounts, ..Making::default() }
}

/// TLS to an address, with a server name of the test's choice (an address makes none), trusting only `roots`.
async fn tls(
    pod: &Pod,
    address: &str,
    name: &str,
    trusting: (&str, std::path::PathBuf),
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_over(pod.connect(address), name, trusting).await
}

async fn tls_over(
    stream: TcpStream,
    name: &str,
    (alpn, roots): (&str, std::path::PathBuf),
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_file(roots).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// HTTP inside TLS that the proxy ended.
async fn https(pod: &Pod, address: &str, name: &str, alpn: &str) -> Connection {
    http_over(tls(pod, address, name, (alpn, pod.ca_file())).await.unwrap()).await
}

/// HTTP without TLS.
async fn http(pod: &Pod, address: &str) -> Connection {
    let io = TokioIo::new(pod.connect(address));
    let (sender, connection) = http1::handshake(io).await.unwrap();
    Drain::default().spawn(connection.with_upgrades());
    Connection::One(sender)
}

/// A GET as the researcher of acme.
async fn get(connection: &mut Connection, host: &str, path: &str) -> Answer {
    let request =
        inside(connection, "GET", host, path).header("agent-identity", identity("acme", "researcher"));
    connection.call(request.body(Body::default()).unwrap()).await
}

/// A GET that says nobody's name.
async fn get_as_nobody(connection: &mut Connection, host: &str, path: &str) -> Answer {
    let request: Request<Body> = inside(connection, "GET", host, path).body(Body::default()).unwrap();
    connection.call(request).await
}

/// Status and code.
fn told(answer: &Answer) -> (u16, Option<String>) {
    (answer.status.as_u16(), answer.error())
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

/// Reads to the end of a stream, which is not an error to be cut.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _cut = tokio::time::timeout(LIMIT, stream.read_to_end(&mut bytes)).await.expect("the stream ends");
    bytes
}
