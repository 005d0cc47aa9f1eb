//! Pod Security Standards, `restricted` and what it includes of `baseline`, as the table of the standard has it
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).

use serde_json::{Value, json};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What the standard does not let pass in a pod's `spec`, a line each.
pub(super) fn faults(spec: &Value) -> Vec<String> {
    let containers: Vec<&Value> = LISTS.into_iter().flat_map(|list| items(&spec[list])).collect();
    let of_pod = [
        ("host namespaces", ["hostNetwork", "hostPID", "hostIPC"].iter().any(|key| spec[key] == true)),
        ("sysctls", !items(&spec["securityContext"]["sysctls"]).is_empty()),
        ("volume types", !items(&spec["volumes"]).into_iter().all(is_allowed)),
    ];
    let faults = of_pod.into_iter().filter(|(_, wrong)| *wrong).map(|(what, _)| what.to_owned());
    let of_containers = containers.into_iter().flat_map(|container| {
        let name = container["name"].as_str().unwrap();
        of_container(container, &spec["securityContext"]).map(move |what| format!("{name}: {what}"))
    });
    faults.chain(of_containers).collect()
}

fn of_container<'a>(container: &'a Value, pod: &'a Value) -> impl Iterator<Item = &'static str> {
    let own = &container["securityContext"];
    // A container's word wins over the pod's.
    let either = |key: &str| own.get(key).unwrap_or_else(|| &pod[key]).clone();
    let seccomp = either("seccompProfile")["type"].clone();
    let added = items(&own["capabilities"]["add"]);
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| &container[probe]);
    let faults = [
        ("privileged", own["privileged"] == true),
        ("host process", !either("windowsOptions")["hostProcess"].is_null()),
        ("host ports", items(&container["ports"]).iter().any(|port| !port["hostPort"].is_null())),
        ("host probes", probes.iter().any(|probe| !probe["httpGet"]["host"].is_null())),
        ("AppArmor", either("appArmorProfile")["type"] == "Unconfined"),
        ("SELinux", !either("seLinuxOptions").is_null()),
        ("/proc mount", own.get("procMount").is_some_and(|kind| kind != "Default")),
        ("privilege escalation", own["allowPrivilegeEscalation"] != false),
        ("non-root", either("runAsNonRoot") != true),
        ("root user", either("runAsUser") == 0),
        ("seccomp", seccomp != "RuntimeDefault" && seccomp != "Localhost"),
        ("capabilities dropped", !items(&own["capabilities"]["drop"]).contains(&&json!("ALL"))),
        ("capabilities added", !added.iter().all(|name| *name == "NET_BIND_SERVICE")),
    ];
    faults.into_iter().filter(|(_, wrong)| *wrong).map(|(what, _)| what)
}

fn is_allowed(volume: &Value) -> bool {
    let mut kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
    kinds.all(|kind| VOLUMES.contains(&kind.as_str()))
}

fn items(list: &Value) -> Vec<&Value> {
    list.as_array().into_iter().flatten().collect()
}

#[test]
fn each_row_of_the_standard_is_looked_at() {
    let good = json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    });
    assert_eq!(faults(&good), Vec::<String>::new());
    for (pointer, value, what) in [
        ("/hostNetwork", json!(true), "host namespaces"),
        ("/hostPID", json!(true), "host namespaces"),
        ("/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}]), "sysctls"),
        ("/volumes/0", json!({"name": "v", "hostPath": {"path": "/"}}), "volume types"),
        ("/securityContext/runAsNonRoot", json!(false), "c: non-root"),
        ("/securityContext/runAsUser", json!(0), "c: root user"),
        ("/securityContext/seccompProfile/type", json!("Unconfined"), "c: seccomp"),
        ("/securityContext/windowsOptions", json!({"hostProcess": true}), "c: host process"),
        ("/containers/0/securityContext/privileged", json!(true), "c: privileged"),
        ("/containers/0/securityContext/runAsUser", json!(0), "c: root user"),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(null), "c: privilege escalation"),
        ("/containers/0/securityContext/capabilities/drop", json!(["NET_RAW"]), "c: capabilities dropped"),
        ("/containers/0/securityContext/capabilities/add", json!(["NET_ADMIN"]), "c: capabilities added"),
        ("/containers/0/securityContext/procMount", json!("Unmasked"), "c: /proc mount"),
        ("/containers/0/securityContext/seLinuxOptions", json!({"user": "root"}), "c: SELinux"),
        ("/containers/0/securityContext/appArmorProfile", json!({"type": "Unconfined"}), "c: AppArmor"),
        ("/containers/0/ports", json!([{"containerPort": 1, "hostPort": 1}]), "c: host ports"),
        (
            "/containers/0/livenessProbe",
            json!({"httpGet": {"host": "10.0.0.1", "port": 1}}),
            "c: host probes",
        ),
    ] {
        let mut bad = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match bad.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            parent => parent[key] = value,
        }
        assert_eq!(faults(&bad), [what], "{pointer}");
    }
}
