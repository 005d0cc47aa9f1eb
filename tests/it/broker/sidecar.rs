//! `keybearer proxy` with a broker: real processes, a real cluster's tokens, and a provider that says whose secret came.

use std::{
    fs,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use http::Response;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use keybearer::drain::Drain;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    cli::Desk,
    laws::wire::until,
    support::{
        agent::{Answer, Body, absolute, identity},
        broker::{Broker, folder},
        cluster::Cluster,
        evidence,
        provider::{Provider, Setup, TestAuthority},
        stage::{HOST, SECRETS},
    },
};

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: ["api.crm.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {accounts:read: []}
  operations: [{name: account.read, request: ["GET /echo", "GET /stream/{n}/paced"], scopes: [accounts:read]}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: tenant, scopes: [accounts:read]}]
"#;
const URL: &str = "http://api.crm.test/echo";
const ACME: &str = "acme/crm/tenant";

/// The policy, with each service account's tenant.
fn bound() -> String {
    let document = |(name, tenant): (&str, &str)| {
        format!(
            "---\napiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {{name: {name}}}\n\
             spec: {{workloads: [{{serviceAccount: agents/{name}}}], tenants: [{tenant}], roles: [researcher]}}\n"
        )
    };
    POLICY.to_owned() + &[("crew", "acme"), ("other", "globex")].map(document).concat()
}

/// A broker with two tenants' accounts, and a provider that knows their secrets.
struct Scene {
    desk: Desk,
    authority: TestAuthority,
    cluster: Cluster,
    provider: Provider,
    broker: Option<Broker>,
    address: SocketAddr,
}

impl Scene {
    async fn set() -> Self {
        evidence::keep_logs();
        keybearer::tls::init_crypto();
        let (desk, authority) = (Desk::new(), TestAuthority::new());
        let cluster = Cluster::start(&authority).await;
        folder(&desk, &authority, &cluster, &bound(), "");
        let broker = Broker::start(&desk).await;
        let address = broker.address;
        for (tenant, secret) in SECRETS {
            desk.done(&["account", "add", &format!("{tenant}/crm/tenant")], secret);
        }
        let known = SECRETS.map(|(tenant, secret)| (secret.to_owned(), tenant.to_owned()));
        let setup = Setup {
            names: vec![HOST.to_owned()],
            credentials: known.into_iter().collect(),
            ..Setup::default()
        };
        let provider = Provider::start(&authority, setup).await;
        Self { desk, authority, cluster, provider, broker: Some(broker), address }
    }

    /// A sidecar of this service account.
    async fn sidecar(&self, workload: &str, config: &str) -> Sidecar {
        let desk = Desk::new();
        let write = |file: &str, text: &str| fs::write(desk.dir.path().join(file), text).unwrap();
        write("roots.pem", &self.authority.pem());
        write("policies/policy.yaml", POLICY);
        write("token", &self.cluster.token(&format!("agents/{workload}")));
        write(
            "keybearer.yaml",
            &format!(
                "data_dir: data\nlisten: {{proxy: '127.0.0.1:0', admin: '127.0.0.1:0'}}\negress:\n  roots: {{file: \
                 roots.pem}}\n  allow_addresses: [127.0.0.0/8]\n  resolve: {{{HOST}: '{}'}}\nvault: {{backend: broker, \
                 url: 'https://{}', token_file: token, roots: {{file: roots.pem}}, offline_use: 3s}}\n{config}",
                self.provider.address(),
                self.address
            ),
        );
        Sidecar::start(desk).await
    }

    /// Kills the broker as `kill -9` does.
    async fn kill(&mut self) {
        drop(self.broker.take());
        until("the broker is gone", async || TcpStream::connect(self.address).await.is_err().then_some(()))
            .await;
    }

    /// Starts it again where it was.
    async fn resume(&mut self) {
        let file = self.desk.dir.path().join("keybearer.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let port = format!("broker:\n  listen: {}\n", self.address);
        fs::write(&file, text.replace("broker:\n  listen: 127.0.0.1:0\n", &port)).unwrap();
        self.broker = Some(Broker::start(&self.desk).await);
    }
}

/// A process; it is killed when dropped.
struct Sidecar {
    desk: Desk,
    proxy: SocketAddr,
    admin: SocketAddr,
    _child: Child,
}

impl Sidecar {
    async fn start(desk: Desk) -> Self {
        let mut command = Command::from(desk.command(&["proxy", "--log", "debug"]));
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = pipes.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let greeting = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("agents at http://") {
                    let (proxy, rest) = rest.split_once(", admin at http://").unwrap();
                    let (admin, rest) = rest.split_once(',').unwrap();
                    assert!(rest.contains("accounts at the broker https://127.0.0.1:"), "{rest}");
                    return (proxy.parse().unwrap(), admin.parse().unwrap());
                }
                eprintln!("{line}");
            }
            panic!("it did not start");
        };
        let (proxy, admin) = timeout(Duration::from_mins(1), greeting).await.expect("it starts in a minute");
        Drain::default().detach(async move {
            let mut all = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                all.push_str(&line);
                all.push('\n');
            }
            evidence::keep("log", all.as_bytes());
        });
        let sidecar = Self { desk, proxy, admin, _child: child };
        until("the sidecar is ready", async || (sidecar.seen("/readyz").await.status == 200).then_some(()))
            .await;
        sidecar
    }

    /// Sends one request over a connection of its own.
    async fn send(&self, url: &str, tenant: &str) -> Response<Incoming> {
        let request = absolute("GET", url).header("agent-identity", identity(tenant, "researcher"));
        sent(self.proxy, request.body(Body::default()).unwrap()).await
    }

    async fn get(&self, tenant: &str) -> Answer {
        Answer::read(self.send(URL, tenant).await).await
    }

    /// Whose secret the provider got, or why it got none.
    async fn told(&self, tenant: &str) -> String {
        let answer = self.get(tenant).await;
        let whose = || answer.headers["x-provider-tenant"].to_str().unwrap().to_owned();
        answer.error().unwrap_or_else(whose)
    }

    async fn becomes(&self, tenant: &str, what: &str) {
        until(what, async || (self.told(tenant).await == what).then_some(())).await;
    }

    /// What the admin listener shows.
    async fn seen(&self, path: &str) -> Answer {
        let request = http::Request::get(path).header("host", "localhost");
        Answer::read(sent(self.admin, request.body(Body::default()).unwrap()).await).await
    }
}

async fn sent(to: SocketAddr, request: http::Request<Body>) -> Response<Incoming> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    Drain::default().spawn(connection);
    sender.send_request(request).await.unwrap()
}

/// With neither a vault nor policy files of their own.
#[tokio::test(flavor = "multi_thread")]
async fn each_sidecar_has_its_own_tenants_accounts_and_rules() {
    let scene = Scene::set().await;
    let crew = scene.sidecar("crew", "identity: {mode: bound}\n").await;
    let other = scene.sidecar("other", "identity: {mode: bound}\n").await;
    assert_eq!((crew.told("acme").await, other.told("globex").await), ("acme".into(), "globex".into()));
    assert_eq!(crew.told("globex").await, "identity_not_allowed");
    assert_eq!(other.told("acme").await, "identity_not_allowed");
    let metrics = crew.seen("/metrics").await.text();
    assert!(metrics.contains("keybearer_broker_connected 1"), "{metrics}");
    assert!(
        metrics.contains(r#"keybearer_broker_calls_total{ask="give",outcome="answered"} 1"#),
        "{metrics}"
    );
}

/// A stolen sidecar believes whom it likes, and its rules give it everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_lets_everybody_pass_gets_its_own_tenants_accounts_only() {
    let scene = Scene::set().await;
    let stolen = scene.sidecar("crew", "policies: [policies/policy.yaml]\n").await;
    assert_eq!(stolen.told("acme").await, "acme");
    let refused = stolen.get("globex").await;
    assert_eq!((refused.status.as_u16(), refused.error().as_deref()), (403, Some("identity_not_allowed")));
    assert_eq!(refused.json()["tenant"], "globex");
    assert!(
        refused.json()["detail"].as_str().unwrap().contains("the broker gives this workload no crm account")
    );
}

/// Prints how long it takes from the command's end; `docs/broker.md` has the figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_at_the_broker_refuses_the_sidecars_next_request_and_ends_its_streams() {
    const ROUNDS: usize = 20;
    let scene = Scene::set().await;
    let crew = scene.sidecar("crew", "").await;
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        crew.becomes("acme", "acme").await;
        let stream = crew.send("http://api.crm.test/stream/9/paced", "acme").await;
        assert_eq!(stream.status(), 200);
        scene.desk.done(&["account", "freeze", ACME, "--by", "ops"], "");
        let begun = Instant::now();
        crew.becomes("acme", "account_frozen").await;
        taken.push(begun.elapsed());
        let ended = timeout(Duration::from_secs(10), stream.collect()).await;
        assert!(ended.expect("it goes on").is_err(), "it is broken off");
        scene.desk.done(&["account", "unfreeze", ACME], "");
    }
    taken.sort_unstable();
    println!(
        "from a freeze at the broker to the sidecar's refusal: p50 {:?}, p99 {:?}",
        taken[ROUNDS / 2],
        taken[ROUNDS - 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_outlives_its_broker_within_the_bound_and_finds_it_again() {
    let mut scene = Scene::set().await;
    let crew = scene.sidecar("crew", "").await;
    assert_eq!(crew.told("acme").await, "acme");
    scene.kill().await;
    assert_eq!(crew.told("acme").await, "acme", "what it holds is good for 3 s");
    crew.becomes("acme", "vault_unavailable").await;
    assert_eq!(crew.seen("/readyz").await.status, 503);
    scene.resume().await;
    crew.becomes("acme", "acme").await;
    assert_eq!(crew.seen("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_beside_a_sidecar_say_where_the_accounts_are() {
    let scene = Scene::set().await;
    let crew = scene.sidecar("crew", "").await;
    let says = format!("the accounts are at the broker https://{}: run this there", scene.address);
    for command in [&["account", "list"][..], &["vault", "status"], &["vault", "init"]] {
        let ran = crew.desk.run(command, "");
        assert!(ran.status == 1 && ran.err.contains(&says), "{command:?} {ran:?}");
    }
    // Who does not know the sidecar's configuration is told by the sidecar itself.
    fs::write(crew.desk.dir.path().join("keybearer.yaml"), "data_dir: data\n").unwrap();
    let ran = crew.desk.run(&["account", "list"], "");
    assert!(ran.status == 1 && ran.err.contains(&says), "{ran:?}");
}
