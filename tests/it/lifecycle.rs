//! Revocation tied to lifecycle: what operators freeze as a whole, what an identity provider says over SCIM, and the
//! security events that it signs. Each reaches the next request and ends open streams; whatever is not authenticated
//! changes nothing.

mod scim;
mod ssf;
mod whole;

use std::{future::Future, time::Duration};

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use keybearer::id::Principal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    agent::{Answer, Body, Connection, absolute},
    evidence,
    stage::{POLICY, Stage, Staging, account},
};

/// Who is frozen in these tests, as agents write it.
const ALICE: &str = "alice@acme.example";
const BOB: &str = "bob@acme.example";
/// What the users' accounts hold.
const USERS: [(&str, &str, &str); 3] = [
    ("acme", ALICE, "kb-canary-acme-alice-51c2"),
    ("acme", BOB, "kb-canary-acme-bob-9d1e"),
    ("globex", ALICE, "kb-canary-globex-alice-77f0"),
];

const ASSISTANT: &str = "
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: assistant}
spec:
  tenants: [\"*\"]
  grants: [{connector: crm, as: user, scopes: [accounts:read]}]
";

fn of_user(user: &str) -> Principal {
    Principal::User { user: user.parse().unwrap(), role: "assistant".parse().unwrap() }
}

/// A stage whose users have accounts, with a folder for what the configuration names.
struct Scene {
    stage: Stage,
    /// Files that the configuration names; `FILES` in it is this folder.
    _files: TempDir,
}

impl Scene {
    async fn set(lifecycle: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let config = format!("lifecycle:\n{lifecycle}").replace("FILES", folder.path().to_str().unwrap());
        let config = if lifecycle.is_empty() { String::new() } else { config };
        let mut accounts = Staging::default().accounts;
        accounts.extend(USERS.map(|(tenant, user, secret)| account(tenant, "crm", of_user(user), secret)));
        let policies = vec![("policy.yaml", POLICY.to_owned()), ("assistant.yaml", ASSISTANT.to_owned())];
        let credentials = USERS.map(|(tenant, _, secret)| (secret.to_owned(), tenant.to_owned())).to_vec();
        let staging = Staging { policies, config, accounts, credentials, ..Staging::default() };
        Self { stage: Stage::set(staging).await, _files: folder }
    }

    /// What the very next request of an agent of this user is answered: the status, and by whom the account is frozen.
    async fn asked(&self, tenant: &str, user: &str) -> (u16, Option<String>) {
        let answer = Answer::read(self.get(tenant, user, "/echo").await.1).await;
        let by = (answer.error().as_deref() == Some("account_frozen"))
            .then(|| answer.json()["by"].as_str().unwrap().to_owned());
        (answer.status.as_u16(), by)
    }

    /// A stream of events that goes on until it is ended.
    async fn stream(&self, user: &str) -> (Connection, Response<Incoming>) {
        let (connection, answer) = self.get("acme", user, "/stream/9/paced").await;
        assert_eq!(answer.status(), 200);
        (connection, answer)
    }

    async fn get(&self, tenant: &str, user: &str, path: &str) -> (Connection, Response<Incoming>) {
        let mut direct = self.stage.direct().await;
        let identity = format!("tenant=\"{tenant}\", role=\"assistant\", user=\"{user}\"");
        let request =
            absolute("GET", &format!("http://api.crm.test{path}")).header("agent-identity", identity);
        let answer = direct.send(request.body(Body::default()).unwrap()).await.unwrap();
        (direct, answer)
    }

    /// The account events so far, with what they are about.
    async fn told(&self) -> Vec<String> {
        let events = self.stage.events().await;
        let told = events.iter().filter(|event| event["kind"] == "account");
        told.map(|event| {
            let user = event["user"].as_str().map(|user| format!(" {user}")).unwrap_or_default();
            format!("{} {}{user}", event["event"].as_str().unwrap(), event["tenant"].as_str().unwrap())
        })
        .collect()
    }

    /// Sends a request to the admin listener under the public name that whatever ends TLS before it has.
    async fn call(&self, method: &str, path: &str, head: &str, body: &str) -> Told {
        let mut io = TcpStream::connect(self.stage.app().admin).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: keybearer.acme.example\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        evidence::keep("answer", &answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Told { status, head: head.to_ascii_lowercase(), body }
    }
}

/// An answer of the admin listener.
#[derive(Debug)]
struct Told {
    status: u16,
    head: String,
    body: Value,
}

/// Fails where a stream goes on that must have ended.
async fn ends(stream: (Connection, Response<Incoming>)) {
    let (_connection, answer) = stream;
    let collected = within(answer.collect()).await;
    assert!(collected.is_err(), "it is broken off, not ended well");
}

async fn within<F: Future>(done: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("it goes on")
}
