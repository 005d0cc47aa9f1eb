//! As much of Kubernetes' API as a certificate needs: one Secret, one webhook configuration, by plain HTTPS.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{SelfManaged, ring::Ring};
use crate::{
    fetch::{self, Question, Url},
    secret::Secret,
    tls::{self, Alpn, Roots, upstream_config},
};

/// etcd takes objects up to 1.5 MiB.
const LARGEST: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const CERTIFICATES: &str = "ca.crt";
const KEYS: &str = "ca.key";

/// Why the cluster could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The service account's files.
    #[error(
        "cannot read {path}; set automountServiceAccountToken: true, or name webhook.certificate and webhook.key"
    )]
    Account { path: PathBuf, source: std::io::Error },
    /// The service account's token.
    #[error("the service account's token is refused")]
    Token(#[source] fetch::Error),
    /// The API server's CA.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The API server's address.
    #[error("webhook.self_managed.api is refused")]
    Address(#[source] fetch::Error),
    /// No answer.
    #[error("the API server gives no answer")]
    Call(#[source] fetch::Error),
    /// An answer that is none.
    #[error("the API server's answer to {0} is no JSON")]
    Answer(String),
    /// A no, with what the API server says of it.
    #[error(
        "the API server answers {status} to {question}: {message}; docs/kubernetes.md has what it must allow"
    )]
    Refused { question: String, status: StatusCode, message: String },
    /// The Secret has been altered.
    #[error("the Secret {name} {reason}; remove it to have a new CA made")]
    Secret { name: String, reason: super::ring::Error },
    /// Making a CA or a leaf failed.
    #[error(transparent)]
    Ring(#[from] super::ring::Error),
    /// Somebody else was faster, again and again.
    #[error("others changed it meanwhile, {0} times")]
    Meanwhile(usize),
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The object is another by now: read it again.
    Meanwhile,
}

/// The API server, as the service account sees it.
pub(super) struct Api<'a> {
    settings: &'a SelfManaged,
    namespace: String,
}

impl<'a> Api<'a> {
    /// Reads which namespace this is.
    pub(super) fn open(settings: &'a SelfManaged) -> Result<Self, Error> {
        let namespace = read(settings, "namespace")?.trim().to_owned();
        Ok(Self { settings, namespace })
    }

    /// The name that API servers ask for.
    pub(super) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.settings.service, self.namespace)
    }

    /// The Secret, where there is one.
    pub(super) async fn secret(&self) -> Result<Option<Value>, Error> {
        match self.ask(Method::GET, &self.secret_path(), JSON, None).await? {
            (StatusCode::OK, secret) => Ok(Some(secret)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            answer => Err(refused("get the Secret", answer)),
        }
    }

    /// What a Secret holds; an empty ring where it has been made without anything in it.
    pub(super) fn ring(&self, secret: &Value) -> Result<Ring, Error> {
        let decoded = |key: &str| {
            let text = secret["data"][key].as_str().unwrap_or_default();
            STANDARD.decode(text).map(Zeroizing::new).unwrap_or_default()
        };
        Ring::read(&decoded(CERTIFICATES), &decoded(KEYS))
            .map_err(|reason| Error::Secret { name: self.settings.secret.clone(), reason })
    }

    /// Makes the Secret, unless somebody has.
    pub(super) async fn create(&self, ring: &Ring) -> Result<Written, Error> {
        let metadata = json!({"name": self.settings.secret, "namespace": self.namespace});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data(ring)});
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        written("create the Secret", self.ask(Method::POST, &path, JSON, Some(&secret)).await?)
    }

    /// Replaces what the Secret holds, unless somebody has since it was read: it carries its `resourceVersion`.
    pub(super) async fn replace(&self, mut secret: Value, ring: &Ring) -> Result<Written, Error> {
        secret["data"] = data(ring);
        written("update the Secret", self.ask(Method::PUT, &self.secret_path(), JSON, Some(&secret)).await?)
    }

    /// The webhook configuration.
    pub(super) async fn configuration(&self) -> Result<Value, Error> {
        match self.ask(Method::GET, &self.configuration_path(), JSON, None).await? {
            (StatusCode::OK, configuration) => Ok(configuration),
            answer => Err(refused("get the MutatingWebhookConfiguration", answer)),
        }
    }

    /// Has every webhook of the configuration trust these CAs, unless somebody has changed it since it was read.
    pub(super) async fn publish(&self, configuration: &Value, certificates: &str) -> Result<Written, Error> {
        let Some(patch) = patch(configuration, &STANDARD.encode(certificates)) else {
            return Ok(Written::Done);
        };
        written(
            "patch the MutatingWebhookConfiguration",
            self.ask(Method::PATCH, &self.configuration_path(), JSON_PATCH, Some(&patch)).await?,
        )
    }

    fn secret_path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.settings.secret)
    }

    fn configuration_path(&self) -> String {
        let name = &self.settings.configuration;
        format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
    }

    /// With the token and the CA as the files have them by now: both are replaced while we run.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Error> {
        let url = Url::parse(&format!("{}{path}", self.settings.api.trim_end_matches('/')))
            .map_err(Error::Address)?;
        let roots = Roots::File(self.settings.service_account.join("ca.crt")).load()?;
        let mut headers = HeaderMap::new();
        let token = Secret::new(read(self.settings, "token")?.trim().as_bytes().to_vec());
        headers.insert(header::AUTHORIZATION, fetch::authorization(&token).map_err(Error::Token)?);
        headers.insert(header::ACCEPT, HeaderValue::from_static(JSON));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let body = Zeroizing::new(body.map(Value::to_string).unwrap_or_default().into_bytes());
        let question = Question { method, headers, body };
        let tls = Arc::new(upstream_config(&roots, Alpn::H1));
        let answer = fetch::call(&url, &tls, question, LARGEST, PATIENCE).await.map_err(Error::Call)?;
        let body = serde_json::from_slice(&answer.body).map_err(|_| Error::Answer(path.to_owned()))?;
        Ok((answer.status, body))
    }
}

fn read(settings: &SelfManaged, name: &str) -> Result<Zeroizing<String>, Error> {
    let path = settings.service_account.join(name);
    fs::read_to_string(&path).map(Zeroizing::new).map_err(|source| Error::Account { path, source })
}

fn data(ring: &Ring) -> Value {
    json!({CERTIFICATES: STANDARD.encode(ring.certificates()), KEYS: STANDARD.encode(&*ring.keys())})
}

fn written(question: &str, answer: (StatusCode, Value)) -> Result<Written, Error> {
    match answer.0 {
        StatusCode::OK | StatusCode::CREATED => Ok(Written::Done),
        // A test of a patch that fails is "unprocessable"; an object that was removed is not found.
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_FOUND => {
            tracing::debug!(question, status = %answer.0, message = %answer.1["message"], "to be tried again");
            Ok(Written::Meanwhile)
        }
        _ => Err(refused(question, answer)),
    }
}

fn refused(question: &str, (status, body): (StatusCode, Value)) -> Error {
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    Error::Refused { question: question.to_owned(), status, message }
}

/// What sets `caBundle` where it is another; `None` where it is this one everywhere. It holds for this version of the object
/// only.
fn patch(configuration: &Value, bundle: &str) -> Option<Value> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
    let differ = webhooks.filter(|(_, webhook)| webhook["clientConfig"]["caBundle"] != *bundle);
    let changes: Vec<Value> = differ
        .map(|(at, _)| json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": bundle}))
        .collect();
    let version = &configuration["metadata"]["resourceVersion"];
    let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
    (!changes.is_empty()).then(|| [vec![test], changes].concat().into())
}
