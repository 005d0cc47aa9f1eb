//! The issuer of a cluster's service-account tokens, as an API server serves its discovery document and keys: over TLS, to
//! whom it knows.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use keybearer::drain::Drain;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    provider::{TestAuthority, Validity},
    server,
    signer::Signer,
};

/// What the issuer knows the broker by.
pub(crate) const API_TOKEN: &str = "kb-canary-api-server-5b1e";
/// What tokens are for, unless a test says otherwise.
pub(crate) const AUDIENCE: &str = "keybearer";

/// A running issuer.
pub(crate) struct Cluster {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    drain: Drain,
}

struct Shared {
    issuer: String,
    signer: Signer,
    /// How many keys there have been.
    made: usize,
    asked: Vec<&'static str>,
}

type At = State<Arc<Mutex<Shared>>>;

impl Cluster {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start(authority: &TestAuthority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leaf = authority.leaf(&["127.0.0.1".to_owned()], Validity::Current);
        let tls = server::acceptor(leaf, vec![b"http/1.1".to_vec()]);
        let shared = Arc::new(Mutex::new(Shared {
            issuer: format!("https://{address}"),
            signer: Signer::new("k1"),
            made: 1,
            asked: Vec::new(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/openid/v1/jwks", get(keys))
            .with_state(Arc::clone(&shared));
        let drain = Drain::default();
        drain.spawn(server::accept(listener, Some(tls), drain.clone(), router));
        Self { address, shared, drain }
    }

    /// What tokens say in `iss`.
    pub(crate) fn issuer(&self) -> String {
        format!("https://{}", self.address)
    }

    /// An entry of `broker.issuers`, with the authority in `roots.pem` and the token in `api.token`.
    pub(crate) fn entry(&self) -> String {
        let issuer = self.issuer();
        format!("{{issuer: '{issuer}', kind: kubernetes, roots: {{file: roots.pem}}, token_file: api.token}}")
    }

    /// Another key from now on; the one before is gone.
    pub(crate) fn rotate(&self) {
        let mut shared = self.lock();
        shared.made += 1;
        shared.signer = Signer::new(&format!("k{}", shared.made));
    }

    /// A token of `namespace/name`, good for ten minutes.
    pub(crate) fn token(&self, account: &str) -> String {
        self.sign(&self.claims(account))
    }

    pub(crate) fn claims(&self, account: &str) -> Value {
        let (namespace, name) = account.split_once('/').unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": self.issuer(), "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 600,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "1"},
                "pod": {"name": "crew-0", "uid": "2"}},
        })
    }

    /// Any claims, signed with the key of the day.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let shared = self.lock();
        let header = json!({"alg": "EdDSA", "kid": format!("k{}", shared.made)});
        shared.signer.sign(&header, claims)
    }

    /// What was asked for since this was asked.
    pub(crate) fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.lock().asked)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let drain = self.drain.clone();
        Drain::default().detach(async move {
            drain.finish(std::time::Duration::ZERO).await;
        });
    }
}

async fn document(State(shared): At, headers: HeaderMap) -> Response {
    let mut shared = shared.lock().unwrap();
    shared.asked.push("document");
    let issuer = &shared.issuer;
    known(&headers, json!({"issuer": issuer, "jwks_uri": format!("{issuer}/openid/v1/jwks")}))
}

async fn keys(State(shared): At, headers: HeaderMap) -> Response {
    let mut shared = shared.lock().unwrap();
    shared.asked.push("keys");
    let mut keys = shared.signer.keys();
    keys["keys"][0]["use"] = json!("sig");
    known(&headers, keys)
}

fn known(headers: &HeaderMap, answer: Value) -> Response {
    let wanted = format!("Bearer {API_TOKEN}");
    match headers.get(header::AUTHORIZATION) {
        Some(given) if *given == *wanted => Json(answer).into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}
