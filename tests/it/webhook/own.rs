//! `keybearer webhook` without a certificate: it makes its own, and API servers come to trust it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, Stdio},
};

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use x509_parser::parse_x509_certificate;

use super::{
    api_server::{ApiServer, TOKEN},
    cluster::Client,
    pod,
};
use crate::laws::wire::until;

/// The name of the Service, as API servers ask for it.
const NAME: &str = "keybearer-webhook.keybearer.svc";

/// One of the webhook's pods.
struct Replica {
    address: SocketAddr,
    webhook: Child,
    log: Lines<BufReader<ChildStderr>>,
    _account: TempDir,
}

impl Replica {
    /// With a service account of that API server's, which is looked at 50 times a second.
    fn start(api: &ApiServer) -> Self {
        Self::looking(api, "20ms")
    }

    fn looking(api: &ApiServer, check: &str) -> Self {
        let account = tempfile::tempdir().unwrap();
        let at = |name: &str| account.path().join(name);
        fs::write(at("token"), TOKEN).unwrap();
        fs::write(at("namespace"), "keybearer").unwrap();
        fs::write(at("ca.crt"), api.authority.pem()).unwrap();
        let managed = format!(
            "{{api: 'https://{}', service_account: '{}', check: {check}}}",
            api.address,
            account.path().display()
        );
        let config =
            format!("webhook: {{listen: '127.0.0.1:0', certificate: null, self_managed: {managed}}}\n");
        fs::write(at("webhook.yaml"), config).unwrap();
        let mut webhook = Command::new(env!("CARGO_BIN_EXE_keybearer"))
            .args(["webhook", "--config", "webhook.yaml"])
            .current_dir(account.path())
            .env_clear()
            .env("HOME", account.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(webhook.stderr.take().unwrap()).lines();
        let greeting = log.by_ref().map(Result::unwrap).find(|line| line.contains("API servers at")).unwrap();
        let (_, url) = greeting.split_once("https://").unwrap();
        let address = url.trim_end_matches("/mutate").parse().unwrap();
        Self { address, webhook, log, _account: account }
    }

    /// An API server that trusts these CAs.
    fn trusting(&self, pem: &str) -> Client {
        Client::of_service(self.address, pem, NAME)
    }

    /// Waits until an API server that trusts what `caBundle` says is answered.
    async fn ready(&self, api: &ApiServer) {
        self.ready_for(|| api.trusted()).await;
    }

    /// Waits until one that trusts these CAs is.
    async fn ready_for(&self, trusted: impl Fn() -> String) {
        until("a certificate that is trusted", async || self.trusting(&trusted()).get("/healthz").await.ok())
            .await;
    }

    /// How many looks have failed.
    async fn failed(&self, api: &ApiServer) -> Option<u64> {
        let (_, metrics) = self.trusting(&api.trusted()).get("/metrics").await.ok()?;
        let failed = "keybearer_admission_certificate_looks_total{outcome=\"failed\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(failed))?.parse().ok()
    }

    /// The first line of the log from here on that tells this.
    fn told(&mut self, what: &str) -> String {
        self.log.by_ref().map(Result::unwrap).find(|line| line.contains(what)).unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.webhook.kill();
        let _ = self.webhook.wait();
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// Whether the certificate was signed by that CA.
fn is_of(leaf: &CertificateDer<'_>, ca: &CertificateDer<'_>) -> bool {
    let ((_, leaf), (_, ca)) = (parse_x509_certificate(leaf).unwrap(), parse_x509_certificate(ca).unwrap());
    leaf.issuer() == ca.subject()
}

/// What a Secret holds whose only CA was made 300 days ago.
fn old_ca() -> Value {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "keybearer webhook CA of last year");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::days(300), now + Duration::days(65));
    let certificate = params.self_signed(&key).unwrap().pem();
    json!({"ca.crt": BASE64_STANDARD.encode(certificate), "ca.key": BASE64_STANDARD.encode(key.serialize_pem())})
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_agree_on_one_ca() {
    let api = ApiServer::start(2).await;
    let before = api.configuration();
    let replicas = [(); 2].map(|()| Replica::start(&api));
    let minimal = pod("minimal");
    for replica in &replicas {
        replica.ready(&api).await;
        replica.trusting(&api.trusted()).review(&minimal, &Value::Null, "").await.allowed();
        assert!(
            Client::of_service(replica.address, &api.trusted(), "another.keybearer.svc")
                .get("/healthz")
                .await
                .is_err()
        );
    }
    let shared = api.secret("ca.crt");
    assert_eq!(certificates(&shared).len(), 1);
    assert_eq!(api.trusted(), shared);
    assert_eq!(api.published(), 1, "no other was ever trusted");
    let created: Vec<_> = api.changes().into_iter().filter(|(what, _)| *what == "create").collect();
    assert_eq!(created, [("create", 201), ("create", 409)], "both found none");
    let mut after = api.configuration();
    after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    for webhook in after["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    }
    assert_eq!(after, before, "nothing else of it is changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_replaced_under_load_without_a_review_that_fails() {
    let api = ApiServer::start(1).await;
    api.plant(&old_ca());
    let before = api.secret("ca.crt");
    let old = certificates(&before).remove(0);
    // Three seconds until a new CA signs.
    let replicas = [(); 2].map(|()| Replica::looking(&api, "50ms"));
    for replica in &replicas {
        // The new one is not known for long enough.
        replica.ready_for(|| before.clone()).await;
    }
    let minimal = pod("minimal");
    let mut reviews = 0;
    // An API server knows of a change a little later.
    let mut trusted = api.trusted();
    let mut with_old = 2;
    while with_old > 0 {
        with_old = 0;
        let now = api.trusted();
        for replica in &replicas {
            let client = replica.trusting(&trusted);
            client.review(&minimal, &Value::Null, "").await.allowed();
            with_old += usize::from(is_of(&client.shown().await.unwrap(), &old));
            reviews += 1;
        }
        assert!(reviews < 100_000, "it is not replaced");
        trusted = now;
    }
    println!("webhook: {reviews} reviews while the CA was replaced, none failed");
    let both = certificates(&api.secret("ca.crt"));
    assert_eq!((both.len(), &both[0]), (2, &old));
    assert_eq!(certificates(&api.trusted()), both, "leaves of both are trusted");
    let replaced = api.changes().into_iter().filter(|change| *change == ("replace", 200)).count();
    assert_eq!(replaced, 1, "one replica made it, the others took it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_whose_api_server_is_away_goes_on_and_makes_up_for_it_afterwards() {
    let api = ApiServer::start(1).await;
    let replica = Replica::start(&api);
    replica.ready(&api).await;
    let before = replica.trusting(&api.trusted()).shown().await.unwrap();
    api.fail(Some(StatusCode::SERVICE_UNAVAILABLE));
    until("three looks that failed", async || replica.failed(&api).await.filter(|failed| *failed >= 3)).await;
    let minimal = pod("minimal");
    let client = replica.trusting(&api.trusted());
    client.review(&minimal, &Value::Null, "").await.allowed();
    assert_eq!(client.shown().await.unwrap(), before);
    // Meanwhile somebody has put the configuration back to what is in their repository.
    let trusted = api.trusted();
    api.forget();
    assert_eq!(api.trusted(), "");
    api.fail(None);
    until("trust again", async || (api.trusted() == trusted).then_some(())).await;
    // Or has emptied the Secret, as applying an empty one again does.
    api.plant(&Value::Null);
    until("the same CA again", async || (api.secret("ca.crt") == trusted).then_some(())).await;
    assert_eq!(api.trusted(), trusted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_may_not_do_it_says_what_it_needs_and_is_not_ready() {
    let api = ApiServer::start(1).await;
    api.fail(Some(StatusCode::FORBIDDEN));
    let mut replica = Replica::start(&api);
    let said = replica.told("cannot be looked after");
    for part in ["403", "get the Secret", "out of order", "docs/kubernetes.md"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(TOKEN));
    assert!(replica.trusting(&api.authority.pem()).get("/healthz").await.is_err());
    api.fail(None);
    replica.ready(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_altered_is_left_alone() {
    let api = ApiServer::start(1).await;
    api.plant(&json!({"ca.crt": "bm90aGluZw==", "ca.key": old_ca()["ca.key"]}));
    let mut replica = Replica::start(&api);
    let said = replica.told("cannot be looked after");
    assert!(said.contains("the Secret keybearer-webhook-ca does not hold the webhook's CAs"), "{said}");
    assert_eq!(api.secret("ca.crt"), "nothing");
    // As Helm would have made it, so that nobody needs the right to.
    api.plant(&json!(null));
    replica.ready(&api).await;
    assert_eq!(certificates(&api.secret("ca.crt")).len(), 1);
}
