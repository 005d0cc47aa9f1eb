//! `keybearer webhook` as an API server sees it: `AdmissionReview`s over TLS, to the real program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use cluster::{Cluster, Reviewed, by_an_api_server, pair};

mod api_server;
mod broker;
pub(crate) mod cluster;
mod own;
mod sidecar;

const INJECTED: [&str; 5] = [
    include_str!("webhook/pods/workloads.yaml"),
    include_str!("webhook/pods/sidecars.yaml"),
    include_str!("webhook/pods/security.yaml"),
    include_str!("webhook/pods/environment.yaml"),
    include_str!("webhook/pods/volumes.yaml"),
];
const UNTOUCHED: &str = include_str!("webhook/pods/untouched.yaml");
const REFUSED: &str = include_str!("webhook/pods/refused.yaml");
/// The first with native sidecars, and the newest that there are schemas of.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];
/// What a mesh brings is left as it is.
const MESH: [&str; 4] = ["istio-init", "istio-proxy", "linkerd-init", "linkerd-proxy"];

fn pods(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

fn corpus() -> Vec<Value> {
    INJECTED.into_iter().flat_map(pods).collect()
}

fn pod(name: &str) -> Value {
    corpus().into_iter().find(|pod| pod["metadata"]["name"] == name).unwrap()
}

fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][list].as_array().into_iter().flatten()
}

#[tokio::test]
async fn every_pod_of_the_corpus_is_patched_once_and_valid_by_the_schemas_of_kubernetes() {
    let cluster = Cluster::start("{}");
    let mut after = Vec::new();
    for pod in corpus() {
        let once = cluster.create(&pod).await.allowed().applied(&pod);
        let again = cluster.create(&once).await.allowed();
        assert_eq!(again.patch, Value::Null, "{}", pod["metadata"]["name"]);
        let stored = by_an_api_server(&once);
        assert_eq!(cluster.create(&stored).await.allowed().patch, Value::Null, "{}", pod["metadata"]["name"]);
        only_adds(&pod, &once);
        after.push(once);
    }
    let others = [UNTOUCHED, REFUSED].map(pods).concat();
    println!("webhook: {} pods injected, {} of the corpus in all", after.len(), after.len() + others.len());
    assert!(after.len() + others.len() >= 60);
    after.extend(others);
    valid(&after);
}

/// What is told to Java comes after what it was told.
fn without_ours(one: &Value) -> Value {
    let mut one = one.clone();
    for text in one.get_mut("value").as_mut_slice() {
        let own = text.as_str().unwrap().split(" -Djavax.net.ssl.trustStore=/etc/keybearer/").next().unwrap();
        **text = json!(own.split(" -Dhttps.proxyHost=127.0.0.1").next());
    }
    one
}

/// Everything that was there is there, in its order; what was added is ours; each container has the bundle.
fn only_adds(before: &Value, after: &Value) {
    let name = &before["metadata"]["name"];
    let inits = containers(after, "initContainers").skip_while(|c| c["name"] != "keybearer").skip(1);
    let was: Vec<_> = containers(before, "initContainers").chain(containers(before, "containers")).collect();
    let is: Vec<_> = inits.chain(containers(after, "containers")).collect();
    assert_eq!(is.len(), was.len(), "{name}");
    for (was, is) in was.into_iter().zip(is) {
        let mut restored = is.clone();
        for (list, key) in [("env", "name"), ("volumeMounts", "mountPath")] {
            let own: Vec<_> = was[list].as_array().into_iter().flatten().map(|one| &one[key]).collect();
            let kept = is[list].as_array().into_iter().flatten().filter(|one| own.contains(&&one[key]));
            let kept: Vec<_> = kept.map(without_ours).collect();
            assert_eq!(
                json!(kept),
                json!(was[list].as_array().into_iter().flatten().collect::<Vec<_>>()),
                "{name}"
            );
            restored[list] = was[list].clone();
        }
        let mut was = was.clone();
        was["env"] = was["env"].take();
        was["volumeMounts"] = was["volumeMounts"].take();
        assert_eq!(restored, was, "{name}: nothing else of it is changed");
        let is_mesh = MESH.into_iter().chain(["istio-validation"]).any(|mesh| is["name"] == mesh);
        let trusts = is["volumeMounts"].as_array().into_iter().flatten();
        let trusts =
            trusts.filter(|mount| mount["name"] == "keybearer-ca" && mount["readOnly"] == true).count();
        assert_eq!(trusts, usize::from(!is_mesh), "{name}");
    }
    let private = |mount: &&Value| {
        mount["name"].as_str().unwrap().starts_with("keybearer-") && mount["name"] != "keybearer-ca"
    };
    let agents = containers(after, "containers")
        .chain(containers(after, "initContainers"))
        .filter(|c| c["name"] != "keybearer");
    assert_eq!(
        agents.flat_map(|c| c["volumeMounts"].as_array().into_iter().flatten()).find(private),
        None,
        "{name}"
    );
}

/// Asks the schemas, all at once: loading them takes longer than checking.
pub(crate) fn valid(objects: &[Value]) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut python = Command::new(tests.join(".cache/venv/bin/python"))
        .arg(tests.join("clients/kubernetes_schema.py"))
        .args(VERSIONS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/setup.sh installs it");
    python.stdin.take().unwrap().write_all(json!(objects).to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
}

#[tokio::test]
async fn pods_that_do_not_ask_are_not_touched() {
    let cluster = Cluster::start("{}");
    for pod in pods(UNTOUCHED) {
        let reviewed = cluster.create(&pod).await.allowed();
        assert_eq!(reviewed, Reviewed::default().admitted(), "{}", pod["metadata"]["name"]);
    }
}

#[tokio::test]
async fn what_cannot_be_injected_is_refused_with_what_to_change() {
    let cluster = Cluster::start("{}");
    for pod in pods(REFUSED) {
        let wanted = pod["metadata"]["annotations"]["refused"].as_str().unwrap();
        let said = cluster.create(&pod).await.refused();
        assert!(said.contains(wanted), "{}: {said}", pod["metadata"]["name"]);
    }
}

#[tokio::test]
async fn the_patches_are_those_of_the_golden_files() {
    let [by_vault, by_broker] = ["{}", &broker::settings()].map(Cluster::start);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/webhook/golden");
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("webhook");
    fs::create_dir_all(&made).unwrap();
    let mut differ = Vec::new();
    for (cluster, name, file) in [
        (&by_vault, "minimal", "minimal.json"),
        (&by_vault, "transparent", "transparent.json"),
        (&by_vault, "every-annotation", "every-annotation.json"),
        (&by_vault, "istio-classic", "istio-classic.json"),
        (&by_broker, "minimal", "broker-minimal.json"),
        (&by_broker, "transparent", "broker-transparent.json"),
    ] {
        let patch = cluster.create(&pod(name)).await.allowed().patch;
        fs::write(made.join(file), format!("{patch:#}\n")).unwrap();
        let wanted = fs::read_to_string(golden.join(file)).unwrap_or_default();
        differ.extend((wanted != format!("{patch:#}\n")).then_some(file));
    }
    assert_eq!(differ, Vec::<String>::new(), "compare {} with tests/it/webhook/golden", made.display());
}

#[tokio::test]
async fn a_container_that_comes_later_is_given_what_the_others_have() {
    let cluster = Cluster::start("{}");
    let pod = pod("minimal");
    let mut later = cluster.create(&pod).await.allowed().applied(&pod);
    later["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "late", "image": "late:1"}));
    later["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "early", "image": "early:1"}));
    let again = cluster.create(&later).await.allowed();
    let paths: Vec<_> =
        again.patch.as_array().unwrap().iter().map(|op| op["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["/spec/containers/1/env", "/spec/containers/1/volumeMounts"],
        "not what runs before us"
    );
    let twice = again.applied(&later);
    assert_eq!(twice["spec"]["containers"][1]["env"], twice["spec"]["containers"][0]["env"]);
}

#[tokio::test]
async fn a_pod_that_brings_an_altered_sidecar_is_refused() {
    let cluster = Cluster::start("{}");
    let pod = pod("transparent");
    let injected = cluster.create(&pod).await.allowed().applied(&pod);
    for (pointer, value, field) in [
        ("/spec/initContainers/1/image", json!("evil.example/keybearer"), "image"),
        ("/spec/initContainers/1/env/0/value", json!("/tmp/mine.yaml"), "env"),
        ("/spec/initContainers/1/restartPolicy", json!("Never"), "restartPolicy"),
        ("/spec/initContainers/1/securityContext/runAsUser", json!(0), "securityContext"),
        ("/spec/initContainers/0/command/4", json!("0"), "command"),
        ("/spec/volumes/1/emptyDir", json!({}), "emptyDir"),
    ] {
        let mut altered = injected.clone();
        *altered.pointer_mut(pointer).unwrap() = value;
        let said = cluster.create(&altered).await.refused();
        assert!(said.contains(&format!("({field})")), "{pointer}: {said}");
    }
}

#[tokio::test]
async fn what_a_pod_sets_itself_stays_and_is_told() {
    let cluster = Cluster::start("{}");
    let told = async |name: &str| cluster.create(&pod(name)).await.allowed().warnings;
    assert_eq!(
        told("own-trust").await,
        ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
            .map(|name| format!("container agent sets {name} itself; it is left as it is"))
    );
    assert_eq!(
        told("own-proxy").await,
        [
            "container agent sets NO_PROXY itself; it is left as it is",
            "container agent sets no_proxy itself; it is left as it is",
            "container agent sets grpc_proxy, which may lead around the proxy",
        ]
    );
    assert_eq!(
        told("java-own-store").await,
        [
            "container agent sets -Djavax.net.ssl.trustStore in JAVA_TOOL_OPTIONS itself; it is left as it is",
            "container mapped sets JAVA_TOOL_OPTIONS itself; it is left as it is",
        ]
    );
    assert_eq!(told("misspelt").await, ["the annotation keybearer.dev/usr is not known"]);
    assert_eq!(
        told("privileged-transparent").await,
        [
            "container dind can remove the redirection, as it is privileged or has NET_ADMIN",
            "container dind sets no runAsUser; if its image's user is 65532, it goes past the proxy",
        ]
    );
    assert_eq!(told("restricted").await, Vec::<String>::new());
}

#[tokio::test]
async fn java_is_told_after_what_its_container_tells_it() {
    let cluster = Cluster::start("{}");
    let trust = "-Djavax.net.ssl.trustStore=/etc/keybearer/ca/bundle.p12 -Djavax.net.ssl.trustStoreType=PKCS12 \
                 -Djavax.net.ssl.trustStorePassword=changeit";
    let proxy = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=7080 -Dhttp.proxyHost=127.0.0.1 \
                 -Dhttp.proxyPort=7080 -Dhttp.nonProxyHosts=localhost|127.*|[::1]";
    for (name, own, ours) in [
        ("java", "-XX:MaxRAMPercentage=75 -javaagent:/otel/agent.jar ", format!("{trust} {proxy}")),
        ("java-transparent", "-Xmx1g ", trust.to_owned()),
        ("java-own-store", "-Djavax.net.ssl.trustStore=/app/trust.jks ", proxy.to_owned()),
        ("minimal", "", format!("{trust} {proxy}")),
        ("transparent", "", trust.to_owned()),
    ] {
        let pod = pod(name);
        let once = cluster.create(&pod).await.allowed();
        let after = once.applied(&pod);
        let mut told = after["spec"]["containers"][0]["env"].as_array().unwrap().iter();
        let told = told.find(|one| one["name"] == "JAVA_TOOL_OPTIONS").unwrap();
        assert_eq!(told["value"], format!("{own}{ours}"), "{name}");
        let again = cluster.create(&after).await.allowed();
        assert_eq!((again.patch, again.warnings), (Value::Null, once.warnings), "{name}");
    }
}

#[tokio::test]
async fn a_debugger_is_given_the_bundle_and_may_not_be_the_sidecars_user() {
    let cluster = Cluster::start("{}");
    let before = pod("ephemeral-there");
    let running = cluster.create(&before).await.allowed().applied(&before);
    let with = |debugger: Value| {
        let mut pod = running.clone();
        pod["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(debugger);
        pod
    };
    let debugged = with(json!({"name": "debug", "image": "busybox:1.36", "targetContainerName": "agent"}));
    let reviewed = cluster.debug(&debugged, &running).await.allowed();
    let after = reviewed.applied(&debugged);
    assert_eq!(after["spec"]["ephemeralContainers"][1]["volumeMounts"][0]["name"], "keybearer-ca");
    assert_eq!(
        after["spec"]["ephemeralContainers"][0], running["spec"]["ephemeralContainers"][0],
        "it is fixed"
    );
    assert_eq!(cluster.debug(&after, &running).await.allowed().patch, Value::Null);
    valid(&[after]);

    let other = with(json!({"name": "debug", "image": "a", "securityContext": {"runAsUser": 65532}}));
    assert!(cluster.debug(&other, &running).await.refused().contains("container debug runs as user 65532"));
    let plain = cluster.debug(&before, &before).await.allowed();
    assert_eq!(plain.patch, Value::Null, "a pod from before the webhook is left alone");
}

#[tokio::test]
async fn settings_change_what_is_injected() {
    let cluster = Cluster::start(
        "{opt_in: false, mode: transparent, identity_required: false, uid: 4711, secret: null, admin_address: '::', \
         redirect: {exclude_ports: [5432], exclude_networks: [10.96.0.0/12], reject_udp: true}}",
    );
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let after = cluster.create(&pod).await.allowed().applied(&pod);
    let [redirect, sidecar] = [0, 1].map(|at| after["spec"]["initContainers"][at].clone());
    let command = "keybearer redirect install --proxy-uid 4711 --to-port 7081 --exclude-port 5432 \
                   --exclude-network 10.96.0.0/12 --reject-udp";
    assert_eq!(redirect["command"], json!(command.split(' ').collect::<Vec<_>>()));
    assert_eq!(sidecar["securityContext"]["runAsUser"], 4711);
    let env: BTreeMap<_, _> = sidecar["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), &one["value"]))
        .collect();
    assert_eq!(env["KEYBEARER_LISTEN__ADMIN"], r#""[::]:7090""#);
    assert!(
        !env.contains_key("KEYBEARER_VAULT_KEY") && !env.contains_key("KEYBEARER_IDENTITY__DEFAULT"),
        "{env:?}"
    );
    let no = json!({"metadata": {"labels": {"keybearer.dev/inject": "false"}}, "spec": {}});
    assert_eq!(cluster.create(&no).await.allowed(), Reviewed::default().admitted());
    valid(&[after]);
}

#[tokio::test]
async fn a_certificate_that_rotates_is_shown_to_the_next_connection() {
    let cluster = Cluster::start("{}");
    let minimal = pod("minimal");
    cluster.create(&minimal).await.allowed();
    let new = pair();
    // As the kubelet does it: a new directory, and the link to it swapped in one step.
    let dir = cluster.certificates();
    fs::create_dir(dir.join("..2")).unwrap();
    fs::write(dir.join("..2/tls.crt"), &new.0).unwrap();
    fs::write(dir.join("..2/tls.key"), &new.1).unwrap();
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    assert!(
        cluster.trusting(&cluster.certificate).get("/healthz").await.is_err(),
        "the old one is not shown any more"
    );
    cluster.trusting(&new.0).review(&minimal, &Value::Null, "").await.allowed();
}

#[tokio::test]
async fn tls_1_2_and_1_3_and_both_versions_of_http_are_spoken() {
    let cluster = Cluster::start("{}");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = cluster.client.with_version(version);
        assert_eq!(client.get("/healthz").await.unwrap(), (200, "ok\n".to_owned()));
    }
    assert_eq!(cluster.client.get_by_h2("/healthz").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn what_is_no_review_is_a_bad_request_and_all_are_counted() {
    let cluster = Cluster::start("{}");
    let beta = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "resource": {"version": "v1", "resource": "pods"}}});
    for (body, why) in [
        ("", "no AdmissionReview"),
        ("[]", "no AdmissionReview"),
        (r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#, "missing field `request`"),
        (beta.to_string().as_str(), "admissionReviewVersions: [v1]"),
    ] {
        let (status, said) = cluster.client.post("/mutate", body).await.unwrap();
        assert!(status == 400 && said.contains(why), "{body}: {status} {said}");
    }
    cluster.create(&pod("minimal")).await.allowed();
    cluster.create(&pods(UNTOUCHED)[0]).await.allowed();
    cluster.create(&pods(REFUSED)[0]).await.refused();
    let (_, metrics) = cluster.client.get("/metrics").await.unwrap();
    for (outcome, count) in [("bad_request", 4), ("injected", 1), ("unchanged", 1), ("refused", 1)] {
        let line = format!("keybearer_admission_reviews_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn what_is_no_pod_is_refused() {
    let cluster = Cluster::start("{opt_in: false}");
    for pod in [
        json!(null),
        json!("pod"),
        json!({"metadata": {}, "spec": []}),
        json!({"metadata": {}, "spec": {"containers": ["agent"]}}),
        json!({"metadata": {}, "spec": {"initContainers": [1], "containers": []}}),
    ] {
        assert!(cluster.create(&pod).await.refused().contains("this is no pod"), "{pod}");
    }
}

#[tokio::test]
async fn other_things_than_new_pods_pass_and_a_wrong_rule_is_told() {
    let cluster = Cluster::start("{}");
    let pod = pod("minimal");
    let mut review = cluster::review(&pod, &Value::Null, "");
    review["request"]["operation"] = json!("UPDATE");
    assert_eq!(cluster.client.ask(&review).await.allowed(), Reviewed::default().admitted());
    review["request"]["operation"] = json!("CREATE");
    review["request"]["resource"] = json!({"group": "apps", "version": "v1", "resource": "deployments"});
    let told = cluster.client.ask(&review).await.allowed();
    assert_eq!(told.patch, Value::Null);
    assert_eq!(
        told.warnings,
        ["keybearer webhook injects into pods only; do not register it for deployments"]
    );
}

#[test]
fn what_the_documentation_has_cluster_operators_apply_is_valid() {
    let docs = include_str!("../../docs/kubernetes.md");
    let blocks = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let is_object = |block: &&str| block.lines().any(|line| line.starts_with("apiVersion: "));
    let objects: Vec<Value> = blocks.filter(is_object).flat_map(pods).collect();
    let kinds: BTreeSet<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    for kind in ["ConfigMap", "Deployment", "MutatingWebhookConfiguration", "Pod", "Service"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    valid(&objects);
}

#[test]
fn every_annotation_is_in_the_documentation() {
    let (code, docs) =
        (include_str!("../../src/admission/wish.rs"), include_str!("../../docs/kubernetes.md"));
    let annotations: Vec<_> =
        code.split('"').filter(|text| text.len() > 14 && text.starts_with("keybearer.dev/")).collect();
    assert!(annotations.len() > 10, "{annotations:?}");
    for annotation in annotations {
        assert!(
            docs.contains(&format!("`{annotation}`")),
            "docs/kubernetes.md does not tell of {annotation}"
        );
    }
}
