//! What is injected, as Kubernetes writes it.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    broker::Broker,
    config::{Config, Mode, Resources},
    wish::Wish,
};
use crate::{
    clients::{self, Trust, java},
    tls::{Format, STORE_PASSWORD},
};

/// The sidecar.
pub(super) const SIDECAR: &str = "keybearer";
/// What installs the rules of transparent mode, and ends.
pub(super) const REDIRECT: &str = "keybearer-redirect";
/// The volume with the certificates to trust, the only one that agents see.
pub(super) const TRUST: &str = "keybearer-ca";
/// The sidecar's own volumes, which agents may not mount: its files, in memory and on the node's disk, its configuration,
/// its policies, its token.
pub(super) const PRIVATE: [&str; 5] =
    ["keybearer-private", "keybearer-data", "keybearer-config", "keybearer-policies", TOKEN];
/// The volume with the token by which the sidecar proves to the broker whose it is.
pub(super) const TOKEN: &str = "keybearer-token";
/// Where that is mounted, in the sidecar.
pub(super) const TOKEN_DIR: &str = "/var/run/secrets/keybearer.dev";
/// How long a token lasts. The kubelet replaces it after four fifths of that.
const TOKEN_SECONDS: u32 = 3600;

/// Where [`TRUST`] is mounted, in every container.
pub(super) const TRUST_DIR: &str = "/etc/keybearer/ca";
const BUNDLE: &str = "/etc/keybearer/ca/bundle.pem";
/// For tests (RFC 5737): nobody is there, and the redirection takes the connection before anybody is asked.
const NOBODY: &str = "192.0.2.1";
/// What agents ask the proxy itself.
pub(super) const INTERNAL: &str = "keybearer.internal";

/// Everything that is injected into one pod.
pub(super) struct Parts {
    /// Init containers, in this order, before all others.
    pub(super) containers: Vec<Value>,
    pub(super) volumes: Vec<Value>,
    pub(super) host_alias: Option<Value>,
    /// What every other container is given.
    pub(super) variables: Vec<(&'static str, String)>,
    /// What is added to the options that it gives to Java itself.
    pub(super) java: Vec<java::Group>,
    pub(super) mount: Value,
}

impl Parts {
    pub(super) fn new(wish: &Wish, config: &Config) -> Self {
        let is_transparent = wish.mode == Mode::Transparent;
        // The rules first: no container runs before them.
        let redirect = is_transparent.then(|| redirect(wish, config));
        Self {
            containers: redirect.into_iter().chain([sidecar(wish, config)]).collect(),
            volumes: volumes(config),
            host_alias: is_transparent.then(|| json!({"ip": NOBODY, "hostnames": [INTERNAL]})),
            variables: variables(wish),
            java: java(wish),
            mount: json!({"name": TRUST, "mountPath": TRUST_DIR, "readOnly": true}),
        }
    }

    /// Tells apart what pods were injected with.
    pub(super) fn fingerprint(&self) -> String {
        let whole = json!([self.containers, self.volumes, self.host_alias, self.variables, self.mount]);
        let hash = Sha256::digest(whole.to_string());
        hash.iter().take(8).fold(String::with_capacity(16), |mut hex, byte| {
            let _infallible = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// A native sidecar (Kubernetes 1.29): it is ready before anything after it starts, outlives the containers, and a Job
/// does not wait for it.
fn sidecar(wish: &Wish, config: &Config) -> Value {
    let ready = json!({"path": "/readyz", "port": "keybearer-admin"});
    json!({
        "name": SIDECAR,
        "image": config.image,
        "args": ["proxy"],
        "restartPolicy": "Always",
        "env": environment(wish, config),
        "ports": [{"name": "keybearer-admin", "containerPort": wish.ports.admin, "protocol": "TCP"}],
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 60},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3},
        "resources": resources(&wish.resources),
        "securityContext": {
            "runAsUser": config.uid,
            "runAsGroup": config.uid,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts(config),
    })
}

fn mounts(config: &Config) -> Vec<Value> {
    let read_only = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let settings = config.settings_map().map(|_| read_only("keybearer-config", "/etc/keybearer/config"));
    let policies = config.policies_map().map(|_| read_only("keybearer-policies", "/etc/keybearer/policies"));
    let token = config.broker.as_ref().map(|_| read_only(TOKEN, TOKEN_DIR));
    let own = [
        json!({"name": TRUST, "mountPath": TRUST_DIR}),
        json!({"name": "keybearer-private", "mountPath": "/run/keybearer"}),
        json!({"name": "keybearer-data", "mountPath": "/data"}),
    ];
    own.into_iter().chain(settings).chain(policies).chain(token).collect()
}

/// The sidecar's configuration, over what `keybearer.yaml` says.
fn environment(wish: &Wish, config: &Config) -> Vec<Value> {
    let at = |ip: IpAddr, port| yaml(&json!(SocketAddr::new(ip, port)));
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let settings =
        config.settings_map().map(|_| ("CONFIG", "/etc/keybearer/config/keybearer.yaml".to_owned()));
    let policies = config.policies_map().map(|_| ("POLICIES", "[/etc/keybearer/policies]".to_owned()));
    let mut variables: Vec<_> = settings.into_iter().chain(policies).collect();
    variables.extend([
        ("DATA_DIR", "/data".to_owned()),
        ("CA__DIR", "/run/keybearer/ca".to_owned()),
        ("CA__BUNDLE", BUNDLE.to_owned()),
        ("LISTEN__PROXY", at(loopback, wish.ports.proxy)),
        ("LISTEN__ADMIN", at(config.admin_address, wish.ports.admin)),
    ]);
    if wish.mode == Mode::Transparent {
        variables.push(("LISTEN__TRANSPARENT", at(loopback, wish.ports.transparent)));
    }
    if let Some(subject) = &wish.subject {
        variables.push(("IDENTITY__DEFAULT", yaml(&json!(subject))));
    }
    variables.extend(config.broker.iter().flat_map(broker));
    let plain = variables.into_iter().map(|(key, value)| json!({"name": named(key), "value": value}));
    plain.chain(config.vault_secret().into_iter().flat_map(vault)).collect()
}

/// The broker, and that whoever asks is believed within its bindings: the identity is the pod's annotations'.
fn broker(broker: &Broker) -> impl Iterator<Item = (&'static str, String)> {
    let roots = broker.roots.as_ref().map(|pem| ("VAULT__ROOTS", yaml(&json!({"pem": pem}))));
    let own = [
        ("IDENTITY__MODE", "bound".to_owned()),
        ("VAULT__BACKEND", "broker".to_owned()),
        ("VAULT__URL", yaml(&json!(broker.url))),
        ("VAULT__TOKEN_FILE", format!("{TOKEN_DIR}/token")),
    ];
    own.into_iter().chain(roots)
}

/// Of the Secret, by variables: its files would be root's, and a key file that others may read is refused.
fn vault(secret: &str) -> [Value; 3] {
    let from = |key: &str| json!({"secretKeyRef": {"name": secret, "key": key}});
    [
        json!({"name": named("VAULT__URL"), "valueFrom": from("url")}),
        json!({"name": named("VAULT_KEY"), "valueFrom": from("key")}),
        json!({"name": named("VAULT__KEY"), "value": "{env: KEYBEARER_VAULT_KEY}"}),
    ]
}

fn named(key: &str) -> String {
    format!("{}{key}", clients::OWN_PREFIX)
}

/// JSON is YAML in which nothing can be taken for something else, as `[::]:7090` could. A `$` would begin the name of
/// another variable for Kubernetes.
fn yaml(value: &Value) -> String {
    value.to_string().replace('$', "$$")
}

fn resources(resources: &Resources) -> Value {
    let listed = |pairs: [(&str, &Option<super::Quantity>); 2]| -> Map<String, Value> {
        let set = pairs.into_iter().filter_map(|(name, amount)| Some((name, amount.as_ref()?)));
        set.map(|(name, amount)| (name.to_owned(), json!(amount.to_string()))).collect()
    };
    let requests = listed([("cpu", &resources.cpu_request), ("memory", &resources.memory_request)]);
    let limits = listed([("cpu", &resources.cpu_limit), ("memory", &resources.memory_limit)]);
    json!({"requests": requests, "limits": limits})
}

/// The only container with a capability, and it ends before any other begins.
fn redirect(wish: &Wish, config: &Config) -> Value {
    let mut command = vec!["keybearer".to_owned(), "redirect".to_owned(), "install".to_owned()];
    let mut option = |name: &str, value: String| command.extend([name.to_owned(), value]);
    option("--proxy-uid", config.uid.to_string());
    option("--to-port", wish.ports.transparent.to_string());
    for port in &config.redirect.exclude_ports {
        option("--exclude-port", port.to_string());
    }
    for network in &config.redirect.exclude_networks {
        option("--exclude-network", network.to_string());
    }
    if config.redirect.reject_udp {
        command.push("--reject-udp".to_owned());
    }
    json!({
        "name": REDIRECT,
        "image": config.redirect_image,
        "command": command,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

fn volumes(config: &Config) -> Vec<Value> {
    let map = |name: &str, map: &str| json!({"name": name, "configMap": {"name": map}});
    let settings = config.settings_map().map(|name| map("keybearer-config", name));
    let policies = config.policies_map().map(|name| map("keybearer-policies", name));
    let own = [
        json!({"name": TRUST, "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}),
        json!({"name": "keybearer-private", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"name": "keybearer-data", "emptyDir": {}}),
    ];
    own.into_iter().chain(settings).chain(policies).chain(config.broker.as_ref().map(token)).collect()
}

/// Of the pod's service account, and for the broker alone: API servers do not take it.
fn token(broker: &Broker) -> Value {
    let token = json!({"audience": broker.audience, "expirationSeconds": TOKEN_SECONDS, "path": "token"});
    json!({"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}})
}

/// Every trust variable of `keybearer run`, and in proxy mode every other one, too. Who asks is the sidecar's to know
/// (`identity.default`): a pod has one identity, and some clients cannot carry it in a proxy's URL.
fn variables(wish: &Wish) -> Vec<(&'static str, String)> {
    let (url, store) = (url(wish), store());
    let all = clients::environment(&url, trust(&store)).zip(clients::SET);
    let wanted = all.filter(|(_, of)| wish.mode == Mode::Proxy || of.value == clients::Value::Bundle);
    let wanted = wanted.filter(|(_, of)| of.value != clients::Value::Java);
    let java = (java::VARIABLE, java::options(&java(wish)));
    wanted.map(|((name, value), _)| (name, value.to_string_lossy().into_owned())).chain([java]).collect()
}

/// What Java is told, likewise.
fn java(wish: &Wish) -> Vec<java::Group> {
    let proxy = (wish.mode == Mode::Proxy).then(|| java::proxy(&url(wish)));
    [java::trust(&trust(&store()))].into_iter().chain(proxy).collect()
}

fn url(wish: &Wish) -> String {
    clients::proxy_url(&format!("127.0.0.1:{}", wish.ports.proxy), None)
}

fn store() -> PathBuf {
    Format::Pkcs12.beside(Path::new(BUNDLE))
}

fn trust(store: &Path) -> Trust<'_> {
    Trust { pem: Path::new(BUNDLE), store, password: STORE_PASSWORD }
}
