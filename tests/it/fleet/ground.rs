//! The machines of a fleet: network namespaces on one bridge, and the real program in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use keybearer::{drain::Drain, vault::Vault};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::support::{
    evidence,
    issuer::{Grace, Issuer, Profile, Rotation},
    netns::{NameServer, Namespace},
    pod::skipped,
    postgres::Postgres,
    provider::TestAuthority,
    records,
    signer::Signer,
};

/// Which tenants the brokers' bindings give each sidecar.
pub(super) const PODS: [&[&str]; 3] = [&["acme"], &["globex"], &["acme", "globex"]];
/// How long a sidecar uses what it holds while it hears of no broker.
pub(super) const OFFLINE_USE: Duration = Duration::from_secs(4);

const WORLD: &str = "10.78.0.1";
const DATABASE: &str = "10.78.0.10";
const BROKERS: [&str; 2] = ["10.78.0.21", "10.78.0.22"];
const PROVIDER: &str = "140.82.121.6";
const BROKER: &str = "broker.fleet.test";
const DATABASE_NAME: &str = "db.fleet.test";
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A machine: where a program of ours runs, or PostgreSQL does.
pub(super) struct Machine {
    pub(super) net: Arc<Namespace>,
    /// Its end of the wire at the bridge.
    wire: String,
    dir: PathBuf,
    verb: &'static [&'static str],
    program: Option<Child>,
    log: Arc<Mutex<Vec<u8>>>,
}

/// A fleet. Everything goes when it is dropped.
pub(super) struct Fleet {
    pub(super) issuer: Issuer,
    /// The vault, past every broker.
    pub(super) vault: Vault,
    pub(super) brokers: Vec<Machine>,
    pub(super) pods: Vec<Machine>,
    pub(super) database: Machine,
    /// How often each tenant has consented.
    pub(super) consents: usize,
    postgres: Postgres,
    world: Namespace,
    _names: NameServer,
    _dir: TempDir,
}

impl Fleet {
    /// Starts two brokers over one PostgreSQL, and three sidecars. `None`, and a line that says why, on a machine where
    /// we may not make namespaces.
    pub(super) async fn start(test: &str) -> Option<Self> {
        let world = match Namespace::new("world") {
            Ok(world) => world,
            Err(why) => {
                skipped(test, &why);
                return None;
            }
        };
        let names = bridge(&world);
        let dir = tempfile::tempdir().unwrap();
        let authority = TestAuthority::new();
        // Who is killed between a provider's answer and the vault has lost a token, where it is good for once only.
        let profile = Profile { rotation: Rotation::Single(Grace::Seconds(600)), ..Profile::default() };
        let issuer = Issuer::listening(world.listener(&format!("{PROVIDER}:443")), &authority, profile);
        let database = Machine::on(&world, DATABASE, dir.path(), &[]);
        let postgres = database.net.within(|| server(&authority));
        let url = postgres.database().await;
        let vault = records::open(&url, dir.path()).await;
        let (_, name) = url.split_once("@/").unwrap();
        let name = name.split('?').next().unwrap();
        let signer = Signer::new("k1");
        let mut brokers: Vec<_> = BROKERS
            .iter()
            .map(|address| Machine::on(&world, address, dir.path(), &["vault", "serve"]))
            .collect();
        for broker in &brokers {
            broker.write_broker(&authority, &signer, name);
        }
        let mut pods: Vec<_> = (0..PODS.len())
            .map(|number| Machine::on(&world, &format!("10.78.0.3{number}"), dir.path(), &["proxy"]))
            .collect();
        for (number, pod) in pods.iter().enumerate() {
            pod.write_sidecar(&authority, &svid(&signer, number));
        }
        for machine in brokers.iter_mut().chain(&mut pods) {
            machine.start().await;
        }
        let consents = 0;
        Some(Self {
            issuer,
            vault,
            brokers,
            pods,
            database,
            consents,
            postgres,
            world,
            _names: names,
            _dir: dir,
        })
    }

    /// Takes a machine's wire out of the bridge: what it sends and what is sent to it is lost without a word.
    pub(super) fn cut(&self, machine: &Machine) {
        self.world.ip(&format!("link set {} nomaster", machine.wire));
    }

    /// Puts it back.
    pub(super) fn mend(&self, machine: &Machine) {
        self.world.ip(&format!("link set {} master br0", machine.wire));
    }

    /// Stops PostgreSQL as an upgrade does, and starts it again.
    pub(super) fn restart_database(&self) {
        self.postgres.stop();
        self.database.net.within(|| self.postgres.resume());
    }

    /// Kills PostgreSQL, and starts it again.
    pub(super) fn kill_database(&self) {
        self.postgres.stop_by("immediate");
        self.database.net.within(|| self.postgres.resume());
    }
}

impl Machine {
    /// One with a wire to the bridge, and a folder.
    fn on(world: &Namespace, address: &str, dir: &Path, verb: &'static [&'static str]) -> Self {
        let net = Arc::new(Namespace::new("fleet").unwrap());
        let wire = format!("to-{}", address.rsplit('.').next().unwrap());
        net.ip(&format!("link add eth0 type veth peer name {wire} netns {}", world.name()));
        net.ip(&format!("addr add {address}/24 dev eth0"));
        net.ip("link set eth0 up");
        net.ip(&format!("route add default via {WORLD}"));
        net.resolve_at(WORLD);
        world.ip(&format!("link set {wire} master br0"));
        world.ip(&format!("link set {wire} up"));
        let dir = dir.join(address);
        fs::create_dir(&dir).unwrap();
        Self { net, wire, dir, verb, program: None, log: Arc::default() }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).unwrap();
    }

    fn write_broker(&self, authority: &TestAuthority, signer: &Signer, database: &str) {
        let (chain, key) = authority.leaf_pem(&[BROKER.to_owned()]);
        self.write("tls.crt", &chain);
        self.write("tls.key", &key);
        self.write("roots.pem", &authority.pem());
        self.write("jwks.json", &signer.keys().to_string());
        self.write(records::APP.0, records::APP.1);
        let bindings = PODS.iter().enumerate().map(|(number, tenants)| {
            binding(&format!("pod-{number}"), &format!("{{spiffe: '{}'}}", workload(number)), tenants)
        });
        self.write("policy.yaml", &format!("{}{}", records::POLICY, bindings.collect::<String>()));
        let oauth = records::oauth();
        self.write(
            "keybearer.yaml",
            &format!(
                "data_dir: data\npolicies: [policy.yaml]\negress: {{roots: {{file: roots.pem}}}}\n{oauth}\
                 vault:\n  backend: postgres\n  url: 'postgres://keybearer@{DATABASE_NAME}/{database}'\n  \
                 key: {{file: ../key}}\n  roots: {{file: roots.pem}}\n\
                 broker:\n  listen: 0.0.0.0:7443\n  certificate: tls.crt\n  key: tls.key\n  audience: keybearer\n  \
                 issuers: [{{issuer: 'spiffe://fleet.test', kind: spiffe, jwks: {{file: jwks.json}}}}]\n"
            ),
        );
    }

    /// Its own rules let it speak for every tenant: what it may have is the brokers' to say.
    fn write_sidecar(&self, authority: &TestAuthority, token: &str) {
        self.write("roots.pem", &authority.pem());
        self.write("token", token);
        let anybody = binding("anybody", "{local: true}", &["'*'"]);
        self.write("policy.yaml", &format!("{}{anybody}", records::POLICY));
        self.write(
            "keybearer.yaml",
            &format!(
                "data_dir: data\npolicies: [policy.yaml]\nidentity: {{mode: bound}}\n\
                 egress: {{roots: {{file: roots.pem}}}}\nlimits: {{connect_timeout: 1s, upstream_timeout: 5s}}\n\
                 vault:\n  backend: broker\n  url: 'https://{BROKER}:7443'\n  token_file: token\n  \
                 roots: {{file: roots.pem}}\n  offline_use: {}s\n",
                OFFLINE_USE.as_secs()
            ),
        );
    }

    /// Starts the program, and waits until it is ready.
    pub(super) async fn start(&mut self) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.net.name(), env!("CARGO_BIN_EXE_keybearer")]);
        command.args(self.verb).args(["--log", "info"]).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::clone(&self.log);
        Drain::default().detach(async move {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = said.read(&mut bytes).await {
                log.lock().unwrap().extend(&bytes[..length]);
            }
        });
        let begun = Instant::now();
        while !self.is_ready().await {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "not ready, {ended:?}: {}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.program = Some(child);
    }

    /// Ends it as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        self.program.take().unwrap().kill().await.unwrap();
    }

    /// Ends it as Kubernetes does, and waits until it has gone.
    pub(super) async fn stop(&mut self) {
        let mut program = self.program.take().unwrap();
        let id = nix::unistd::Pid::from_raw(i32::try_from(program.id().unwrap()).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(program.wait().await.unwrap().success());
    }

    async fn is_ready(&self) -> bool {
        let Ok(stream) = self.net.connect("127.0.0.1:7090") else { return false };
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return false };
        Drain::default().spawn(connection);
        let request = http::Request::get("/readyz").header("host", "here").body(Full::<Bytes>::default());
        let Ok(answer) = sender.send_request(request.unwrap()).await else { return false };
        let is_ready = answer.status() == 200;
        answer.into_body().collect().await.is_ok() && is_ready
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.dir.display(), self.said());
            return;
        }
        evidence::keep("log", &self.log.lock().unwrap());
        evidence::keep("audit", &fs::read(self.dir.join("data/audit.jsonl")).unwrap_or_default());
    }
}

/// The wire that all are on, with the world at one end: the provider, and who knows all names.
fn bridge(world: &Namespace) -> NameServer {
    world.ip("link add br0 type bridge");
    world.ip(&format!("addr add {WORLD}/24 dev br0"));
    world.ip("link set br0 up");
    world.ip(&format!("addr add {PROVIDER} dev lo"));
    world.name_server(&[
        ("auth.provider.test", &[PROVIDER]),
        ("api.provider.test", &[PROVIDER]),
        (BROKER, &BROKERS),
        (DATABASE_NAME, &[DATABASE]),
    ])
}

/// PostgreSQL that speaks TLS only, to its network.
fn server(authority: &TestAuthority) -> Postgres {
    let (chain, key) = authority.leaf_pem(&[DATABASE_NAME.to_owned()]);
    Postgres::start(
        &format!("listen_addresses = '{DATABASE}'\nssl = on\n"),
        &[
            ("server.crt", &chain),
            ("server.key", &key),
            ("pg_hba.conf", "local all all trust\nhostssl all all 10.78.0.0/24 trust\n"),
        ],
    )
}

fn binding(name: &str, workload: &str, tenants: &[&str]) -> String {
    format!(
        "---\napiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {{name: {name}}}\n\
         spec: {{workloads: [{workload}], tenants: [{}], roles: [researcher]}}\n",
        tenants.join(", ")
    )
}

fn workload(pod: usize) -> String {
    format!("spiffe://fleet.test/pod-{pod}")
}

/// A JWT-SVID for a pod.
fn svid(signer: &Signer, pod: usize) -> String {
    let expires = Timestamp::now().as_second() + 3600;
    signer.token(&json!({"sub": workload(pod), "aud": ["keybearer"], "exp": expires}))
}
