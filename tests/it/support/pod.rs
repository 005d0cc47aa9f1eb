//! A pod, for real: a network namespace with the program as its sidecar under a user of its own, the rules that
//! `keybearer redirect install` makes, and agents under another user that know of no proxy. Beyond the one wire is
//! the world: the provider under its real names, at public addresses, and the name server that says so.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use keybearer::{app::App, config::Config, drain::Drain, vault::NewAccount};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    evidence,
    netns::{NameServer, Namespace},
    provider::{Credentials, Provider, Registries, Setup, TestAuthority},
    stage::SECRETS,
};

/// The sidecar's user, which is the container image's.
pub(crate) const SIDECAR: u32 = 65532;
/// The agents' user.
pub(crate) const AGENT: u32 = 1000;
/// The pod's addresses, those of another pod on the same network, and the world's there.
pub(crate) const POD: [&str; 2] = ["10.77.0.2", "fd77::2"];
const NEIGHBOUR: [&str; 2] = ["10.77.0.3", "fd77::3"];
pub(crate) const WORLD: [&str; 2] = ["10.77.0.1", "fd77::1"];

/// The world: every name, and where it is. One name has no IPv4 address, and one leads into the pod's own network.
pub(crate) const NAMES: [(&str, &[&str]); 16] = [
    ("api.provider.test", &["140.82.121.6"]),
    ("github.com", &["140.82.121.4"]),
    ("api.openai.com", &["2606:50c0:8000::153"]),
    ("api.anthropic.com", &["140.82.121.10", "2606:50c0:8000::154"]),
    ("stranger.test", &["140.82.121.9"]),
    ("opaque.tunnel.test", &["140.82.121.11"]),
    ("db.tunnel.test", &["140.82.121.12", "2606:50c0:8000::155"]),
    ("inner.test", &[WORLD[0]]),
    ("api.github.com", &["140.82.121.5"]),
    ("pypi.org", &["151.101.0.223", "2a04:4e42::223"]),
    ("files.pythonhosted.org", &["151.101.0.224", "2a04:4e42::224"]),
    ("registry.npmjs.org", &["104.16.0.35"]),
    ("index.crates.io", &["151.101.2.137"]),
    ("static.crates.io", &["151.101.3.137"]),
    ("deb.debian.org", &["151.101.2.132", "2a04:4e42::644"]),
    ("mcr.microsoft.com", &["150.171.70.10"]),
];

/// Addresses of the world that no name has.
const NAMELESS: [&str; 1] = ["140.82.121.66"];

const CONFIG: &str = "
data_dir: ./data
policies: [./policies]
";

/// What a pod is made of.
pub(crate) struct Making {
    pub(crate) policies: Vec<(&'static str, String)>,
    pub(crate) accounts: Vec<NewAccount>,
    /// The `egress` section but for the roots.
    pub(crate) egress: &'static str,
    /// More of the configuration.
    pub(crate) config: &'static str,
    /// The options of `keybearer redirect install`.
    pub(crate) redirect: &'static [&'static str],
    /// Where the admin side is: on loopback, or where the kubelet's probes reach it.
    pub(crate) admin: &'static str,
    pub(crate) registries: Registries,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            accounts: Vec::new(),
            egress: "",
            config: "",
            redirect: &[],
            admin: "127.0.0.1:7090",
            registries: Registries::default(),
        }
    }
}

/// A running pod and its world. Everything goes when it is dropped.
pub(crate) struct Pod {
    pub(crate) provider: Provider,
    pub(crate) net: Namespace,
    pub(crate) world: Namespace,
    log: Arc<Mutex<String>>,
    dir: TempDir,
    _names: NameServer,
    _sidecar: Child,
}

impl Pod {
    /// Starts one. `None`, and a line that says why, on a machine where we may not make namespaces.
    pub(crate) async fn start(test: &str, making: Making) -> Option<Self> {
        let (net, world) = match Namespace::new("pod").and_then(|net| Ok((net, Namespace::new("world")?))) {
            Ok(both) => both,
            Err(why) => {
                skipped(test, &why);
                return None;
            }
        };
        wire(&world);
        join(&net, &world, "pod", POD);
        let names = world.name_server(&NAMES);
        let authority = TestAuthority::new();
        let setup = Setup {
            names: NAMES.map(|(name, _)| name.to_owned()).to_vec(),
            credentials: SECRETS.iter().map(|(tenant, secret)| (*secret, *tenant)).collect::<Credentials>(),
            registries: making.registries.clone(),
            ..Setup::default()
        };
        let provider = Provider::listening(world.listener("[::]:443"), &authority, setup).await;
        let dir = folder(&making, &authority);
        fill(&dir, making.accounts).await;
        let log = Arc::new(Mutex::new(String::new()));
        let sidecar = sidecar(&net, dir.path(), &log).await;
        let pod = Self { provider, net, world, log, dir, _names: names, _sidecar: sidecar };
        let installed = pod.redirect("install", making.redirect).await;
        assert!(installed.0, "{installed:?}");
        Some(pod)
    }

    /// Another pod on the same network, with nobody in it yet.
    pub(crate) fn neighbour(&self) -> Namespace {
        let net = Namespace::new("neighbour").unwrap();
        join(&net, &self.world, "neighbour", NEIGHBOUR);
        net
    }

    /// Runs `keybearer redirect` in the pod, as its init container would: success, standard output and error.
    pub(crate) async fn redirect(&self, verb: &str, options: &[&str]) -> (bool, String, String) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.net.name()]).arg(program(self.dir.path()));
        command.args(["redirect", verb]).args(options).current_dir(self.dir.path());
        told(command).await
    }

    /// A command in the pod, as the agents' user.
    pub(crate) fn agent(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.user(AGENT, program)
    }

    /// A command in the pod, as another user. It may read every file, so that the clients can be anybody's.
    pub(crate) fn user(&self, uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.net.name(), "setpriv"]);
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg("--clear-groups");
        command.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// A connection from the pod to anywhere, by a user that is not the sidecar's.
    pub(crate) fn connect(&self, address: &str) -> TcpStream {
        self.net.connect(address).unwrap()
    }

    /// The sidecar's CA.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("data/ca/ca.pem")
    }

    /// The provider's own CA.
    pub(crate) fn roots_file(&self) -> PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// Both, as a bundle has the system's roots besides ours.
    pub(crate) fn bundle_file(&self) -> PathBuf {
        let bundle = self.dir.path().join("bundle.pem");
        let both = [self.ca_file(), self.roots_file()].map(|file| fs::read_to_string(file).unwrap());
        fs::write(&bundle, both.concat()).unwrap();
        bundle
    }

    /// A folder that the agents' user may write to.
    pub(crate) fn home() -> TempDir {
        let home = tempfile::tempdir().unwrap();
        chown(home.path(), Some(AGENT), Some(AGENT)).unwrap();
        home
    }

    /// The first action on record that is so. The log is written a moment after an answer.
    pub(crate) async fn recorded(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        self.awaited(|actions| actions.into_iter().find(&is_so)).await
    }

    /// All actions, once there are as many.
    pub(crate) async fn recorded_all(&self, count: usize) -> Vec<Value> {
        self.awaited(|actions| (actions.len() >= count).then_some(actions)).await
    }

    async fn awaited<T>(&self, found: impl Fn(Vec<Value>) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = found(self.actions()) {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), found).await;
        found.expect("it is recorded")
    }

    /// The actions on record so far.
    pub(crate) fn actions(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("data/audit.jsonl")).unwrap();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        whole.filter(|event| event["kind"] == "action").collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let log = self.log.lock().unwrap().clone();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr().lock(), "the sidecar's log:\n{log}");
            return;
        }
        evidence::keep("log", log.as_bytes());
        evidence::keep("audit", &fs::read(self.dir.path().join("data/audit.jsonl")).unwrap_or_default());
    }
}

/// What a command says when it has ended.
pub(crate) async fn told(mut command: Command) -> (bool, String, String) {
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Says so where the test harness does not swallow it; `tests/counted.sh` counts these lines. Nothing that could be
/// installed changes what this process may do, so it is no failure; root, who may, must be able to.
pub(crate) fn skipped(test: &str, why: &str) {
    assert!(!nix::unistd::geteuid().is_root() || why.contains("Operation not permitted"), "{why}");
    let _ = writeln!(std::io::stderr().lock(), "transparent: {test}: SKIPPED {why}");
}

/// The network that pods are on, and each address of the world's beyond it.
pub(crate) fn wire(world: &Namespace) {
    world.ip("link add pods type bridge");
    address(world, "pods", WORLD);
    let addresses = NAMES.iter().flat_map(|(_, all)| all.iter()).chain(&NAMELESS);
    for address in addresses.filter(|address| **address != WORLD[0]) {
        world.ip(&format!("addr add {address} dev lo{}", if address.contains(':') { " nodad" } else { "" }));
    }
}

/// Puts a pod on that network; `port` is its end of the wire there.
pub(crate) fn join(net: &Namespace, world: &Namespace, port: &str, addresses: [&str; 2]) {
    net.ip(&format!("link add eth0 type veth peer name {port} netns {}", world.name()));
    world.ip(&format!("link set {port} master pods up"));
    address(net, "eth0", addresses);
    net.ip(&format!("route add default via {}", WORLD[0]));
    net.ip(&format!("-6 route add default via {}", WORLD[1]));
    net.resolve_at(WORLD[0]);
}

fn address(namespace: &Namespace, device: &str, [v4, v6]: [&str; 2]) {
    namespace.ip(&format!("addr add {v4}/24 dev {device}"));
    namespace.ip(&format!("addr add {v6}/64 dev {device} nodad"));
    namespace.ip(&format!("link set {device} up"));
}

/// The configuration, policies and data of a sidecar, which its user may use.
fn folder(making: &Making, authority: &TestAuthority) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path.join("roots.pem"), authority.pem()).unwrap();
    fs::create_dir(path.join("policies")).unwrap();
    for (file, text) in &making.policies {
        fs::write(path.join("policies").join(file), text).unwrap();
    }
    let config = format!(
        "listen: {{proxy: 127.0.0.1:7080, transparent: 127.0.0.1:7081, admin: '{}'}}{CONFIG}\
         egress: {{roots: {{file: roots.pem}}, {}}}\n{}",
        making.admin, making.egress, making.config
    );
    fs::write(path.join("keybearer.yaml"), config).unwrap();
    let ours = Path::new(env!("CARGO_BIN_EXE_keybearer"));
    let linked = fs::hard_link(ours, program(path));
    linked.or_else(|_| fs::copy(ours, program(path)).map(drop)).unwrap();
    dir
}

/// The program where the sidecar's user may execute it, wherever this repository is.
fn program(dir: &Path) -> PathBuf {
    dir.join("keybearer")
}

/// Puts the accounts into the vault before the sidecar has it.
async fn fill(dir: &TempDir, accounts: Vec<NewAccount>) {
    keybearer::tls::init_crypto();
    let mut config = Config::load(Some(&dir.path().join("keybearer.yaml"))).unwrap();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    (config.listen.proxy, config.listen.admin, config.listen.transparent) = (anywhere, anywhere, None);
    let app = App::start(config).await.unwrap();
    for account in accounts {
        app.vault.add(account).await.unwrap();
    }
    app.stop().await;
    own(&dir.path().join("data"));
}

fn own(path: &Path) {
    chown(path, Some(SIDECAR), Some(SIDECAR)).unwrap();
    for entry in fs::read_dir(path).into_iter().flatten() {
        own(&entry.unwrap().path());
    }
}

/// Starts the sidecar, and reads its log from then on.
async fn sidecar(net: &Namespace, dir: &Path, log: &Arc<Mutex<String>>) -> Child {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net.name(), "setpriv"]);
    command.arg(format!("--reuid={SIDECAR}")).arg(format!("--regid={SIDECAR}"));
    command.args(["--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
    command.arg(program(dir)).args(["proxy", "--log", "info,keybearer=debug"]).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("agents at") {
        said =
            lines.next_line().await.unwrap().unwrap_or_else(|| panic!("the sidecar did not start: {said}"));
    }
    assert!(said.contains("redirected at 127.0.0.1:7081"), "{said}");
    let log = Arc::clone(log);
    Drain::default().detach(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    child
}
