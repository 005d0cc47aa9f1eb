//! The sidecar that is injected is one that starts.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{cluster::Cluster, pod};
use crate::{
    cli::Desk,
    laws::wire::until,
    support::{
        broker::{self, Broker},
        cluster::Cluster as Issuer,
        provider::TestAuthority,
        stage::{POLICY, SECRETS},
    },
};

/// In mode `bound`, what the pods of a namespace may say of themselves.
const BINDING: &str = r#"
apiVersion: keybearer.dev/v1
kind: Binding
metadata: {name: pods}
spec: {workloads: [{local: true}], tenants: ["a$$b"], roles: [researcher], users: ["*"]}
"#;

/// Ended with the test, however that ends.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The environment as the kubelet makes it, with our directories and free ports.
fn environment(sidecar: &Value, root: &Path) -> Vec<(String, String)> {
    let placed = |text: &str| {
        let text = text
            .replace("$$", "$")
            .replace(":7080", ":0")
            .replace(":7081", ":0")
            .replace("0.0.0.0:7090", "127.0.0.1:0");
        ["/etc/keybearer", "/run/keybearer", "/var/run/secrets", "/data"]
            .iter()
            .fold(text, |text, path| text.replace(path, &format!("{}{path}", root.display())))
    };
    let variables = sidecar["env"].as_array().unwrap().iter();
    variables
        .map(|one| (one["name"].as_str().unwrap().to_owned(), placed(one["value"].as_str().unwrap())))
        .collect()
}

fn get(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address.parse::<SocketAddr>().unwrap()).unwrap();
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The word of a line that follows these.
fn after<'a>(line: &'a str, words: &str) -> &'a str {
    line.split_once(words).unwrap().1.split([',', ' ', ';']).next().unwrap()
}

/// Starts the sidecar as the kubelet would, with its volumes in this folder, and says what it greets with.
fn start(sidecar: &Value, root: &Path) -> (Proxy, String) {
    let arguments: Vec<_> = sidecar["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let spawned = Command::new(env!("CARGO_BIN_EXE_keybearer"))
        .args(arguments)
        .env_clear()
        .envs(environment(sidecar, root))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut proxy = Proxy(spawned);
    let mut lines = BufReader::new(proxy.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut before = Vec::new();
    let greeting =
        lines.by_ref().inspect(|line| before.push(line.clone())).find(|line| line.contains("agents at"));
    let greeting = greeting.unwrap_or_else(|| panic!("{before:#?}"));
    thread::spawn(move || lines.for_each(drop)); // or its next line would be its last
    (proxy, greeting)
}

/// The sidecar's volumes, empty, in a folder of ours.
fn mounted(sidecar: &Value) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for mount in sidecar["volumeMounts"].as_array().unwrap() {
        fs::create_dir_all(root.path().join(&mount["mountPath"].as_str().unwrap()[1..])).unwrap();
    }
    root
}

#[tokio::test]
async fn a_proxy_with_the_sidecars_environment_is_ready_and_shows_agents_the_certificates_alone() {
    let cluster = Cluster::start("{secret: null}");
    let mut pod = pod("annotated-only");
    pod["metadata"]["annotations"]["keybearer.dev/tenant"] = json!("a$$b");
    pod["metadata"]["annotations"]["keybearer.dev/mode"] = json!("transparent");
    let injected = cluster.create(&pod).await.allowed().applied(&pod);
    let sidecar = &injected["spec"]["initContainers"][1];
    let root = mounted(sidecar);
    fs::write(root.path().join("etc/keybearer/config/keybearer.yaml"), "identity: {mode: bound}\n").unwrap();
    fs::write(root.path().join("etc/keybearer/policies/bindings.yaml"), BINDING).unwrap();
    let (_proxy, greeting) = start(sidecar, root.path());

    let ready = get(after(&greeting, "admin at http://"), "GET /readyz HTTP/1.1\r\nhost: 10.1.2.3:7090\r\n");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let asked = "GET http://keybearer.internal/v1/operations HTTP/1.1\r\nhost: keybearer.internal\r\n";
    let told = get(after(&greeting, "agents at http://"), asked);
    assert!(told.starts_with("HTTP/1.1 200"), "the pod's identity is believed: {told}");
    let audit = fs::read_to_string(root.path().join("data/audit.jsonl")).unwrap();
    assert!(audit.contains(r#""tenant":"a$$b""#) || told.contains("a$$b"), "{told}\n{audit}");

    let shared = root.path().join("etc/keybearer/ca");
    let mut files: Vec<_> = fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files, ["bundle.jks", "bundle.p12", "bundle.pem"].map(|name| shared.join(name)));
    let bundle = fs::read_to_string(&files[2]).unwrap();
    let own = fs::read_to_string(root.path().join("run/keybearer/ca/ca.pem")).unwrap();
    assert!(bundle.ends_with(&own) && !bundle.contains("PRIVATE KEY"));
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

/// All that it is given is its broker's name, whose certificate to believe, and a token.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_of_a_broker_has_rules_and_accounts_from_there_and_nothing_else() {
    keybearer::tls::init_crypto();
    let (desk, authority) = (Desk::new(), TestAuthority::new());
    let issuer = Issuer::start(&authority).await;
    let binding = "---\napiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {name: crew}\n\
                   spec: {workloads: [{serviceAccount: agents/crew}], tenants: [acme], roles: [researcher]}\n";
    broker::folder(&desk, &authority, &issuer, &format!("{POLICY}{binding}"), "");
    let broker = Broker::start(&desk).await;
    desk.done(&["account", "add", "acme/crm/tenant"], SECRETS[0].1);

    let roots = desk.dir.path().join("roots.pem");
    let settings =
        format!("{{broker: {{url: 'https://{}', roots_file: '{}'}}}}", broker.address, roots.display());
    let pod = pod("minimal");
    let injected = Cluster::start(&settings).create(&pod).await.allowed().applied(&pod);
    let sidecar = &injected["spec"]["initContainers"][0];
    let root = mounted(sidecar);
    fs::write(root.path().join("var/run/secrets/keybearer.dev/token"), issuer.token("agents/crew")).unwrap();
    let (_proxy, greeting) = start(sidecar, root.path());

    let admin = after(&greeting, "admin at http://");
    until("ready", async || {
        let ready = get(admin, "GET /readyz HTTP/1.1\r\nhost: 10.1.2.3:7090\r\n");
        ready.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let asked = "GET http://keybearer.internal/v1/operations HTTP/1.1\r\nhost: keybearer.internal\r\n";
    let told = get(after(&greeting, "agents at http://"), asked);
    let (_, body) = told.split_once("\r\n\r\n").unwrap();
    let told: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{told}"));
    let read = told["operations"].as_array().unwrap().iter().find(|one| one["operation"] == "account.read");
    assert_eq!(read.unwrap()["account_status"], "ready", "{told}");
}

#[tokio::test]
async fn the_command_of_the_redirecting_container_is_one_of_ours() {
    let cluster = Cluster::start(
        "{redirect: {exclude_ports: [5432], exclude_networks: [10.96.0.0/12], reject_udp: true}}",
    );
    let pod = pod("transparent");
    let injected = cluster.create(&pod).await.allowed().applied(&pod);
    let command = injected["spec"]["initContainers"][0]["command"].as_array().unwrap().iter();
    let arguments = command.map(|word| word.as_str().unwrap()).skip(1).chain(["--dry-run", "--with", "nft"]);
    let output = Command::new(env!("CARGO_BIN_EXE_keybearer")).args(arguments).env_clear().output().unwrap();
    let rules = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(rules.contains("65532") && rules.contains("7081") && rules.contains("10.96.0.0/12"), "{rules}");
}
