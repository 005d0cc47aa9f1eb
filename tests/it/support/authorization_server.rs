//! A real authorization server: npm's `oidc-provider`, a certified implementation, as a process on loopback.
//!
//! `tests/servers/authorization_server.mjs` says what it offers: code with PKCE, refresh with rotation and reuse
//! detection, client credentials, revocation, introspection, and pages on which a person signs in and consents.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{browser::Browser, provider::TestAuthority};

/// The name on its certificate.
pub(crate) const HOST: &str = "auth.server.test";
pub(crate) const CLIENT: &str = "keybearer";
pub(crate) const SECRET: &str = "kb-canary-oidc-client-0b7e";

/// A running server; it ends when dropped.
pub(crate) struct AuthorizationServer {
    address: SocketAddr,
    _process: Child,
    _dir: TempDir,
}

impl AuthorizationServer {
    /// Starts it with one client, which may be sent back to `redirect_uri`.
    ///
    /// # Panics
    /// If `tests/setup.sh` has not installed it.
    pub(crate) async fn start(authority: &TestAuthority, redirect_uri: &str) -> Self {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
        assert!(servers.join("node_modules").exists(), "oidc-provider is not installed: run tests/setup.sh");
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = authority.leaf_pem(&[HOST.to_owned()]);
        std::fs::write(dir.path().join("cert.pem"), chain).unwrap();
        std::fs::write(dir.path().join("key.pem"), key).unwrap();
        let client = json!({"client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [redirect_uri]});
        let mut process = Command::new("node")
            .arg(servers.join("authorization_server.mjs"))
            .env("AS_HOST", HOST)
            .env("AS_KEY", dir.path().join("key.pem"))
            .env("AS_CERT", dir.path().join("cert.pem"))
            .env("AS_CLIENTS", json!([client]).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is there: run tests/setup.sh");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = timeout(Duration::from_mins(1), lines.next_line()).await.expect("it starts in a minute");
        let line = first.unwrap().expect("it says where it listens");
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
        Self { address: ([127, 0, 0, 1], port).into(), _process: process, _dir: dir }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name and port, as an issuer and as the base of all its URLs.
    pub(crate) fn issuer(&self) -> String {
        format!("https://{HOST}:{}", self.address.port())
    }
}

/// What a person answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// Yes, but not to these scopes.
    AllowWithout(&'a [&'a str]),
    Deny,
}

/// A person at a browser follows an authorization URL, signs in under the name, answers, and is sent back. The
/// address where they land, which begins with `callback`.
pub(crate) async fn walk(
    browser: &Browser,
    url: &str,
    callback: &str,
    name: &str,
    answer: Answer<'_>,
) -> String {
    browser.open(url).await;
    browser.fill("input[name=login]", name).await;
    browser.click("button").await;
    if let Answer::AllowWithout(scopes) = answer {
        for scope in scopes {
            browser.click(&format!("input[value='{scope}']")).await;
        }
    }
    let button = if answer == Answer::Deny { "deny" } else { "allow" };
    browser.click(&format!("button[value={button}]")).await;
    browser.lands_at(callback).await
}
