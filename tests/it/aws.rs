//! AWS: requests are signed anew, as botocore's own signer would, whatever the agent's client signed.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use keybearer::{
    id::Principal,
    secret::Secret,
    vault::{Material, NewAccount},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    agent::{Answer, Body, identity, inside},
    evidence,
    provider::{TestAuthority, hex},
    stage::{Stage, Staging, account},
};

const S3: &str = "s3.eu-central-1.amazonaws.com";
const BUCKET: &str = "crew.s3.eu-central-1.amazonaws.com";
const LAMBDA: &str = "lambda.eu-central-1.amazonaws.com";
/// An S3 of somebody else's, at a host that says neither service nor region.
const STORE: &str = "store.crm.test";

const KEYS: [(&str, &str); 3] = [
    ("access_key_id", "AKIDKEYBEARERTEST000"),
    ("secret_access_key", "kb-canary-aws/secret+key-0f9e8d7c6b5a4938"),
    ("session_token", "kb-canary-aws-session-1029384756=="),
];

/// AWS's Security Token Service, and another issuer's token for it.
const STS: &str = "sts.amazonaws.com";
const WEB_IDENTITY: &str = "kb-canary-header.kb-canary-claims.kb-canary-signature";

/// The connector that is shipped, for buckets at hosts of their own.
const SHIPPED: &str = include_str!("../../policies/connectors/aws.yaml");
/// One for path style, a service with a region that is not S3, and a host that says nothing; and one for the store.
const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: aws}
spec:
  hosts: ["s3.eu-central-1.amazonaws.com", "lambda.eu-central-1.amazonaws.com", "nowhere.amazonaws.com"]
  auth: {type: aws_sigv4, fields: [access_key_id, secret_access_key, session_token]}
  operations: [{name: any, request: ["GET /{path...}", "HEAD /{path...}", "PUT /{path...}", "POST /{path...}", "DELETE /{path...}", "GET /"]}]
---
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: store}
spec:
  hosts: ["store.crm.test"]
  auth: {type: aws_sigv4, fields: [access_key_id, secret_access_key, session_token], service: s3, region: us-east-1}
  operations: [{name: any, request: ["GET /{path...}", "PUT /{path...}"]}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants:
    - {connector: aws, as: tenant}
    - {connector: store, as: tenant}
    - {connector: s3, as: tenant, scopes: [objects:list, objects:read, objects:write, objects:delete]}
"#;

/// A fake AWS in Python, which ends with the test.
struct Fake {
    child: Child,
    address: SocketAddr,
    _files: tempfile::TempDir,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fake {
    fn start(python: &Path, authority: &TestAuthority) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (chain, key) = authority.leaf_pem(&[S3, BUCKET, LAMBDA, STORE, STS].map(str::to_owned));
        let (chain_file, key_file) = (files.path().join("chain.pem"), files.path().join("key.pem"));
        std::fs::write(&chain_file, chain).unwrap();
        std::fs::write(&key_file, key).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/fake_aws.py");
        let mut command = Command::new(python);
        command.arg(script).arg(chain_file).arg(key_file).env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("AWS_WEB_IDENTITY_TOKEN", WEB_IDENTITY);
        command.envs(KEYS.map(|(name, value)| (format!("AWS_{}", name.to_ascii_uppercase()), value)));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().expect("the fake AWS starts")));
        Self { child, address, _files: files }
    }
}

struct Town {
    stage: Stage,
    fake: Fake,
    python: PathBuf,
}

/// The proxy before the fake; nothing where Python's packages are not installed, which `make test` does not allow.
async fn town() -> Option<Town> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/venv/bin/python");
    if !python.exists() {
        assert!(std::env::var_os("TEST_NO_SKIP").is_none(), "no {}; run tests/setup.sh", python.display());
        return None;
    }
    let authority = TestAuthority::new();
    let fake = Fake::start(&python, &authority);
    let fields = KEYS.map(|(name, value)| (name.to_owned(), Secret::new(value.as_bytes().to_vec())));
    let account = |connector| NewAccount {
        material: Material::Static { fields: fields.clone().into() },
        metadata: [("bucket".to_owned(), "crew".to_owned())].into(),
        ..account("acme", connector, Principal::Tenant, "replaced-by-the-keys")
    };
    let staging = Staging {
        policies: vec![("policy.yaml", POLICY.to_owned()), ("aws.yaml", SHIPPED.to_owned())],
        config: "limits: {inspect_body_bytes: 4096}\n".to_owned(),
        resolve: [S3, BUCKET, LAMBDA, STORE, STS].map(|name| (name.to_owned(), fake.address)).to_vec(),
        accounts: ["aws", "store", "s3"].map(account).to_vec(),
        names: Vec::new(),
        authority,
        ..Staging::default()
    };
    Some(Town { stage: Stage::set(staging).await, fake, python })
}

impl Town {
    /// A request in a tunnel, as HTTP/1.1.
    async fn ask(&self, host: &str, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let mut tunnel = self.stage.tunnel(host, "http/1.1").await;
        let mut request: http::request::Builder = inside(&tunnel, method, host, path);
        request = request.header("agent-identity", identity("acme", "researcher"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        tunnel.call(request.body(Body::from(body.to_owned())).unwrap()).await
    }
}

fn hash(body: &str) -> String {
    hex(&Sha256::digest(body))
}

/// What stood for the body, as the fake read it.
fn payload(answer: &Answer) -> String {
    assert!(answer.status.is_success(), "{}", answer.text());
    answer.headers["x-fake-payload"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_acts_with_keys_that_it_does_not_have() {
    let Some(town) = town().await else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/boto3_.py");
    let home = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(&town.python);
    command.arg(script).kill_on_drop(true).env_clear().env("HOME", home.path()).env("KB_BASE", "");
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("KB_IDENTITY", "proxy");
    let (proxy, ca) = (town.stage.proxy_url("acme", "researcher"), town.stage.ca_file());
    command.env("HTTPS_PROXY", proxy).env("AWS_CA_BUNDLE", &ca).env("SSL_CERT_FILE", &ca);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcome: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    evidence::keep("output", said.as_bytes());
    assert_eq!(outcome["ok"], true, "{outcome}");
    let payloads = json!({
        "as it comes": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "path style": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "unsigned payload": "UNSIGNED-PAYLOAD", "signed payload": hash("hello"),
    });
    assert_eq!(outcome["detail"]["payloads"], payloads);
    let actions = town.stage.actions().await;
    let stripped: Vec<&Value> = actions.iter().filter_map(|event| event.get("stripped")).collect();
    for name in ["authorization", "x-amz-date", "x-amz-security-token", "?x-amz-signature"] {
        assert!(
            stripped.iter().any(|list| list.as_array().unwrap().contains(&json!(name))),
            "{name}: {stripped:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_signed_as_its_client_says_or_else_as_the_service_takes_it() {
    let Some(town) = town().await else { return };
    let put = async |fields: &[(&str, &str)], body: &str| {
        payload(&town.ask(S3, "PUT", "/crew/note", fields, body).await)
    };
    assert_eq!(put(&[], "hello").await, "UNSIGNED-PAYLOAD");
    assert_eq!(put(&[], &"x".repeat(10_000)).await, "UNSIGNED-PAYLOAD", "an object is not read first");
    assert_eq!(put(&[("x-amz-content-sha256", &hash("hello"))], "hello").await, hash("hello"));
    assert_eq!(put(&[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "hello").await, "UNSIGNED-PAYLOAD");
    let lambda = town.ask(LAMBDA, "POST", "/functions/a%3Ab/invocations", &[], "{\"a\": 1}").await;
    assert_eq!(lambda.json()["bytes"], 8, "{}", lambda.text());
    let empty = town.ask(LAMBDA, "GET", "/functions/", &[], "").await;
    assert_eq!(empty.json()["service"], "lambda", "{}", empty.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hash_than_the_bodys_is_for_the_provider_to_refuse() {
    let Some(town) = town().await else { return };
    let answer =
        town.ask(S3, "PUT", "/crew/note", &[("x-amz-content-sha256", &hash("other"))], "hello").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (403, None), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_signed_is_refused_with_what_to_change() {
    let Some(town) = town().await else { return };
    let long = "x".repeat(5000);
    for (host, fields, body, code, says) in [
        (
            S3,
            &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")][..],
            "hello",
            "bad_request",
            "chunkedEncodingEnabled(false)",
        ),
        (S3, &[("x-amz-content-sha256", "abc")], "hello", "bad_request", "64 lower-case"),
        (S3, &[("x-amz-meta-name", "caf\u{e9}")], "hello", "bad_request", "x-amz-meta-name"),
        (LAMBDA, &[], &long, "body_too_large", "4096"),
        ("nowhere.amazonaws.com", &[], "", "destination_denied", "service and region"),
    ] {
        let answer = town.ask(host, "PUT", "/crew/note", fields, body).await;
        assert_eq!(answer.error().as_deref(), Some(code), "{host} {fields:?}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_and_query_are_signed_as_they_are_sent() {
    let Some(town) = town().await else { return };
    for path in ["/crew/a%20b%2Bc%3D%C3%A9~", "/crew/%E1%88%B4/x.y-z_0?partNumber=1&versionId=a%2Fb%20c"] {
        let answer = town.ask(S3, "PUT", path, &[], "hello").await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
    }
    let list = town.ask(BUCKET, "GET", "/?prefix=a%20b&list-type=2&delimiter=%2F", &[], "").await;
    assert!(list.status.is_success() && list.text().contains("a b+c=é~"), "{}", list.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_can_say_what_its_hosts_do_not() {
    let Some(town) = town().await else { return };
    // The fake has this bucket at every host of S3's kind.
    let answer = town.ask(STORE, "PUT", "/crew/note", &[], "hello").await;
    assert_eq!(payload(&answer), "UNSIGNED-PAYLOAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_takes_no_other_signature() {
    let Some(town) = town().await else { return };
    // Straight to it, as an agent that found a way around would ask: with keys that count for nothing.
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER".parse().unwrap());
    let answer = direct(&town, headers).await;
    assert_eq!(answer.0, 403, "{}", answer.1);
}

async fn direct(town: &Town, headers: HeaderMap) -> (u16, String) {
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(town.stage.authority.roots())
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(town.fake.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(S3).unwrap();
    let stream =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect(name, stream).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    keybearer::drain::Drain::default().spawn(connection);
    let mut request = Request::get("/crew/note").header("host", S3).body(Body::default()).unwrap();
    request.headers_mut().extend(headers);
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_role_are_obtained_for_the_token_in_a_file_and_sign() {
    let Some(town) = town().await else { return };
    let file = town.stage.dir().join("identity");
    let account = |tenant| NewAccount {
        material: Material::Seed { fields: [].into() },
        metadata: [
            ("bucket", "crew"),
            ("role_arn", "arn:aws:iam::123456789012:role/crew"),
            ("web_identity_token_file", file.to_str().unwrap()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..account(tenant, "s3", Principal::Tenant, "replaced-by-nothing")
    };
    let ask = async |tenant: &str| {
        let mut tunnel = town.stage.tunnel(BUCKET, "http/1.1").await;
        let request = inside(&tunnel, "GET", BUCKET, "/?list-type=2");
        let request = request.header("agent-identity", identity(tenant, "researcher"));
        tunnel.call(request.body(Body::from(String::new())).unwrap()).await
    };
    let key = |tenant: &str| format!("{tenant}/s3/tenant").parse().unwrap();
    town.stage.app().vault.remove(&key("acme")).await.unwrap();
    std::fs::write(&file, WEB_IDENTITY).unwrap();
    town.stage.app().vault.add(account("acme")).await.unwrap();
    for _ in 0..2 {
        let answer = ask("acme").await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }
    std::fs::write(&file, "another.issuers.token").unwrap();
    assert!(ask("acme").await.status.is_success(), "the keys live on");
    town.stage.app().vault.add(account("globex")).await.unwrap();
    let refused = ask("globex").await;
    assert_eq!(refused.error().as_deref(), Some("auth_expired"), "{}", refused.text());
    assert_eq!(refused.json()["cause"], "policy");
}
