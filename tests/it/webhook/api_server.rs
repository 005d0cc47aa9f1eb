//! As much of an API server as keeps a webhook's certificate: strict about versions, names, rights and content types.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use keybearer::drain::Drain;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Barrier};

use crate::support::{
    provider::{TestAuthority, Validity},
    server,
};

/// What the service account's token is.
pub(super) const TOKEN: &str = "kb-canary-service-account";
const SECRET: &str = "keybearer-webhook-ca";
const CONFIGURATION: &str = "keybearer-webhook";

/// What it holds, and what it was asked.
struct Held {
    secret: Option<Value>,
    configuration: Value,
    version: u64,
    /// Each change that was made or refused, with its status.
    changes: Vec<(&'static str, u16)>,
    /// The configuration's webhooks after each change.
    published: Vec<Value>,
    /// What every request is answered, if anything.
    fault: Option<StatusCode>,
}

#[derive(Clone)]
struct Desk {
    held: Arc<Mutex<Held>>,
    /// Holds the first reads of a missing Secret until so many have come.
    together: Arc<Barrier>,
}

/// An API server of its own, ended when dropped.
pub(super) struct ApiServer {
    pub(super) address: SocketAddr,
    pub(super) authority: TestAuthority,
    held: Arc<Mutex<Held>>,
    serving: tokio::task::JoinHandle<()>,
}

impl ApiServer {
    /// With two webhooks in its configuration, which trust nothing yet. That many replicas find no Secret at the same time.
    pub(super) async fn start(replicas: usize) -> Self {
        let authority = TestAuthority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let webhook = |name: &str| {
            let service = json!({"namespace": "keybearer", "name": "keybearer-webhook", "path": "/mutate"});
            json!({"name": name, "clientConfig": {"service": service}, "sideEffects": "None", "admissionReviewVersions": ["v1"]})
        };
        let held = Arc::new(Mutex::new(Held {
            secret: None,
            configuration: json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": CONFIGURATION, "resourceVersion": "1", "labels": {"kept": "yes"}},
                "webhooks": [webhook("inject.keybearer.dev"), webhook("debug.keybearer.dev")],
            }),
            version: 1,
            changes: Vec::new(),
            published: Vec::new(),
            fault: None,
        }));
        let desk = Desk { held: Arc::clone(&held), together: Arc::new(Barrier::new(replicas)) };
        let secrets = "/api/v1/namespaces/keybearer/secrets";
        let configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let router = Router::new()
            .route(secrets, post(create))
            .route(&format!("{secrets}/{{name}}"), get(secret).put(replace))
            .route(&format!("{configurations}/{{name}}"), get(configuration).patch(patch))
            .with_state(desk);
        let tls = server::acceptor(
            authority.leaf(&["127.0.0.1".to_owned()], Validity::Current),
            vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        );
        let serving = Drain::default().spawn(server::accept(listener, Some(tls), Drain::default(), router));
        Self { address, authority, held, serving }
    }

    /// The CAs that API servers trust for the webhook: the same in every webhook, or none.
    pub(super) fn trusted(&self) -> String {
        let held = self.held.lock().unwrap();
        let bundles = held.configuration["webhooks"].as_array().unwrap().iter();
        let mut bundles: Vec<_> =
            bundles.map(|webhook| webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default()).collect();
        bundles.dedup();
        assert_eq!(bundles.len(), 1, "{bundles:?}");
        String::from_utf8(BASE64_STANDARD.decode(bundles[0]).unwrap()).unwrap()
    }

    /// What the Secret holds under this key.
    pub(super) fn secret(&self, key: &str) -> String {
        let held = self.held.lock().unwrap();
        let data = held.secret.as_ref().unwrap()["data"][key].as_str().unwrap_or_default();
        String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap()
    }

    /// Puts a Secret there, as another replica would have.
    pub(super) fn plant(&self, data: &Value) {
        let mut held = self.held.lock().unwrap();
        held.version += 1;
        let metadata = json!({"name": SECRET, "namespace": "keybearer", "resourceVersion": held.version.to_string(), "uid": "1"});
        held.secret = Some(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}),
        );
    }

    /// Answers everything so from now on, or as it should.
    pub(super) fn fail(&self, status: Option<StatusCode>) {
        self.held.lock().unwrap().fault = status;
    }

    pub(super) fn changes(&self) -> Vec<(&'static str, u16)> {
        self.held.lock().unwrap().changes.clone()
    }

    /// How many different ways of trusting there have been.
    pub(super) fn published(&self) -> usize {
        let mut published = self.held.lock().unwrap().published.clone();
        published.dedup();
        published.len()
    }

    /// What is beside `caBundle` in the configuration.
    pub(super) fn configuration(&self) -> Value {
        self.held.lock().unwrap().configuration.clone()
    }

    /// Somebody else, such as a deployment tool, takes the trust away.
    pub(super) fn forget(&self) {
        let mut held = self.held.lock().unwrap();
        held.version += 1;
        let version = held.version.to_string();
        held.configuration["metadata"]["resourceVersion"] = json!(version);
        for webhook in held.configuration["webhooks"].as_array_mut().unwrap() {
            webhook["clientConfig"]["caBundle"] = json!("");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// `Status` of Kubernetes.
fn status(code: StatusCode, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code.as_u16()});
    (code, Json(body)).into_response()
}

impl Desk {
    /// Who asks, for what, and whether anything is answered at all.
    fn admitted(&self, headers: &HeaderMap, name: &str, content_type: &str) -> Result<(), Box<Response>> {
        let fault = self.held.lock().unwrap().fault;
        let is_ours = headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
        let kind = headers.get("content-type").map(|value| value.to_str().unwrap());
        let refused = [
            (fault.is_some(), fault.unwrap_or_default(), "out of order"),
            (!is_ours, StatusCode::UNAUTHORIZED, "Unauthorized"),
            (![SECRET, CONFIGURATION].contains(&name), StatusCode::FORBIDDEN, "not among resourceNames"),
            (kind != Some(content_type), StatusCode::UNSUPPORTED_MEDIA_TYPE, "another content type"),
        ];
        let refused = refused.into_iter().find(|(is_refused, ..)| *is_refused);
        refused.map_or(Ok(()), |(_, code, message)| Err(Box::new(status(code, message))))
    }
}

impl Held {
    fn next(&mut self) -> Value {
        self.version += 1;
        json!(self.version.to_string())
    }

    fn done(&mut self, what: &'static str, code: StatusCode, answer: &Value) -> Response {
        self.changes.push((what, code.as_u16()));
        (code, Json(answer.clone())).into_response()
    }

    fn refused(&mut self, what: &'static str, code: StatusCode) -> Response {
        self.changes.push((what, code.as_u16()));
        status(code, "the object has been modified; please apply your changes to the latest version")
    }
}

async fn secret(State(desk): State<Desk>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = desk.admitted(&headers, &name, "application/json") {
        return *refused;
    }
    let found = desk.held.lock().unwrap().secret.clone();
    let Some(secret) = found else {
        desk.together.wait().await;
        return status(StatusCode::NOT_FOUND, "secrets \"keybearer-webhook-ca\" not found");
    };
    Json(secret).into_response()
}

async fn create(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let mut secret: Value = serde_json::from_slice(&body).unwrap();
    let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
    if let Err(refused) = desk.admitted(&headers, &name, "application/json") {
        return *refused;
    }
    assert_eq!((&secret["kind"], &secret["metadata"]["namespace"]), (&json!("Secret"), &json!("keybearer")));
    let mut held = desk.held.lock().unwrap();
    if held.secret.is_some() {
        return held.refused("create", StatusCode::CONFLICT);
    }
    secret["metadata"]["resourceVersion"] = held.next();
    held.secret = Some(secret.clone());
    held.done("create", StatusCode::CREATED, &secret)
}

async fn replace(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = desk.admitted(&headers, &name, "application/json") {
        return *refused;
    }
    let mut secret: Value = serde_json::from_slice(&body).unwrap();
    let mut held = desk.held.lock().unwrap();
    let before = held.secret.clone().unwrap();
    assert_eq!(secret["metadata"]["uid"], before["metadata"]["uid"]);
    if secret["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
        return held.refused("replace", StatusCode::CONFLICT);
    }
    secret["metadata"]["resourceVersion"] = held.next();
    held.secret = Some(secret.clone());
    held.done("replace", StatusCode::OK, &secret)
}

async fn configuration(State(desk): State<Desk>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = desk.admitted(&headers, &name, "application/json") {
        return *refused;
    }
    Json(desk.held.lock().unwrap().configuration.clone()).into_response()
}

async fn patch(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = desk.admitted(&headers, &name, "application/json-patch+json") {
        return *refused;
    }
    let patch: json_patch::Patch = serde_json::from_slice(&body).unwrap();
    assert!(
        matches!(&patch.0[0], json_patch::PatchOperation::Test(test) if test.path.as_str() == "/metadata/resourceVersion")
    );
    let mut held = desk.held.lock().unwrap();
    let mut patched = held.configuration.clone();
    if json_patch::patch(&mut patched, &patch).is_err() {
        return held.refused("patch", StatusCode::UNPROCESSABLE_ENTITY);
    }
    patched["metadata"]["resourceVersion"] = held.next();
    held.configuration = patched.clone();
    held.published.push(patched["webhooks"].clone());
    held.done("patch", StatusCode::OK, &patched)
}
