//! As much of an API server as a webhook sees, and the real webhook before it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keybearer::drain::Drain;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A certificate for loopback and its key, PEM.
pub(super) fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// `keybearer webhook` with a certificate in a volume as the kubelet makes one, and a client that trusts it.
pub(crate) struct Cluster {
    pub(super) client: Client,
    pub(super) certificate: String,
    address: SocketAddr,
    dir: TempDir,
    webhook: Child,
    _log: BufReader<ChildStderr>,
}

impl Cluster {
    /// With these settings as `webhook:`.
    pub(crate) fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        let tls = dir.path().join("tls");
        fs::create_dir_all(tls.join("..1")).unwrap();
        fs::write(tls.join("..1/tls.crt"), &certificate).unwrap();
        fs::write(tls.join("..1/tls.key"), key).unwrap();
        symlink("..1", tls.join("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), tls.join(name)).unwrap();
        }
        fs::write(dir.path().join("webhook.yaml"), format!("data_dir: data\nwebhook: {settings}\n")).unwrap();
        let mut webhook = Command::new(env!("CARGO_BIN_EXE_keybearer"))
            .args(["webhook", "--config", "webhook.yaml"])
            .current_dir(dir.path())
            .env_clear()
            .env("KEYBEARER_WEBHOOK__LISTEN", "127.0.0.1:0")
            .env("KEYBEARER_WEBHOOK__CERTIFICATE", "tls/tls.crt")
            .env("KEYBEARER_WEBHOOK__KEY", "tls/tls.key")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(webhook.stderr.take().unwrap());
        let greeting =
            log.by_ref().lines().map(Result::unwrap).find(|line| line.contains("API servers at")).unwrap();
        let (_, url) = greeting.split_once("https://").unwrap();
        let address = url.trim_end_matches("/mutate").parse().unwrap();
        let client = Client::new(address, &certificate);
        Self { client, certificate, address, dir, webhook, _log: log }
    }

    /// Where the volume with the certificate is.
    pub(super) fn certificates(&self) -> PathBuf {
        self.dir.path().join("tls")
    }

    /// A client that trusts another certificate.
    pub(super) fn trusting(&self, certificate: &str) -> Client {
        Client::new(self.address, certificate)
    }

    pub(crate) async fn create(&self, pod: &Value) -> Reviewed {
        self.client.review(pod, &Value::Null, "").await
    }

    /// As `kubectl debug` makes an API server ask.
    pub(super) async fn debug(&self, pod: &Value, before: &Value) -> Reviewed {
        self.client.review(pod, before, "ephemeralcontainers").await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.webhook.kill();
        let _ = self.webhook.wait();
    }
}

/// What an API server sends (Kubernetes 1.31).
pub(super) fn review(pod: &Value, before: &Value, sub_resource: &str) -> Value {
    let (kind, resource) = (
        json!({"group": "", "version": "v1", "kind": "Pod"}),
        json!({"group": "", "version": "v1", "resource": "pods"}),
    );
    let operation = if sub_resource.is_empty() { "CREATE" } else { "UPDATE" };
    let user = json!({
        "username": "system:serviceaccount:kube-system:replicaset-controller",
        "uid": "f5b9a4f2-5ac9-4ae2-9d4a-6f3b6a4f4e2f",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "0b4cf36f-9c0e-4c7c-8f6f-1f3a4b7f1b6d",
        "kind": kind, "resource": resource, "subResource": sub_resource,
        "requestKind": kind, "requestResource": resource, "requestSubResource": sub_resource,
        "name": pod["metadata"]["name"], "namespace": "agents", "operation": operation, "userInfo": user,
        "object": pod, "oldObject": before, "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl"},
    }})
}

/// What was answered.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reviewed {
    allowed: bool,
    /// Null where there is none.
    pub(super) patch: Value,
    pub(super) warnings: Vec<String>,
    message: String,
}

impl Reviewed {
    fn of(answer: &Value) -> Self {
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = &answer["response"];
        assert_eq!(response["uid"], "0b4cf36f-9c0e-4c7c-8f6f-1f3a4b7f1b6d");
        let patch = response["patch"].as_str().map(|text| BASE64_STANDARD.decode(text).unwrap());
        let kind = patch.as_ref().map(|_| "JSONPatch");
        assert_eq!(response["patchType"].as_str(), kind);
        Self {
            allowed: response["allowed"].as_bool().unwrap(),
            patch: patch.map_or(Value::Null, |patch| serde_json::from_slice(&patch).unwrap()),
            warnings: serde_json::from_value(response.get("warnings").cloned().unwrap_or_else(|| json!([])))
                .unwrap(),
            message: response["status"]["message"].as_str().unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn admitted(self) -> Self {
        Self { allowed: true, ..self }
    }

    pub(crate) fn allowed(self) -> Self {
        assert!(self.allowed, "{}", self.message);
        // An API server cuts longer ones off.
        assert!(self.warnings.iter().all(|warning| warning.len() < 256), "{:?}", self.warnings);
        self
    }

    /// The sentence.
    pub(super) fn refused(self) -> String {
        assert!(!self.allowed && self.patch.is_null(), "{self:?}");
        self.message
    }

    pub(crate) fn applied(&self, pod: &Value) -> Value {
        let patch: json_patch::Patch = serde_json::from_value(self.patch.clone()).unwrap();
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        patched
    }
}

/// A pod as it comes when a webhook is asked a second time: with defaults, the service account's token in every
/// container, and what other admission plugins and webhooks add to each.
pub(super) fn by_an_api_server(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["terminationMessagePolicy"] = json!("File");
            container["imagePullPolicy"] = json!("Always");
            let image = container["image"].as_str().unwrap().split('@').next().unwrap();
            container["image"] = json!(format!("{image}@sha256:{}", "0".repeat(64)));
            container["resources"]["limits"]["cpu"] = json!("2");
            let token = "/var/run/secrets/kubernetes.io/serviceaccount";
            added(
                container,
                "volumeMounts",
                json!({"name": "kube-api-access-1", "mountPath": token, "readOnly": true}),
            );
            added(container, "env", json!({"name": "AZURE_CLIENT_ID", "value": "id"}));
            for probe in ["startupProbe", "readinessProbe"] {
                let mut http = container.get_mut(probe).and_then(|probe| probe.get_mut("httpGet"));
                for http in http.as_mut_slice() {
                    http["scheme"] = json!("HTTP");
                }
            }
        }
    }
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        for source in volume.get_mut("configMap").as_mut_slice() {
            source["defaultMode"] = json!(420);
        }
    }
    pod["spec"]["dnsPolicy"] = json!("ClusterFirst");
    pod["spec"]["tolerations"] = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]);
    pod
}

fn added(container: &mut Value, list: &str, item: Value) {
    let mut items = container[list].as_array().cloned().unwrap_or_default();
    items.push(item);
    container[list] = json!(items);
}

/// An HTTPS client that makes a connection for each request.
pub(super) struct Client {
    address: SocketAddr,
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Client {
    fn new(address: SocketAddr, certificate: &str) -> Self {
        Self { name: address.ip().into(), ..Self::of_service(address, certificate, "localhost") }
    }

    /// As an API server asks for a Service, trusting these CAs.
    pub(super) fn of_service(address: SocketAddr, trusted: &str, name: &'static str) -> Self {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(trusted.as_bytes());
        certificates.for_each(|certificate| roots.add(certificate.unwrap()).unwrap());
        let name = name.try_into().unwrap();
        Self { address, name, roots: Arc::new(roots), versions: rustls::ALL_VERSIONS.to_vec() }
    }

    /// The certificate that is shown.
    pub(super) async fn shown(&self) -> std::io::Result<CertificateDer<'static>> {
        let tls = self.connect(b"http/1.1").await?;
        Ok(tls.get_ref().1.peer_certificates().unwrap()[0].clone())
    }

    pub(super) fn with_version(&self, version: &'static SupportedProtocolVersion) -> Self {
        let (name, roots) = (self.name.clone(), Arc::clone(&self.roots));
        Self { address: self.address, name, roots, versions: vec![version] }
    }

    async fn connect(&self, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        keybearer::tls::init_crypto();
        let mut config = ClientConfig::builder_with_protocol_versions(&self.versions)
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(self.name.clone(), tcp).await?;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn));
        Ok(tls)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> std::io::Result<(u16, String)> {
        let tls = self.connect(b"http/1.1").await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        Drain::default().spawn(connection);
        Ok(read(sender.send_request(request).await.unwrap()).await)
    }

    pub(super) async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        self.send(request("GET", path, "")).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        self.send(request("POST", path, body)).await
    }

    pub(super) async fn get_by_h2(&self, path: &str) -> (u16, String) {
        let tls = self.connect(b"h2").await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        Drain::default().spawn(connection);
        let url = format!("https://{}{path}", self.address);
        read(sender.send_request(Request::get(url).body(Full::<Bytes>::default()).unwrap()).await.unwrap())
            .await
    }

    pub(super) async fn ask(&self, review: &Value) -> Reviewed {
        let (status, answer) = self.post("/mutate", &review.to_string()).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        Reviewed::of(&serde_json::from_str(&answer).unwrap())
    }

    pub(super) async fn review(&self, pod: &Value, before: &Value, sub_resource: &str) -> Reviewed {
        self.ask(&review(pod, before, sub_resource)).await
    }
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "keybearer.keybearer.svc");
    request.header("content-type", "application/json").body(Full::from(body.to_owned())).unwrap()
}

async fn read(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
