//! What the chart tells the programs, told to the real one.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{
    pods,
    rendered::{CASES, Case, case},
};
use crate::webhook::cluster::Cluster;

/// Whatever is wanted of a Secret: a vault key is 32 bytes in base64.
const SECRET: &str = "a2ItY2FuYXJ5LWNoYXJ0LWNoYXJ0LWNoYXJ0LWNoYXI=";

/// What stands before an account, in the notes and in the documentation.
const ADD: &str = "kubectl exec -i -n keybearer deploy/keybearer-broker -c broker -- /keybearer account add ";

/// `keybearer policy check` with a file of the chart's as its configuration, which reads all of it, and with these
/// policy files.
fn check(settings: &str, variables: &[(String, String)], policies: &[(&String, &Value)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("policies");
    fs::create_dir(&folder).unwrap();
    for (file, text) in policies {
        fs::write(folder.join(file), text.as_str().unwrap()).unwrap();
    }
    let file = dir.path().join("keybearer.yaml");
    fs::write(&file, settings).unwrap();
    Command::new(env!("CARGO_BIN_EXE_keybearer"))
        .args(["policy", "check", "--config"])
        .arg(&file)
        .env_clear()
        .envs(variables.iter().cloned())
        // As the image has it, and as pods are given it.
        .env("KEYBEARER_DATA_DIR", "/data")
        .env("KEYBEARER_POLICIES", format!("[{}]", folder.display()))
        .output()
        .unwrap()
}

/// The variables of the broker's container, as the kubelet would set them.
fn variables(case: &Case) -> Vec<(String, String)> {
    let containers = pods(case).flat_map(|pod| pod["spec"]["containers"].as_array().unwrap());
    let broker = containers.filter(|container| container["name"] == "broker");
    let listed = broker.flat_map(|container| container["env"].as_array().unwrap());
    let named = listed.map(|one| one["name"].as_str().unwrap()).filter(|name| *name != "KEYBEARER_CONFIG");
    let value = |name: &str| match name {
        "KEYBEARER_VAULT__URL" => "postgres://keybearer:kb-canary-chart@db.example/keybearer".to_owned(),
        _ => SECRET.to_owned(),
    };
    named.map(|name| (name.to_owned(), value(name))).collect()
}

#[test]
fn every_configuration_of_the_chart_is_read_by_the_program() {
    let mut read = 0;
    for case in CASES.iter() {
        for map in case.of_kind("ConfigMap") {
            let files = map["data"].as_object().into_iter().flatten();
            for (file, text) in
                files.filter(|(file, _)| ["keybearer.yaml", "webhook.yaml"].contains(&file.as_str()))
            {
                let output = check(text.as_str().unwrap(), &variables(case), &[]);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{}: {file}: {said}", case.name);
                read += 1;
            }
        }
    }
    println!("chart: {read} configurations read");
    assert!(read > 10);
}

#[test]
fn policies_arrive_as_they_were_written() {
    for (name, files, connectors) in [("cert-manager", "9 files", 7), ("no-broker", "2 files", 1)] {
        let maps =
            ["keybearer-policies", "keybearer-connectors"].map(|map| case(name).find("ConfigMap", map));
        let files_of =
            |map: Option<&'static Value>| map.and_then(|map| map["data"].as_object()).into_iter().flatten();
        let policies: Vec<_> = maps.into_iter().flat_map(files_of).collect();
        let told: BTreeMap<_, _> =
            policies.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        let values: Value = serde_saphyr::from_str(&case(name).values).unwrap();
        for (file, text) in values["policies"]["files"].as_object().unwrap() {
            assert_eq!(told[file.as_str()], text.as_str());
        }
        let brought = super::rendered::connectors();
        let same = brought
            .iter()
            .filter(|(file, text)| told.get(&*format!("connector-{file}")) == Some(&Some(text)));
        assert_eq!(same.count(), connectors);
        let output = check("data_dir: data", &[], &policies);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            said.contains(&format!("ok: {files}: 1 role, ")),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_command_of_the_notes_is_one_of_the_program() {
    let notes = &case("defaults").files["keybearer/templates/NOTES.txt"];
    assert!(include_str!("../../../docs/kubernetes.md").contains(ADD));
    let (_, command) = notes.split_once(ADD).unwrap();
    let account = command.lines().next().unwrap().strip_suffix(" < token.txt").unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_keybearer"))
        .args(["account", "add", account])
        .current_dir(dir.path())
        .env_clear()
        .env("KEYBEARER_DATA_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is no connector github"), "it was understood, and looked for: {said}");
}

/// The webhook with what the chart tells it, but for the file with the broker's CA.
fn webhook(case: &Case, dir: &Path) -> Cluster {
    let mut settings: Value = serde_saphyr::from_str(case.settings("webhook.yaml").unwrap()).unwrap();
    let roots = dir.join("ca.crt");
    fs::write(&roots, rcgen::generate_simple_self_signed(["broker".to_owned()]).unwrap().cert.pem()).unwrap();
    for file in settings.pointer_mut("/webhook/broker/roots_file").as_mut_slice() {
        **file = json!(roots);
    }
    Cluster::start(&settings["webhook"].to_string())
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"keybearer.dev/inject": "true"},
            "annotations": {"keybearer.dev/tenant": "acme", "keybearer.dev/role": "researcher"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]}})
}

/// The sidecar of a pod, by its variables.
async fn sidecar(case: &Case) -> (Value, Value) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = webhook(case, dir.path());
    let pod = pod();
    let after = cluster.create(&pod).await.allowed().applied(&pod);
    let inits = after["spec"]["initContainers"].as_array().unwrap();
    let sidecar = inits.iter().find(|container| container["name"] == "keybearer").unwrap().clone();
    let listed = sidecar["env"].as_array().unwrap();
    let env = listed.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one.clone())).collect();
    (sidecar, Value::Object(env))
}

#[tokio::test]
async fn a_pod_is_given_the_sidecar_that_the_values_ask_for() {
    let (sidecar, env) = sidecar(case("everything")).await;
    assert_eq!(sidecar["image"], format!("registry.example:5000/keybearer@sha256:{}", "a".repeat(64)));
    assert_eq!(sidecar["securityContext"]["runAsUser"], 1_000_670_000);
    assert_eq!(
        sidecar["resources"],
        json!({"requests": {"cpu": "0.5", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}})
    );
    assert_eq!(env["KEYBEARER_LISTEN__ADMIN"]["value"], r#""[::]:17090""#);
}

#[tokio::test]
async fn without_a_broker_the_sidecar_opens_the_vault_of_its_namespace() {
    let (_, env) = sidecar(case("no-broker")).await;
    let from = |variable: &str| env[variable]["valueFrom"]["secretKeyRef"]["name"].clone();
    assert_eq!([from("KEYBEARER_VAULT__URL"), from("KEYBEARER_VAULT_KEY")], ["keybearer-vault"; 2]);
}

#[tokio::test]
async fn with_a_broker_the_sidecar_asks_it_and_holds_no_key() {
    let (_, env) = sidecar(case("defaults")).await;
    assert_eq!(env["KEYBEARER_VAULT__BACKEND"]["value"], "broker");
    assert_eq!(env["KEYBEARER_VAULT__URL"]["value"], r#""https://keybearer-broker.keybearer.svc:7443""#);
    assert!(env["KEYBEARER_VAULT__ROOTS"]["value"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(env["KEYBEARER_VAULT_KEY"], Value::Null);
}
