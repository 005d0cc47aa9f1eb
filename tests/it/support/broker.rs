//! `keybearer vault serve` as a process of its own, and a sidecar that speaks to it by hand.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use keybearer::drain::Drain;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    agent::{Connection, http_over},
    cluster::{API_TOKEN, Cluster},
    evidence,
    provider::TestAuthority,
};
use crate::cli::Desk;

/// A broker's folder: the configuration, the policy, the certificate, and what the issuer wants.
pub(crate) fn folder(desk: &Desk, authority: &TestAuthority, cluster: &Cluster, policy: &str, config: &str) {
    let write = |file: &str, text: &str| fs::write(desk.dir.path().join(file), text).unwrap();
    let (chain, key) = authority.leaf_pem(&["127.0.0.1".to_owned()]);
    write("tls.crt", &chain);
    write("tls.key", &key);
    write("roots.pem", &authority.pem());
    write("api.token", &format!("{API_TOKEN}\n"));
    write("policies/policy.yaml", policy);
    write(
        "keybearer.yaml",
        &format!(
            "data_dir: data\nlisten: {{admin: '127.0.0.1:0'}}\nbroker:\n  listen: 127.0.0.1:0\n  certificate: tls.crt\n  \
             key: tls.key\n  issuers: [{}]\n{config}",
            cluster.entry()
        ),
    );
}

/// A running broker; it is killed when dropped.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
}

impl Broker {
    /// Starts it in this folder.
    pub(crate) async fn start(desk: &Desk) -> Self {
        let mut command = Command::from(desk.command(&["vault", "serve", "--log", "debug"]));
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = pipes.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let greeting = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("sidecars at https://") {
                    let (broker, rest) = rest.split_once(", admin at http://").unwrap();
                    let admin = rest.split(';').next().unwrap();
                    return (broker.parse().unwrap(), admin.parse().unwrap());
                }
                eprintln!("{line}");
            }
            panic!("it did not start");
        };
        let (address, admin) =
            timeout(Duration::from_mins(1), greeting).await.expect("it starts in a minute");
        Drain::default().detach(async move {
            let mut all = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                all.push_str(&line);
                all.push('\n');
            }
            evidence::keep("log", all.as_bytes());
        });
        Self { address, admin, child }
    }

    /// Tells it to stop, as Kubernetes does.
    pub(crate) fn stop(&self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
    }

    /// What it ended with.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = timeout(Duration::from_mins(1), self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.signal(), None);
        status
    }
}

/// A sidecar's connection to a broker.
pub(crate) struct Caller {
    connection: Connection,
    token: String,
}

impl Caller {
    pub(crate) async fn connect(
        address: SocketAddr,
        authority: &TestAuthority,
        alpn: &str,
        token: String,
    ) -> Self {
        let roots = authority.roots();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        Self { connection: http_over(tls).await, token }
    }

    /// Says from now on that it is whoever this token is of.
    pub(crate) fn becomes(&mut self, token: String) {
        self.token = token;
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        extra: &str,
        body: String,
    ) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header(header::HOST, "127.0.0.1")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header("x-extra", extra)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.connection.send(request).await
    }

    /// Asks for an account. What comes is kept nowhere: it may be a secret.
    pub(crate) async fn ask(&mut self, account: &str, role: &str, ask: &str) -> (StatusCode, Value) {
        let tenant = account.split('/').next().unwrap();
        let question = json!({"account": account, "subject": {"tenant": tenant, "role": role}, "ask": ask});
        let answer = self.send("POST", "/v1/credential", "", question.to_string()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// The watch, which has begun.
    pub(crate) async fn watch(&mut self) -> Watch {
        let answer = self.send("GET", "/v1/watch", "", String::new()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let mut watch = Watch { body: answer.into_body(), read: Vec::new() };
        assert!(watch.next().await["begin"]["policy_revision"].is_string());
        watch
    }
}

/// The lines of a watch.
pub(crate) struct Watch {
    body: Incoming,
    read: Vec<u8>,
}

impl Watch {
    /// The next line; `null` at the end.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            match self.body.frame().await {
                Some(frame) => self.read.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                None => return Value::Null,
            }
        }
    }

    /// The next line that tells of something.
    pub(crate) async fn news(&mut self) -> Value {
        let found = async {
            loop {
                let line = self.next().await;
                if line != json!({"heard": true}) {
                    return line;
                }
            }
        };
        timeout(Duration::from_mins(1), found).await.expect("something is told")
    }
}
