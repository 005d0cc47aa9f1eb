//! The proxy as a process of its own before the issuer, to be raced and to be killed.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keybearer::drain::Drain;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use super::{
    agent::{Answer, Body, absolute, identity},
    evidence,
    issuer::Issuer,
    provider::TestAuthority,
    records,
};

/// A process; it is killed when dropped.
pub(crate) struct Sidecar {
    pub(crate) proxy: SocketAddr,
    child: Child,
    dir: TempDir,
}

impl Sidecar {
    /// Starts it with more of the configuration, the vault's section for one.
    pub(crate) async fn start(config: &str, issuer: &Issuer, authority: &TestAuthority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write("roots.pem", &authority.pem());
        write(records::APP.0, records::APP.1);
        write("policy.yaml", records::POLICY);
        let address = issuer.address();
        let oauth = records::oauth();
        write(
            "keybearer.yaml",
            &format!(
                "data_dir: data\nlisten: {{proxy: '127.0.0.1:0', admin: '127.0.0.1:0'}}\npolicies: [policy.yaml]\n\
                 egress:\n  roots: {{file: roots.pem}}\n  allow_addresses: [127.0.0.0/8]\n  resolve:\n    \
                 auth.provider.test: '{address}'\n    api.provider.test: '{address}'\n{oauth}{config}"
            ),
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_keybearer"))
            .args(["proxy", "--log", "warn"])
            .current_dir(dir.path())
            .env_clear()
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let greeting = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("agents at http://") {
                    return rest.split(',').next().unwrap().parse().unwrap();
                }
                eprintln!("{line}");
            }
            panic!("it did not start");
        };
        let proxy = timeout(Duration::from_mins(1), greeting).await.expect("it starts in a minute");
        Drain::default().detach(async move {
            let mut all = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
                all.push_str(&line);
            }
            evidence::keep("log", all.as_bytes());
        });
        Self { proxy, child, dir }
    }

    /// Kills it as `kill -9` does, waits until it is gone, and returns what it had recorded.
    pub(crate) async fn kill(mut self) -> Vec<Value> {
        self.child.kill().await.unwrap();
        self.events()
    }

    /// The audit log's events so far, oldest first.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("data/audit.jsonl")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Asks once as a tenant's researcher, over a connection of its own.
pub(crate) async fn ask(proxy: SocketAddr, tenant: &str) -> hyper::Result<Answer> {
    let stream = TcpStream::connect(proxy).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    Drain::default().spawn(connection);
    let request = absolute("GET", records::URL).header("agent-identity", identity(tenant, "researcher"));
    let answer = sender.send_request(request.body(Body::default()).unwrap()).await?;
    Ok(Answer::read(answer).await)
}

/// Asks until it is not told to come again: what the answer is then, and how often it came again.
pub(crate) async fn served(proxy: SocketAddr, tenant: &str) -> (Answer, usize) {
    const PATIENCE: usize = 20;
    for again in 0..PATIENCE {
        let answer = ask(proxy, tenant).await.unwrap();
        if !answer.headers.contains_key("retry-after") {
            return (answer, again);
        }
    }
    panic!("{tenant} was told to come again {PATIENCE} times");
}
