//! What a pod may not be or have beside a sidecar.

use serde_json::Value;

use super::{
    Refusal,
    config::{Config, Mode},
    mesh,
    parts::{PRIVATE, REDIRECT, SIDECAR, TOKEN, TRUST, TRUST_DIR},
    powers,
    wish::{ADMIN_PORT, PROXY_PORT, TRANSPARENT_PORT, Wish},
};

/// Refuses what is no pod: only a client that is no API server sends it.
pub(super) fn shape(pod: &Value) -> Result<(), Refusal> {
    let is_pod = pod["metadata"].is_object() && pod["spec"].is_object();
    if is_pod && containers(&pod["spec"]).all(Value::is_object) { Ok(()) } else { Err(Refusal::NoPod) }
}

/// Refuses what cannot go together; returns what is only to be warned of.
pub(super) fn pod(pod: &Value, wish: &Wish, config: &Config) -> Result<Vec<String>, Refusal> {
    let spec = &pod["spec"];
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Err(Refusal::Windows);
    }
    if spec["hostNetwork"] == true {
        return Err(Refusal::HostNetwork);
    }
    names(spec, wish)?;
    vault_secret(spec, config)?;
    broker_token(spec, config)?;
    let others: Vec<&Value> = containers(spec).filter(|container| !is_ours(container)).collect();
    for container in &others {
        mounts(container)?;
        user(container, spec, config)?;
        ports(container, wish)?;
    }
    let mut warnings: Vec<String> =
        wish.unknown.iter().map(|name| format!("the annotation {name} is not known")).collect();
    warnings.extend(others.iter().filter(|container| powers::may_look(container, spec)).map(|container| {
        let name = name(container);
        format!(
            "container {name} sees the sidecar's processes and may trace them, so it can read the sidecar's memory and \
             files; take SYS_PTRACE from it, or shareProcessNamespace and hostPID from the pod"
        )
    }));
    if wish.mode == Mode::Transparent {
        transparent(&others, spec, config, &mut warnings)?;
    }
    Ok(warnings)
}

/// Init containers, containers and ephemeral containers.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(&spec[list]))
}

/// What a list holds; nothing where it is missing.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The one of this name.
pub(super) fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    items(list).find(|one| one["name"] == name)
}

fn is_ours(container: &Value) -> bool {
    container["name"] == SIDECAR || container["name"] == REDIRECT
}

fn name(container: &Value) -> String {
    container["name"].as_str().unwrap_or_default().to_owned()
}

/// Whether a name of ours is used where we do not use it. Init containers are compared when ours are placed.
fn names(spec: &Value, wish: &Wish) -> Result<(), Refusal> {
    let foreign = |name: &str, differs: &str| Refusal::Foreign {
        kind: "container",
        name: name.to_owned(),
        differs: differs.to_owned(),
    };
    for name in [SIDECAR, REDIRECT] {
        if ["containers", "ephemeralContainers"].iter().any(|list| named(&spec[*list], name).is_some()) {
            return Err(foreign(name, "it is no init container"));
        }
    }
    if wish.mode == Mode::Proxy && named(&spec["initContainers"], REDIRECT).is_some() {
        return Err(foreign(REDIRECT, "the mode is proxy"));
    }
    Ok(())
}

fn mounts(container: &Value) -> Result<(), Refusal> {
    for mount in items(&container["volumeMounts"]) {
        let volume = mount["name"].as_str().unwrap_or_default();
        let path = mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/');
        let is_trust = volume == TRUST && path == TRUST_DIR && mount["readOnly"] == true;
        if PRIVATE.contains(&volume) || (volume == TRUST && !is_trust) {
            return Err(Refusal::PrivateVolume { container: name(container), volume: volume.to_owned() });
        }
        let is_there = path == TRUST_DIR || path.strip_prefix(TRUST_DIR).is_some_and(|p| p.starts_with('/'));
        if is_there && !is_trust {
            return Err(Refusal::Occupied { container: name(container), path: path.to_owned() });
        }
    }
    Ok(())
}

/// A container's own user wins over the pod's.
pub(super) fn user_of(container: &Value, spec: &Value) -> Option<u64> {
    let own = container["securityContext"]["runAsUser"].as_u64();
    own.or_else(|| spec["securityContext"]["runAsUser"].as_u64())
}

fn user(container: &Value, spec: &Value, config: &Config) -> Result<(), Refusal> {
    if user_of(container, spec) == Some(config.uid.into()) {
        return Err(Refusal::SharedUser { container: name(container), uid: config.uid });
    }
    Ok(())
}

fn ports(container: &Value, wish: &Wish) -> Result<(), Refusal> {
    let transparent = (wish.mode == Mode::Transparent).then_some((wish.ports.transparent, TRANSPARENT_PORT));
    let ours = [(wish.ports.proxy, PROXY_PORT), (wish.ports.admin, ADMIN_PORT)];
    let tcp = items(&container["ports"])
        .filter(|port| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP"));
    for theirs in tcp {
        let taken = ours.into_iter().chain(transparent).find(|(port, _)| theirs["containerPort"] == *port);
        if let Some((port, annotation)) = taken {
            return Err(Refusal::PortTaken { container: name(container), port, annotation });
        }
    }
    Ok(())
}

/// The Secret is mounted by nobody, and read by the sidecar's variables only.
fn vault_secret(spec: &Value, config: &Config) -> Result<(), Refusal> {
    let Some(secret) = config.vault_secret() else { return Ok(()) };
    let found = |kind: &str, one: &Value| {
        Err(Refusal::VaultSecret { place: format!("{kind} {}", name(one)), name: secret.to_owned() })
    };
    for volume in items(&spec["volumes"]) {
        let mut projected = items(&volume["projected"]["sources"]);
        if volume["secret"]["secretName"] == *secret
            || projected.any(|source| source["secret"]["name"] == *secret)
        {
            return found("volume", volume);
        }
    }
    for container in containers(spec).filter(|container| !is_ours(container)) {
        let (mut one, mut all) = (items(&container["env"]), items(&container["envFrom"]));
        if one.any(|one| one["valueFrom"]["secretKeyRef"]["name"] == *secret)
            || all.any(|all| all["secretRef"]["name"] == *secret)
        {
            return found("container", container);
        }
    }
    Ok(())
}

/// Tokens for the broker are the sidecar's. Its own volume is compared when it is placed.
fn broker_token(spec: &Value, config: &Config) -> Result<(), Refusal> {
    let Some(broker) = &config.broker else { return Ok(()) };
    let for_broker = |volume: &&Value| {
        items(&volume["projected"]["sources"])
            .any(|source| source["serviceAccountToken"]["audience"] == *broker.audience)
    };
    let other = items(&spec["volumes"]).filter(|volume| volume["name"] != TOKEN).find(for_broker);
    other.map_or(Ok(()), |volume| {
        Err(Refusal::BrokerToken { volume: name(volume), audience: broker.audience.clone() })
    })
}

/// What the pod's own network rules cannot hold.
fn transparent(
    others: &[&Value],
    spec: &Value,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    for container in others {
        let name = name(container);
        if mesh::CONTAINERS.contains(&&*name) {
            return Err(Refusal::RedirectedAlready { container: name });
        }
        if powers::may_change(container) {
            warnings.push(format!(
                "container {name} can remove the redirection, as it is privileged or has NET_ADMIN"
            ));
        } else if powers::may_pass(container, spec) {
            warnings.push(format!(
                "container {name} may be root with SETUID or NET_RAW, by which it can go past the proxy; let it run as \
                 another user (runAsUser), or drop ALL capabilities"
            ));
        }
        if user_of(container, spec).is_none() {
            let uid = config.uid;
            warnings.push(format!(
                "container {name} sets no runAsUser; if its image's user is {uid}, it goes past the proxy"
            ));
        }
    }
    Ok(())
}
