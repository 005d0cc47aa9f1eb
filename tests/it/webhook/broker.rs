//! Sidecars that have their credentials from a broker: no Secret and no `ConfigMap`, but a token of their own.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use keybearer::tls::Authority;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, by_an_api_server},
    corpus, only_adds, pod, valid,
};

/// A broker whose CA is that of `broker-ca.pem`.
pub(super) fn settings() -> String {
    let roots = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/webhook/broker-ca.pem");
    format!("{{broker: {{url: 'https://keybearer-broker.keybearer.svc:7443', roots_file: '{roots}'}}}}")
}

fn with_roots(path: &Path) -> String {
    format!("{{broker: {{url: 'https://broker.test', roots_file: '{}'}}}}", path.display())
}

/// The sidecar's variables.
async fn environment(cluster: &Cluster, name: &str) -> BTreeMap<String, String> {
    let pod = pod(name);
    let after = cluster.create(&pod).await.allowed().applied(&pod);
    let sidecar =
        after["spec"]["initContainers"].as_array().unwrap().iter().find(|c| c["name"] == "keybearer");
    let variables = sidecar.unwrap()["env"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    variables.map(|one| (text(&one["name"]), text(&one["value"]))).collect()
}

/// The CA that a sidecar is given.
async fn roots(cluster: &Cluster) -> String {
    let said = environment(cluster, "minimal").await.remove("KEYBEARER_VAULT__ROOTS").unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    said["pem"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_pod_of_the_corpus_has_a_token_that_its_sidecar_alone_can_read() {
    let cluster = Cluster::start(&settings());
    let mut after = Vec::new();
    for pod in corpus() {
        let name = &pod["metadata"]["name"];
        let once = cluster.create(&pod).await.allowed().applied(&pod);
        assert_eq!(cluster.create(&by_an_api_server(&once)).await.allowed().patch, Value::Null, "{name}");
        only_adds(&pod, &once);
        let text = once.to_string();
        assert_eq!(text.matches("/var/run/secrets/keybearer.dev\"").count(), 1, "{name}");
        for gone in ["keybearer-vault", "keybearer-config", "keybearer-policies", "KEYBEARER_CONFIG"] {
            assert!(!text.contains(gone), "{name}: {gone}");
        }
        after.push(once);
    }
    valid(&after);
}

#[tokio::test]
async fn a_sidecar_is_told_its_broker_and_believes_what_bindings_allow() {
    let cluster = Cluster::start(&settings());
    let told = environment(&cluster, "minimal").await;
    for (name, value) in [
        ("VAULT__BACKEND", "broker"),
        ("VAULT__URL", "\"https://keybearer-broker.keybearer.svc:7443\""),
        ("VAULT__TOKEN_FILE", "/var/run/secrets/keybearer.dev/token"),
        ("IDENTITY__MODE", "bound"),
    ] {
        assert_eq!(told[&format!("KEYBEARER_{name}")], value);
    }
    assert!(told.contains_key("KEYBEARER_IDENTITY__DEFAULT") && !told.contains_key("KEYBEARER_VAULT_KEY"));
    assert_eq!(roots(&cluster).await, include_str!("broker-ca.pem"));

    let by_system =
        Cluster::start("{broker: {url: 'https://broker.test', audience: other}, config_map: mine}");
    let told = environment(&by_system, "minimal").await;
    assert!(!told.contains_key("KEYBEARER_VAULT__ROOTS"));
    assert_eq!(told["KEYBEARER_CONFIG"], "/etc/keybearer/config/keybearer.yaml");
    let pod = pod("minimal");
    let after = by_system.create(&pod).await.allowed().applied(&pod);
    let volumes = after["spec"]["volumes"].to_string();
    assert!(volumes.contains(r#""audience":"other""#) && volumes.contains(r#"{"name":"mine"}"#), "{volumes}");
}

#[tokio::test]
async fn whoever_else_would_have_the_sidecars_token_is_refused() {
    let cluster = Cluster::start(&settings());
    let minimal = pod("minimal");
    let token = |audience: &str| json!({"serviceAccountToken": {"audience": audience, "path": "token"}});
    let projected =
        |name: &str, audience: &str| json!({"name": name, "projected": {"sources": [token(audience)]}});
    let refused = async |pointer: &str, value: Value| {
        let mut pod = minimal.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = json!([value]);
        cluster.create(&pod).await.refused()
    };
    let mount = json!({"name": "keybearer-token", "mountPath": "/token"});
    let said = refused("/spec/containers/0/volumeMounts", mount).await;
    assert!(said.contains("mounts the volume keybearer-token, which is the sidecar's alone"), "{said}");
    let said = refused("/spec/volumes", projected("mine", "keybearer")).await;
    assert_eq!(said, "volume mine projects a token for keybearer, which is the sidecar's alone; remove it");
    let said = refused("/spec/volumes", projected("keybearer-token", "vault")).await;
    assert!(said.contains("a volume keybearer-token that is not what is injected"), "{said}");

    let mut others = minimal.clone();
    others["spec"]["volumes"] = json!([projected("mine", "vault")]);
    cluster.create(&others).await.allowed();
}

#[tokio::test]
async fn a_broker_that_changes_its_ca_is_trusted_by_the_next_pod_and_keys_are_given_to_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let [one, other] = [(); 2].map(|()| Authority::open(None).unwrap().pem().to_owned());
    fs::write(&file, &one).unwrap();
    let cluster = Cluster::start(&with_roots(&file));
    assert_eq!(roots(&cluster).await, one);
    let key = KeyPair::generate().unwrap().serialize_pem();
    fs::write(&file, [&other, &*key].concat()).unwrap();
    assert_eq!(roots(&cluster).await, other);
    for broken in ["", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"] {
        fs::write(&file, broken).unwrap();
        assert_eq!(roots(&cluster).await, other, "the last good one stays");
    }
}

#[test]
fn a_broker_that_sidecars_could_not_use_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("many.pem");
    fs::write(&file, include_str!("broker-ca.pem").repeat(64)).unwrap();
    for (settings, why) in [
        ("{broker: {url: 'http://broker.test'}}".to_owned(), "must be an https:// URL"),
        ("{broker: {url: 'https://me@broker.test'}}".to_owned(), "must be an https:// URL"),
        ("{broker: {audience: keybearer}}".to_owned(), "missing field `url`"),
        (with_roots(Path::new("/no/such/file")), "cannot read /no/such/file"),
        (with_roots(&file), "name the broker's own CA alone"),
    ] {
        let certificate = "certificate: null, listen: '127.0.0.1:0'";
        let config = format!("webhook: {}, {certificate}}}\n", settings.strip_suffix('}').unwrap());
        fs::write(dir.path().join("webhook.yaml"), config).unwrap();
        let mut webhook = Command::new(env!("CARGO_BIN_EXE_keybearer"))
            .args(["webhook", "--config", "webhook.yaml"])
            .current_dir(dir.path())
            .env_clear()
            .env("HOME", dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(webhook.stderr.take().unwrap()).lines().next().unwrap().unwrap();
        webhook.kill().unwrap();
        webhook.wait().unwrap();
        assert!(said.starts_with("error: ") && said.contains(why), "{why}: {said}");
    }
}
