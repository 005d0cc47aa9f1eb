//! `charts/keybearer`, linted and rendered by Helm's own code with the values of `chart/values`.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::webhook::valid;
use rendered::{CASES, Case, Rendered, case, folder, render, upgrade};

mod rendered;
mod restricted;
mod settings;
mod wired;

/// Kinds that Kubernetes has no schema of, and who has.
const OPERATORS: [&str; 2] = ["cert-manager.io/v1", "monitoring.coreos.com/v1"];

fn pods(case: &Case) -> impl Iterator<Item = &Value> {
    case.of_kind("Deployment").map(|deployment| &deployment["spec"]["template"])
}

#[test]
fn the_chart_has_no_lint_whatever_is_set() {
    for case in CASES.iter() {
        assert_eq!((case.error.as_str(), case.lint.as_slice()), ("", [].as_slice()), "{}", case.name);
    }
}

#[test]
fn every_object_is_valid_by_the_schemas_of_kubernetes() {
    let all = CASES.iter().flat_map(|case| &case.objects);
    let (operators, kubernetes): (Vec<&Value>, Vec<&Value>) =
        all.partition(|object| OPERATORS.iter().any(|version| object["apiVersion"] == *version));
    println!(
        "chart: {} objects checked, {} of operators",
        kubernetes.len() + operators.len(),
        operators.len()
    );
    valid(&kubernetes.into_iter().cloned().collect::<Vec<_>>());
    for object in operators {
        assert_eq!(faults_of_operators(object), Vec::<String>::new(), "{object:#}");
    }
}

/// What their operators want (cert-manager 1.16, Prometheus operator 0.78): the fields that must be there, and no others
/// than these.
fn faults_of_operators(object: &Value) -> Vec<String> {
    let (needed, known): (&[&str], &[&str]) = match object["kind"].as_str().unwrap() {
        "Issuer" => (&[], &["selfSigned", "ca"]),
        "Certificate" => (
            &["secretName", "issuerRef"],
            &["commonName", "dnsNames", "usages", "duration", "renewBefore", "privateKey", "isCA"],
        ),
        "ServiceMonitor" => (&["selector", "endpoints"], &[]),
        "PodMonitor" => (&["selector", "podMetricsEndpoints"], &["namespaceSelector"]),
        other => panic!("{other} is not known"),
    };
    let spec = object["spec"].as_object().unwrap();
    let missing = needed.iter().filter(|key| !spec.contains_key(**key)).map(|key| format!("no {key}"));
    let unknown = spec.keys().filter(|key| !needed.contains(&key.as_str()) && !known.contains(&key.as_str()));
    missing.chain(unknown.map(|key| format!("unknown {key}"))).collect()
}

#[test]
fn what_is_rendered_is_what_the_golden_files_have() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/chart/golden");
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chart");
    fs::create_dir_all(&made).unwrap();
    let mut differ = Vec::new();
    for case in CASES.iter() {
        let file = format!("{}.yaml", case.name);
        fs::write(made.join(&file), case.text()).unwrap();
        let wanted = fs::read_to_string(golden.join(&file)).unwrap_or_default();
        differ.extend((wanted != case.text()).then_some(file));
    }
    let made = made.display();
    assert_eq!(
        differ,
        Vec::<String>::new(),
        "if this is meant: cp {made}/*.yaml tests/it/chart/golden/, and read git diff"
    );
}

#[test]
fn rendered_twice_it_is_the_same() {
    let again = render(CASES.iter().map(|case| case.values.as_str()));
    for (case, again) in CASES.iter().zip(again) {
        assert_eq!(case.text(), again.text(), "{}", case.name);
    }
}

#[test]
fn an_upgrade_keeps_the_certificate_that_sidecars_trust() {
    let made = |rendered: &Rendered| rendered.find("Secret", "keybearer-broker-tls").unwrap().clone();
    let before = made(case("defaults"));
    assert_eq!(made(&upgrade(&[&before]))["data"], before["data"]);
    let mut torn = before.clone();
    torn["data"].as_object_mut().unwrap().remove("tls.key").unwrap();
    let anew = made(&upgrade(&[&torn]));
    assert_eq!(anew["data"].as_object().unwrap().len(), 3);
    assert_ne!(anew["data"]["ca.crt"], before["data"]["ca.crt"], "nobody has that CA's key");
}

#[test]
fn the_certificate_is_for_the_name_that_sidecars_ask_for() {
    let secret = case("defaults").find("Secret", "keybearer-broker-tls").unwrap();
    let pem = |key: &str| BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem("tls.crt")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&pem("tls.key")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.crt")).unwrap()).unwrap();
    keybearer::tls::init_crypto();
    let sidecar = WebPkiServerVerifier::builder(Arc::new(roots)).build().unwrap();
    let name = "keybearer-broker.keybearer.svc".try_into().unwrap();
    sidecar.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).unwrap();
    ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
}

#[test]
fn wrong_values_are_refused_with_the_key_named() {
    #[derive(Deserialize)]
    struct Wrong {
        values: String,
        says: String,
    }
    let wrong: Vec<Wrong> = serde_saphyr::from_str(include_str!("chart/wrong.yaml")).unwrap();
    println!("chart: {} wrong values", wrong.len());
    for (wrong, rendered) in wrong.iter().zip(render(wrong.iter().map(|wrong| wrong.values.as_str()))) {
        assert!(rendered.error.contains(&wrong.says), "{}: {:?}", wrong.values, rendered.error);
    }
}

#[test]
fn every_pod_meets_the_restricted_standard() {
    for case in CASES.iter() {
        for pod in pods(case) {
            assert_eq!(restricted::faults(&pod["spec"]), Vec::<String>::new(), "{}", case.name);
            let spec = &pod["spec"];
            assert_eq!(spec["securityContext"]["runAsUser"], 65532);
            assert_eq!(spec["automountServiceAccountToken"], false);
            assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
        }
    }
}

/// An object of the documentation, by which the webhook is installed by hand.
fn by_hand(kind: &str) -> Value {
    let text = include_str!("../../docs/kubernetes.md");
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let objects = blocks.flat_map(|block| serde_saphyr::from_multiple::<Value>(block).unwrap());
    objects.into_iter().find(|object| object["kind"] == kind).unwrap()
}

#[test]
fn the_webhook_is_asked_about_what_the_documentation_says() {
    let (by_hand, chart) = (by_hand("MutatingWebhookConfiguration"), case("cert-manager"));
    let made = chart.find("MutatingWebhookConfiguration", "keybearer-webhook").unwrap();
    assert_eq!(made["webhooks"], by_hand["webhooks"]);
    assert_eq!(made["metadata"]["annotations"], by_hand["metadata"]["annotations"]);
    let by_default = case("defaults").find("MutatingWebhookConfiguration", "keybearer-webhook").unwrap();
    assert_eq!(by_default["webhooks"], by_hand["webhooks"]);
}

#[test]
fn the_webhooks_rights_are_those_of_the_documentation() {
    let made = |kind: &str| case("defaults").of_kind(kind).next().unwrap();
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        let by_hand = by_hand(kind);
        assert_eq!(
            (&made(kind)["roleRef"], &made(kind)["subjects"]),
            (&by_hand["roleRef"], &by_hand["subjects"])
        );
    }
    assert_eq!(made("ClusterRole")["rules"], by_hand("ClusterRole")["rules"]);
    let by_hand = by_hand("Role")["rules"].as_array().unwrap().clone();
    assert_eq!(by_hand.iter().flat_map(|rule| rule["verbs"].as_array().unwrap()).last().unwrap(), "create");
    assert_eq!(made("Role")["rules"], json!(by_hand[..1]), "the empty Secret is made by the chart");
}

#[test]
fn pods_are_chosen_by_what_the_values_say() {
    let of = |name: &str| {
        let case = case(name);
        let configuration = case.of_kind("MutatingWebhookConfiguration").next().unwrap();
        let settings: Value = serde_saphyr::from_str(case.settings("webhook.yaml").unwrap()).unwrap();
        (configuration["webhooks"][0]["objectSelector"].clone(), settings["webhook"]["opt_in"].clone())
    };
    let labelled = json!({"matchLabels": {"keybearer.dev/inject": "true"}});
    assert_eq!(of("defaults"), (labelled, json!(true)), "label");
    assert_eq!(of("everything"), (Value::Null, json!(true)), "annotation");
    assert_eq!(of("minimal"), (Value::Null, json!(false)), "all");
}

#[test]
fn the_schema_takes_no_key_that_the_values_do_not_show() {
    let text = fs::read_to_string(folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let values = fs::read_to_string(folder().join("values.yaml")).unwrap();
    let mut keys = Vec::new();
    named(&schema, "", &mut keys);
    assert!(keys.len() > 100, "{keys:?}");
    // Helm's own, for charts that include this one; and what Kubernetes has beside what is shown.
    for key in keys.iter().filter(|key| !["global", "podSelector"].contains(&key.as_str())) {
        assert!(values.contains(&format!("{key}:")), "values.yaml does not show {key}");
    }
}

/// The keys of all objects. Each object that names any must take no others, but for those that the program checks.
fn named(part: &Value, at: &str, keys: &mut Vec<String>) {
    if let Some(properties) = part["properties"].as_object() {
        let is_checked = at.ends_with("/issuers/items");
        assert!(part["additionalProperties"] == false || is_checked, "{at} takes anything");
        keys.extend(properties.keys().cloned());
    }
    for (key, part) in part.as_object().into_iter().flatten() {
        named(part, &format!("{at}/{key}"), keys);
    }
}

#[test]
fn the_chart_is_of_this_version_of_the_program() {
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(folder().join("Chart.yaml")).unwrap()).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}
