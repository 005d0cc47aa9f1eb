//! The CRM that the demo's agents call: HTTPS on loopback, a root of its own, and a memory of what it received.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{drain::Drain, secret::Secret};

/// The provider's name. Only the demo's own proxy knows an address of it.
pub(super) const HOST: &str = "crm.demo.test";

/// A key that the provider has given out.
pub(super) struct Key {
    /// Whose records it opens.
    pub(super) tenant: &'static str,
    /// The keybearer account that holds it.
    pub(super) account: String,
    pub(super) secret: Secret,
}

/// One request as the provider received it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Received {
    pub(super) method: String,
    pub(super) path: String,
    /// Every `Authorization` header, masked.
    pub(super) authorization: Vec<String>,
    /// The account whose key it carried.
    pub(super) account: Option<String>,
}

/// A running provider.
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    /// The root that its certificate is to be checked by, PEM.
    pub(super) root: String,
    crm: Arc<Crm>,
}

struct Crm {
    keys: Vec<Key>,
    received: Mutex<Vec<Received>>,
}

impl Provider {
    /// Listens on a free port of 127.0.0.1.
    pub(super) async fn start(keys: Vec<Key>, drain: &Drain) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let (root, tls) = certified()?;
        let crm = Arc::new(Crm { keys, received: Mutex::default() });
        drain.detach(accept(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&crm), drain.clone()));
        Ok(Self { address, root, crm })
    }

    /// Every request so far, in order of arrival.
    pub(super) fn received(&self) -> Vec<Received> {
        self.crm.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A root, and a server with a certificate of its.
fn certified() -> anyhow::Result<(String, ServerConfig)> {
    let mut root = CertificateParams::new(Vec::new())?;
    root.distinguished_name.push(DnType::CommonName, "keybearer demo: the provider's root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![HOST.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, HOST);
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let chain = vec![leaf.signed_by(&key, &root)?.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((root.pem(), server))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, crm: Arc<Crm>, drain: Drain) {
    while let Ok((socket, _)) = listener.accept().await {
        drain.detach(serve(socket, tls.clone(), Arc::clone(&crm)));
    }
}

async fn serve(socket: TcpStream, tls: TlsAcceptor, crm: Arc<Crm>) {
    let _ = socket.set_nodelay(true);
    let Ok(stream) = tls.accept(socket).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = crm.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

impl Crm {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let values: Vec<Secret> =
            request.headers().get_all(header::AUTHORIZATION).iter().map(token).collect();
        let key = match values.as_slice() {
            [only] => self.keys.iter().find(|key| key.secret == *only),
            _ => None,
        };
        let path = request.uri().path().to_owned();
        let (status, body) = match key {
            Some(key) => records(key, request.method(), &path),
            None => (StatusCode::UNAUTHORIZED, json!({"message": "the CRM knows no such key"})),
        };
        let received = Received {
            method: request.method().to_string(),
            path,
            authorization: values.iter().map(|value| format!("Bearer {}", value.masked())).collect(),
            account: key.map(|key| key.account.clone()),
        };
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        let mut response = Response::new(Full::from(format!("{body}\n")));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn token(value: &HeaderValue) -> Secret {
    let value = value.as_bytes();
    Secret::new(value.strip_prefix(b"Bearer ").unwrap_or(value).to_vec())
}

fn records(key: &Key, method: &Method, path: &str) -> (StatusCode, Value) {
    match (method.as_str(), path) {
        ("GET", "/v1/deals") => {
            (StatusCode::OK, json!({"customer": key.tenant, "deals": [{"id": 7, "stage": "negotiation"}]}))
        }
        ("POST", "/v1/deals/7/notes") => (StatusCode::CREATED, json!({"customer": key.tenant, "note": 1})),
        ("PATCH", "/v1/deals/7") => {
            (StatusCode::OK, json!({"customer": key.tenant, "id": 7, "stage": "won"}))
        }
        _ => (StatusCode::NOT_FOUND, json!({"message": "the CRM has no such record"})),
    }
}
