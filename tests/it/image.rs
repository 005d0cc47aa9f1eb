//! The program in the container image's root file system: nothing beside it, another user, names and TLS included.

use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keybearer::drain::Drain;
use serde_json::{Value, json};

use crate::support::{
    agent::{Answer, Body, absolute, identity},
    container::Container,
    pod::WORLD,
    provider::{Credentials, Provider, Setup, TestAuthority},
    stage::SECRETS,
};

/// The names that providers are at, and where.
const HOST: &str = "api.provider.test";
const AT: &str = "140.82.121.6";
/// One that only the hosts file knows.
const ALIAS: &str = "alias.provider.test";
/// One that nobody knows, and that would be somebody else with a domain of `search` behind it.
const NOBODY: &str = "nobody.provider.test";

/// As Kubernetes writes it.
const RESOLV_CONF: &str = "nameserver 10.77.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\n\
                           options ndots:5 timeout:2\n";
const NAMES: [(&str, &[&str]); 3] = [
    (HOST, &[AT]),
    ("nobody.provider.test.cluster.local", &[AT]),
    ("db.shop.svc.cluster.local", &[WORLD[0]]),
];

const POLICY: &str = "
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: [api.provider.test, alias.provider.test, nobody.provider.test]
  auth: {type: static}
  inject: [{header: Authorization, value: \"Bearer {token}\"}]
  operations: [{name: account.read, request: \"GET /echo\"}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: [\"*\"]
  grants: [{connector: crm, as: tenant, scopes: []}]
";

const CONFIG: &str = "listen: {proxy: '127.0.0.1:7080', admin: '127.0.0.1:7090'}\npolicies: [policies]\n";
const GIVEN: [&str; 2] = ["--config", "/etc/keybearer/keybearer.yaml"];

/// A container, and a provider in its world.
async fn container(config: &str) -> Option<(Container, Provider)> {
    let hosts = format!("127.0.0.1 localhost\n{AT} {ALIAS}\n");
    let container = Container::new(&NAMES, RESOLV_CONF, &hosts)?;
    let authority = TestAuthority::new();
    let setup = Setup {
        names: vec![HOST.to_owned(), ALIAS.to_owned(), NOBODY.to_owned()],
        credentials: SECRETS.iter().map(|(tenant, secret)| (*secret, *tenant)).collect::<Credentials>(),
        ..Setup::default()
    };
    let provider = Provider::listening(container.world.listener("[::]:443"), &authority, setup).await;
    container.write("etc/keybearer/policies/policy.yaml", POLICY);
    container.write("etc/keybearer/roots.pem", &authority.pem());
    container.write("etc/keybearer/keybearer.yaml", &format!("{CONFIG}{config}"));
    Some((container, provider))
}

/// Adds the account, whose secret comes from standard input.
async fn add_account(container: &Container) {
    let added =
        container.done(&[&["account", "add", "acme/crm/tenant"], &GIVEN[..]].concat(), SECRETS[0].1).await;
    assert!(!added.contains(SECRETS[0].1), "{added}");
}

/// Asks the proxy in the container, as the researcher of acme.
async fn ask(container: &Container, host: &str) -> Answer {
    let io = TokioIo::new(container.connect("127.0.0.1:7080"));
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    Drain::default().spawn(connection);
    let request = absolute("GET", &format!("http://{host}/echo"));
    let request = request.header("agent-identity", identity("acme", "researcher")).body(Body::default());
    let asking = tokio::time::timeout(Duration::from_mins(1), sender.send_request(request.unwrap()));
    Answer::read(asking.await.expect("it answers").unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_found_by_their_names_and_given_their_credentials() {
    let Some((container, provider)) = container("egress: {roots: {file: roots.pem}}\n").await else { return };
    let before = container.files();
    assert!(before.contains(&"keybearer".to_owned()), "{before:?}");
    add_account(&container).await;
    let _running = container.proxy(&GIVEN).await;
    for host in [HOST, ALIAS] {
        let answer = ask(&container, host).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (200, None), "{host}: {}", answer.text());
        assert_eq!(answer.headers["x-provider-tenant"], "acme");
    }
    let answer = ask(&container, NOBODY).await;
    assert_eq!(answer.error().as_deref(), Some("upstream_unreachable"), "{}", answer.text());
    let asked: Vec<_> = provider.requests().into_iter().filter_map(|seen| seen.peer.sni).collect();
    assert_eq!(asked, [HOST, ALIAS]);
    assert_eq!(container.files(), before, "nothing is written but to the volumes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_in_postgresql_is_found_by_a_short_name() {
    let Some((container, _provider)) = container("").await else { return };
    let url = container.database("db").await;
    let config = format!(
        "{CONFIG}egress: {{roots: {{file: roots.pem}}}}\nvault: {{backend: postgres, url: '{url}'}}\n"
    );
    container.write("etc/keybearer/keybearer.yaml", &config);
    add_account(&container).await;
    container.write("etc/keybearer/keybearer.yaml", &config.replace("@db/", "@database/"));
    let (is_done, said) = container.run(&[&["account", "list"], &GIVEN[..]].concat(), "").await;
    assert!(!is_done && said.contains("cannot find database: it has no address"), "{said}");

    container.write("etc/keybearer/keybearer.yaml", &config);
    let _running = container.proxy(&GIVEN).await;
    let answer = ask(&container, HOST).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (200, None), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_roots_of_the_system_those_built_in_are_used() {
    let Some((container, provider)) = container("").await else { return };
    add_account(&container).await;
    let running = container.proxy(&GIVEN).await;
    let answer = ask(&container, HOST).await;
    assert_eq!(answer.error().as_deref(), Some("upstream_tls"), "{}", answer.text());
    assert!(running.log().contains("using Mozilla's, as built in"), "{}", running.log());
    assert!(provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_server_the_log_says_so_and_the_demo_runs() {
    let Some((container, _provider)) = container("").await else { return };
    std::fs::remove_file(container.path("etc/resolv.conf")).unwrap();
    let demo = container.done(&["demo"], "").await;
    assert!(demo.contains("keybearer"), "{demo}");
    add_account(&container).await;
    let running = container.proxy(&GIVEN).await;
    let answer = ask(&container, HOST).await;
    assert_eq!(answer.error().as_deref(), Some("upstream_unreachable"), "{}", answer.text());
    assert!(running.log().contains("no name server can be asked: /etc/resolv.conf"), "{}", running.log());
}

/// As the builder of the image makes it.
#[test]
fn what_the_program_is_made_of_is_listed_and_nothing_else() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = std::process::Command::new(repository.join(".ci/sbom")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&list["bomFormat"], &list["metadata"]["component"]["purl"]),
        (&json!("CycloneDX"), &json!(concat!("pkg:cargo/keybearer@", env!("CARGO_PKG_VERSION"))))
    );
    let lock = std::fs::read_to_string(repository.join("Cargo.lock")).unwrap();
    let text = |part: &Value| part.as_str().unwrap_or_default().to_owned();
    let parts = list["components"].as_array().unwrap();
    for part in parts {
        let (name, version) = (text(&part["name"]), text(&part["version"]));
        assert_ne!(text(&part["licenses"][0]["expression"]), "", "{part}");
        if text(&part["purl"]).starts_with("pkg:cargo/") {
            let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            let (_, rest) = lock.split_once(&locked).unwrap_or_else(|| panic!("{part}"));
            let checksum = format!("checksum = \"{}\"", text(&part["hashes"][0]["content"]));
            assert_eq!(rest.lines().nth(1), Some(&*checksum), "{part}");
        }
    }
    let names: Vec<String> = parts.iter().map(|part| text(&part["name"])).collect();
    for part in ["aws-lc-sys", "hickory-resolver", "rust-std", "sled"] {
        assert!(names.contains(&part.to_owned()), "{part}");
    }
    // A test's, a build script's, a procedural macro, another system's.
    for part in ["criterion", "cc", "serde_derive", "windows-sys", "keybearer"] {
        assert!(!names.contains(&part.to_owned()), "{part}");
    }
}
