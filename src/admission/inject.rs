//! From a pod to a patch.

use serde_json::{Map, Value, json};

use super::{
    Refusal,
    check::{self, items, named},
    config::Config,
    parts::{INTERNAL, Parts, REDIRECT, SIDECAR, TRUST},
    same,
    wish::{INJECTED, Wish},
};
use crate::clients::{self, java};

/// What becomes of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mutation {
    /// A JSON patch (RFC 6902); empty where nothing is to be changed.
    pub patch: Vec<Value>,
    /// What the pod's author should know.
    pub warnings: Vec<String>,
}

/// What is to be changed in a new pod so that it has its sidecar. A pod that has it already is not changed, but for
/// containers that others have injected meanwhile.
///
/// # Errors
/// [`Refusal`], which says what to change.
pub fn inject(pod: &Value, config: &Config) -> Result<Mutation, Refusal> {
    check::shape(pod)?;
    let Some(wish) = Wish::of(pod, config)? else { return Ok(Mutation::default()) };
    let parts = Parts::new(&wish, config);
    let mut warnings = check::pod(pod, &wish, config)?;

    let mut draft = pod.clone();
    let spec = &mut draft["spec"];
    let after = place(list(&mut spec["initContainers"]), &parts.containers)?;
    let begun = list(&mut spec["initContainers"]).iter_mut().skip(after);
    begun.filter(|container| !is_skipped(container, config)).for_each(|c| equip(c, &parts, &mut warnings));
    let containers = list(&mut spec["containers"]).iter_mut();
    containers
        .filter(|container| !is_skipped(container, config))
        .for_each(|c| equip(c, &parts, &mut warnings));
    add_volumes(list(&mut spec["volumes"]), &parts.volumes)?;
    if let Some(alias) = &parts.host_alias {
        add_alias(list(&mut spec["hostAliases"]), alias);
    }
    object(&mut draft["metadata"]["annotations"]).insert(INJECTED.to_owned(), json!(parts.fingerprint()));

    let mut patch = Vec::new();
    diff("", pod, &draft, &mut patch);
    Ok(Mutation { patch, warnings })
}

/// The same for ephemeral containers that are being added to a pod that runs (`kubectl debug`). Those of `before`
/// cannot be changed any more.
///
/// # Errors
/// [`Refusal`], which says what to change.
pub fn inject_ephemeral(pod: &Value, before: &Value, config: &Config) -> Result<Mutation, Refusal> {
    check::shape(pod)?;
    let is_injected = named(&pod["spec"]["initContainers"], SIDECAR).is_some();
    let Some(wish) = Wish::of(pod, config)?.filter(|_| is_injected) else { return Ok(Mutation::default()) };
    let parts = Parts::new(&wish, config);
    let mut warnings = check::pod(pod, &wish, config)?;

    let mut draft = pod.clone();
    for container in list(&mut draft["spec"]["ephemeralContainers"]) {
        let name = container["name"].as_str().unwrap_or_default();
        if named(&before["spec"]["ephemeralContainers"], name).is_none() {
            equip(container, &parts, &mut warnings);
        }
    }
    let mut patch = Vec::new();
    diff("", pod, &draft, &mut patch);
    Ok(Mutation { patch, warnings })
}

/// Puts our init containers before all others, or finds that they are there. Returns how many are up to the last.
///
/// Where another webhook has put a container before them, it stays there, but not before the rules: it would go past them.
fn place(all: &mut Vec<Value>, ours: &[Value]) -> Result<usize, Refusal> {
    let mut after = 0;
    let mut missing = 0;
    for container in ours {
        let name = &container["name"];
        match all.iter().position(|other| other["name"] == *name) {
            Some(at) => {
                same::container(container, &all[at])
                    .map_err(|differs| foreign("container", name, differs))?;
                after = after.max(at + 1);
            }
            None => missing += 1,
        }
    }
    if missing == ours.len() {
        all.splice(0..0, ours.iter().cloned());
        return Ok(ours.len());
    }
    if missing > 0 {
        let name =
            ours.iter().map(|c| &c["name"]).find(|name| all.iter().any(|other| other["name"] == **name));
        return Err(foreign("container", name.unwrap_or(&Value::Null), "the others are missing".to_owned()));
    }
    if after > ours.len() && ours.iter().any(|container| container["name"] == REDIRECT) {
        let at = |other: &Value| ours.iter().position(|container| container["name"] == other["name"]);
        all.sort_by_key(|other| at(other).unwrap_or(ours.len()));
        return Ok(ours.len());
    }
    Ok(after)
}

fn add_volumes(all: &mut Vec<Value>, ours: &[Value]) -> Result<(), Refusal> {
    for volume in ours {
        let name = &volume["name"];
        if let Some(other) = all.iter().find(|other| other["name"] == *name) {
            same::volume(volume, other).map_err(|differs| foreign("volume", name, differs))?;
        } else {
            all.push(volume.clone());
        }
    }
    Ok(())
}

fn foreign(kind: &'static str, name: &Value, differs: String) -> Refusal {
    Refusal::Foreign { kind, name: name.as_str().unwrap_or_default().to_owned(), differs }
}

/// The kubelet writes all of them into one file; the first that names us counts.
fn add_alias(all: &mut Vec<Value>, alias: &Value) {
    let names_us = |other: &Value| items(&other["hostnames"]).any(|name| name == INTERNAL);
    if !all.iter().any(names_us) {
        all.push(alias.clone());
    }
}

fn is_skipped(container: &Value, config: &Config) -> bool {
    config.skip_containers.iter().any(|name| container["name"] == **name)
}

/// Gives a container the trust bundle and the variables. What it sets itself stays, and is told.
fn equip(container: &mut Value, parts: &Parts, warnings: &mut Vec<String>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let set = list(&mut container["env"]);
    for (variable, value) in &parts.variables {
        match set.iter_mut().find(|own| own["name"] == *variable) {
            Some(own) if own["value"] == **value => {}
            Some(own) if *variable == java::VARIABLE && own["value"].is_string() => {
                warnings.extend(join(&mut own["value"], parts).map(|option| {
                    format!("container {name} sets -D{option} in {variable} itself; it is left as it is")
                }));
            }
            Some(_) => warnings.push(format!("container {name} sets {variable} itself; it is left as it is")),
            None => set.push(json!({"name": variable, "value": value})),
        }
    }
    let around = clients::REMOVED.iter().filter(|around| set.iter().any(|own| own["name"] == ***around));
    warnings.extend(
        around.map(|around| format!("container {name} sets {around}, which may lead around the proxy")),
    );
    let mounts = list(&mut container["volumeMounts"]);
    if !mounts.iter().any(|mount| mount["name"] == TRUST) {
        mounts.push(parts.mount.clone());
    }
}

/// Puts our options after the container's own, and returns those of its own that it keeps instead.
fn join(own: &mut Value, parts: &Parts) -> impl Iterator<Item = &'static str> {
    let joined = java::joined(own.as_str().unwrap_or_default(), &parts.java);
    *own = joined.value.into();
    joined.kept.into_iter()
}

/// The member as a list, which it becomes where it is missing or null.
fn list(member: &mut Value) -> &mut Vec<Value> {
    if !member.is_array() {
        *member = json!([]);
    }
    member.as_array_mut().expect("it is an array now")
}

fn object(member: &mut Value) -> &mut Map<String, Value> {
    if !member.is_object() {
        *member = json!({});
    }
    member.as_object_mut().expect("it is an object now")
}

/// The operations that make `new` of `old`. Nothing is ever removed, and a list that grew, or is in another order, is
/// replaced whole.
fn diff(path: &str, old: &Value, new: &Value, made: &mut Vec<Value>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                match old.get(key) {
                    Some(before) => diff(&path, before, value, made),
                    None => made.push(json!({"op": "add", "path": path, "value": value})),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if is_same_list(old, new) => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                diff(&format!("{path}/{at}"), old, new, made);
            }
        }
        _ => made.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

fn is_same_list(old: &[Value], new: &[Value]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old["name"] == new["name"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(mode: &str) -> Value {
        let said = json!({"keybearer.dev/tenant": "acme", "keybearer.dev/role": "researcher", "keybearer.dev/mode": mode});
        json!({"metadata": {"labels": {"keybearer.dev/inject": "true"}, "annotations": said},
            "spec": {"containers": [{"name": "agent", "image": "agent:1"}]}})
    }

    /// The pod as an API server has it after the patch.
    fn injected(pod: &Value) -> Value {
        let mut after = pod.clone();
        for op in inject(pod, &Config::default()).unwrap().patch {
            let (parent, key) = op["path"].as_str().unwrap().rsplit_once('/').unwrap();
            match after.pointer_mut(parent).unwrap() {
                Value::Array(items) => items[key.parse::<usize>().unwrap()] = op["value"].clone(),
                object => object[key] = op["value"].clone(),
            }
        }
        after
    }

    fn names(pod: &Value) -> Vec<&str> {
        items(&pod["spec"]["initContainers"]).map(|one| one["name"].as_str().unwrap()).collect()
    }

    /// What becomes of a pod that has its sidecar, where another webhook puts a container before all others.
    fn preceded(mode: &str) -> (Value, Value) {
        let before = injected(&pod(mode));
        let mut later = before.clone();
        let early =
            json!({"name": "early", "image": "early:1", "command": ["early"], "restartPolicy": "Always"});
        later["spec"]["initContainers"].as_array_mut().unwrap().insert(0, early);
        (before, injected(&later))
    }

    #[test]
    fn no_container_runs_before_the_rules_whoever_puts_it_there() {
        let (before, after) = preceded("transparent");
        assert_eq!(names(&after), ["keybearer-redirect", "keybearer", "early"]);
        for ours in [0, 1] {
            assert_eq!(after["spec"]["initContainers"][ours], before["spec"]["initContainers"][ours]);
        }
        let early = &after["spec"]["initContainers"][2];
        assert_eq!((&early["command"], &early["restartPolicy"]), (&json!(["early"]), &json!("Always")));
        assert_eq!(early["volumeMounts"], after["spec"]["containers"][0]["volumeMounts"]);
        assert_eq!(injected(&after), after);
    }

    #[test]
    fn where_nothing_is_redirected_others_may_come_first() {
        let (_, after) = preceded("proxy");
        assert_eq!(names(&after), ["early", "keybearer"]);
        assert_eq!(after["spec"]["initContainers"][0].get("volumeMounts"), None);
    }
}
