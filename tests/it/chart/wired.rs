//! What the chart's objects say of one another: names, labels, ports, rights.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    folder, pods,
    rendered::{CASES, Case, case},
};

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Whether these labels are among those.
fn selects(selector: &Value, labels: &Value) -> bool {
    let mut wanted = selector.as_object().unwrap().iter();
    wanted.len() > 0 && wanted.all(|(key, value)| labels[key] == *value)
}

/// The pods' templates that a selector takes.
fn selected<'a>(case: &'a Case, selector: &'a Value) -> Vec<&'a Value> {
    pods(case).filter(|pod| selects(selector, &pod["metadata"]["labels"])).collect()
}

/// The ports of a pod's containers, by name.
fn ports(pod: &Value) -> BTreeSet<&str> {
    items(&pod["spec"]["containers"])
        .flat_map(|one| items(&one["ports"]))
        .map(|port| text(&port["name"]))
        .collect()
}

#[test]
fn each_selector_takes_the_pods_of_one_deployment() {
    for case in CASES.iter() {
        let by_kind = [
            ("Deployment", "/spec/selector/matchLabels"),
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ];
        for (kind, pointer) in by_kind {
            for object in case.of_kind(kind) {
                let taken = selected(case, object.pointer(pointer).unwrap());
                assert_eq!(taken.len(), 1, "{}: {kind} {}", case.name, object["metadata"]["name"]);
                let account = &taken[0]["spec"]["serviceAccountName"];
                assert!(!account.is_null());
            }
        }
        for pod in pods(case) {
            for spread in items(&pod["spec"]["topologySpreadConstraints"]) {
                assert_eq!(selected(case, &spread["labelSelector"]["matchLabels"]), [pod]);
            }
        }
        for policy in case.of_kind("NetworkPolicy") {
            assert!(!selected(case, &policy["spec"]["podSelector"]["matchLabels"]).is_empty());
        }
        for scaler in case.of_kind("HorizontalPodAutoscaler") {
            let name = text(&scaler["spec"]["scaleTargetRef"]["name"]);
            let scaled = case.find("Deployment", name).unwrap();
            assert_eq!(scaled["spec"]["replicas"], Value::Null, "the scaler's to say");
        }
    }
}

#[test]
fn what_is_selected_by_never_changes_with_a_version() {
    for deployment in CASES.iter().flat_map(|case| case.of_kind("Deployment")) {
        let labels = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
        let keys: Vec<_> = labels.keys().map(|key| key.rsplit('/').next().unwrap()).collect();
        assert_eq!(keys, ["component", "instance", "name"]);
    }
}

#[test]
fn ports_are_those_of_the_containers() {
    for case in CASES.iter() {
        for service in case.of_kind("Service") {
            let taken = selected(case, &service["spec"]["selector"]);
            for port in items(&service["spec"]["ports"]) {
                assert!(ports(taken[0]).contains(text(&port["targetPort"])), "{}: {port}", case.name);
            }
        }
        for pod in pods(case) {
            for container in items(&pod["spec"]["containers"]) {
                let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
                for probe in probes.map(|probe| &container[probe]["httpGet"]["port"]) {
                    assert!(probe.is_null() || ports(pod).contains(text(probe)), "{}: {probe}", case.name);
                }
            }
        }
        for policy in case.of_kind("NetworkPolicy") {
            for taken in selected(case, &policy["spec"]["podSelector"]["matchLabels"]) {
                let rules = items(&policy["spec"]["ingress"]).flat_map(|rule| items(&rule["ports"]));
                assert!(rules.into_iter().all(|rule| ports(taken).contains(text(&rule["port"]))));
            }
        }
        for monitor in case.of_kind("ServiceMonitor") {
            let mut services = case.of_kind("Service");
            let service = services
                .find(|service| {
                    selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"])
                })
                .unwrap();
            let names: Vec<_> = items(&service["spec"]["ports"]).map(|port| &port["name"]).collect();
            assert!(items(&monitor["spec"]["endpoints"]).all(|end| names.contains(&&end["port"])));
        }
    }
}

#[test]
fn without_a_virtual_address_ports_are_not_translated() {
    for case in CASES.iter() {
        for service in case.of_kind("Service").filter(|service| service["spec"]["clusterIP"] == "None") {
            let pod = selected(case, &service["spec"]["selector"])[0];
            for port in items(&service["spec"]["ports"]) {
                let mut of_containers =
                    items(&pod["spec"]["containers"]).flat_map(|container| items(&container["ports"]));
                let own = of_containers.find(|own| own["name"] == port["targetPort"]).unwrap();
                assert_eq!(own["containerPort"], port["port"], "{}", case.name);
            }
        }
    }
}

#[test]
fn programs_listen_at_the_ports_of_their_containers() {
    for case in CASES.iter() {
        let webhook: Value = serde_saphyr::from_str(case.settings("webhook.yaml").unwrap()).unwrap();
        let listened = |value: &Value| text(value).rsplit_once(':').unwrap().1.to_owned();
        assert_eq!(listened(&webhook["webhook"]["listen"]), container_port(case, "https"));
        for map in case
            .of_kind("Deployment")
            .filter(|one| one["metadata"]["name"].as_str().unwrap().ends_with("-broker"))
        {
            let settings = case.find("ConfigMap", text(&map["metadata"]["name"])).unwrap();
            let broker: Value = serde_saphyr::from_str(text(&settings["data"]["keybearer.yaml"])).unwrap();
            assert_eq!(listened(&broker["broker"]["listen"]), container_port(case, "broker"));
            assert_eq!(listened(&broker["listen"]["admin"]), container_port(case, "admin"));
        }
    }
}

fn container_port(case: &Case, name: &str) -> String {
    let containers = pods(case).flat_map(|pod| items(&pod["spec"]["containers"]));
    let mut all = containers.flat_map(|container| items(&container["ports"]));
    all.find(|port| port["name"] == name).unwrap()["containerPort"].to_string()
}

#[test]
fn api_servers_and_sidecars_are_sent_to_services_that_are_there() {
    for case in CASES.iter() {
        for configuration in case.of_kind("MutatingWebhookConfiguration") {
            let to = &configuration["webhooks"][0]["clientConfig"]["service"];
            let service = case.find("Service", text(&to["name"])).unwrap();
            assert_eq!(service["metadata"]["namespace"], to["namespace"]);
            assert!(items(&service["spec"]["ports"]).any(|port| port["port"] == to["port"]));
        }
        let settings: Value = serde_saphyr::from_str(case.settings("webhook.yaml").unwrap()).unwrap();
        let urls = settings["webhook"]["broker"]["url"].as_str().into_iter();
        for url in urls {
            let (host, port) = url.strip_prefix("https://").unwrap().split_once(':').unwrap();
            let (name, rest) = host.split_once('.').unwrap();
            assert_eq!(rest, "keybearer.svc");
            let service = case.find("Service", name).unwrap();
            let port: u16 = port.parse().unwrap();
            assert!(items(&service["spec"]["ports"]).any(|own| own["port"] == port));
            for certificate in
                case.of_kind("Certificate").filter(|one| one["metadata"]["name"] == format!("{name}-tls"))
            {
                assert_eq!(certificate["spec"]["dnsNames"][0], host);
            }
        }
    }
}

/// What somebody else makes, by this name.
fn is_given(case: &Case, name: &str) -> bool {
    let defaults = std::fs::read_to_string(folder().join("values.yaml")).unwrap();
    name == "kube-root-ca.crt" || [defaults, case.values.clone()].iter().any(|values| values.contains(name))
}

/// Whether the chart makes it, itself or by cert-manager.
fn is_made(case: &Case, kind: &str, name: &str) -> bool {
    let certificates = case.of_kind("Certificate").filter(|_| kind == "Secret");
    certificates.into_iter().any(|one| one["spec"]["secretName"] == name) || case.find(kind, name).is_some()
}

#[test]
fn what_pods_mount_and_read_is_made_or_given() {
    for case in CASES.iter() {
        for pod in pods(case) {
            let account = text(&pod["spec"]["serviceAccountName"]);
            assert!(
                account == "default" || is_made(case, "ServiceAccount", account),
                "{}: {account}",
                case.name
            );
            let volumes: Vec<_> = items(&pod["spec"]["volumes"]).collect();
            let projected = volumes.iter().flat_map(|volume| items(&volume["projected"]["sources"]));
            for source in volumes.iter().copied().chain(projected) {
                for (kind, name) in
                    [("ConfigMap", &source["configMap"]["name"]), ("Secret", &source["secret"]["secretName"])]
                {
                    let found =
                        name.as_str().is_none_or(|name| is_made(case, kind, name) || is_given(case, name));
                    assert!(found, "{}: {kind} {name}", case.name);
                }
            }
            let names: BTreeSet<_> = volumes.iter().map(|volume| text(&volume["name"])).collect();
            for container in items(&pod["spec"]["containers"]) {
                let mounts: BTreeSet<_> =
                    items(&container["volumeMounts"]).map(|mount| text(&mount["name"])).collect();
                assert!(mounts.is_subset(&names), "{}: {mounts:?}", case.name);
            }
        }
    }
}

#[test]
fn no_secret_is_in_a_config_map_and_none_but_the_certificate_is_made() {
    for case in CASES.iter() {
        let made: Vec<_> = case.of_kind("Secret").filter(|secret| !secret["data"].is_null()).collect();
        assert!(made.iter().all(|secret| secret["type"] == "kubernetes.io/tls"), "{made:?}");
        for map in case.of_kind("ConfigMap") {
            let told = map["data"].to_string();
            assert!(!told.contains("PRIVATE KEY") && !told.contains("postgres://"), "{told}");
        }
    }
}

#[test]
fn rights_name_what_they_are_for() {
    let mut rules = 0;
    for case in CASES.iter() {
        for role in case.of_kind("Role").chain(case.of_kind("ClusterRole")) {
            for rule in items(&role["rules"]) {
                rules += 1;
                let all: Vec<_> = ["apiGroups", "resources", "verbs"]
                    .into_iter()
                    .flat_map(|key| items(&rule[key]))
                    .collect();
                assert!(!all.iter().any(|name| *name == "*"), "{rule}");
                let kind = match text(&rule["resources"][0]) {
                    "secrets" => "Secret",
                    "mutatingwebhookconfigurations" => "MutatingWebhookConfiguration",
                    other => panic!("{other}: is this needed?"),
                };
                let named: Vec<_> = items(&rule["resourceNames"]).collect();
                assert_eq!(named.len(), 1, "{rule}");
                assert!(is_made(case, kind, text(named[0])), "{}: {rule}", case.name);
            }
        }
        for binding in case.of_kind("RoleBinding").chain(case.of_kind("ClusterRoleBinding")) {
            let role = &binding["roleRef"];
            assert!(case.find(text(&role["kind"]), text(&role["name"])).is_some(), "{binding}");
            for subject in items(&binding["subjects"]) {
                let account = case.find("ServiceAccount", text(&subject["name"])).unwrap();
                assert_eq!(account["metadata"]["namespace"], subject["namespace"]);
            }
        }
    }
    assert!(rules > 0);
    let without = case("cert-manager");
    assert_eq!(without.of_kind("Role").chain(without.of_kind("ClusterRole")).count(), 0, "nothing to write");
}
