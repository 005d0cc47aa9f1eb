//! Whether a part of a pod is the injected one, after API server and other webhooks have added to it.
//!
//! The API server fills in defaults and mounts the service account's token into every container; admission plugins set
//! resources and pull policies; other webhooks add variables and pin images. All that may be; nothing else.

use serde_json::Value;

use super::check::items;

/// What others may add to a container of ours.
const ADDED: [&str; 4] =
    ["terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "resources"];
/// What others may mount into one: identities that clouds give to pods.
const MOUNTED: [&str; 2] = ["/var/run/secrets/", "/run/secrets/"];
/// The beginnings of variables that nobody else may set: our configuration and where it is looked for, whom we trust, what
/// is loaded into us.
const OURS: [&str; 6] = ["KEYBEARER_", "XDG_", "HOME", "SSL_CERT_", "LD_", "GLIBC_"];

/// # Errors
/// The field that differs.
pub(super) fn container(ours: &Value, theirs: &Value) -> Result<(), String> {
    let fields = theirs.as_object().into_iter().flatten().map(|(key, _)| key);
    let added = fields.filter(|key| ours.get(key.as_str()).is_none());
    if let Some(key) = added.into_iter().find(|key| !may_be_added(key)) {
        return Err(key.clone());
    }
    for (key, wanted) in ours.as_object().into_iter().flatten() {
        let found = &theirs[key];
        let is_same = match key.as_str() {
            "resources" => true,
            "image" => is_image(wanted, found),
            "securityContext" => is_context(wanted, found),
            "env" | "volumeMounts" => covers_list(wanted, found) && rest(wanted, found).all(is_harmless),
            _ => covers(wanted, found),
        };
        if !is_same {
            return Err(key.clone());
        }
    }
    Ok(())
}

/// # Errors
/// The field that differs.
pub(super) fn volume(ours: &Value, theirs: &Value) -> Result<(), String> {
    let differs = ours.as_object().into_iter().flatten().find(|(key, wanted)| !covers(wanted, &theirs[key]));
    differs.map_or(Ok(()), |(key, _)| Err(key.clone()))
}

fn may_be_added(key: &str) -> bool {
    ADDED.contains(&key) || matches!(key, "env" | "volumeMounts")
}

/// The image itself, or the same pinned to a digest.
fn is_image(ours: &Value, theirs: &Value) -> bool {
    let pinned = theirs.as_str().and_then(|image| image.split_once("@sha256:"));
    ours == theirs || pinned.is_some_and(|(image, _)| ours == image)
}

/// To the letter, but for the default that some versions fill in: what is added here is a privilege.
fn is_context(ours: &Value, theirs: &Value) -> bool {
    let mut theirs = theirs.clone();
    if let Some(context) = theirs.as_object_mut().filter(|c| c.get("procMount") == Some(&"Default".into())) {
        context.remove("procMount");
    }
    *ours == theirs
}

/// Whether everything in `ours` is in `theirs`.
fn covers(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(_)) => {
            ours.iter().all(|(key, wanted)| covers(wanted, &theirs[key]))
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| covers(ours, theirs))
        }
        _ => ours == theirs,
    }
}

fn covers_list(ours: &Value, theirs: &Value) -> bool {
    items(ours).all(|wanted| items(theirs).any(|found| covers(wanted, found)))
}

/// What of `theirs` is not of `ours`.
fn rest<'a>(ours: &'a Value, theirs: &'a Value) -> impl Iterator<Item = &'a Value> {
    items(theirs).filter(move |found| !items(ours).any(|wanted| covers(wanted, found)))
}

/// A variable or a mount that others may add.
fn is_harmless(added: &Value) -> bool {
    if let Some(path) = added["mountPath"].as_str() {
        let is_token = path.contains("/keybearer.dev");
        return MOUNTED.iter().any(|below| path.starts_with(below)) && !path.contains("..") && !is_token;
    }
    added["name"].as_str().is_some_and(|name| !OURS.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ours() -> Value {
        json!({
            "name": "keybearer", "image": "registry.example/keybearer:1", "args": ["proxy"],
            "env": [{"name": "KEYBEARER_CONFIG", "value": "/c"}],
            "securityContext": {"runAsUser": 65532, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "keybearer-ca", "mountPath": "/etc/keybearer/ca"}],
            "resources": {},
        })
    }

    #[test]
    fn what_clusters_add_is_no_difference() {
        let mut theirs = ours();
        theirs["image"] = json!(format!("registry.example/keybearer:1@sha256:{}", "a".repeat(64)));
        theirs["terminationMessagePath"] = json!("/dev/termination-log");
        theirs["resources"] = json!({"limits": {"cpu": "1"}});
        theirs["securityContext"]["procMount"] = json!("Default");
        theirs["env"].as_array_mut().unwrap().push(json!({"name": "AWS_ROLE_ARN", "value": "arn"}));
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        theirs["volumeMounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "kube-api-access-x", "mountPath": token}));
        assert_eq!(container(&ours(), &theirs), Ok(()));
    }

    #[test]
    fn everything_else_is() {
        let with = |pointer: &str, value: Value| {
            let mut theirs = ours();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = theirs.pointer_mut(parent).unwrap();
            match parent {
                Value::Array(items) => items.push(value),
                _ => parent[key] = value,
            }
            container(&ours(), &theirs).unwrap_err()
        };
        assert_eq!(with("/args", json!(["version"])), "args");
        assert_eq!(with("/command", json!(["sh"])), "command");
        assert_eq!(with("/envFrom", json!([])), "envFrom");
        assert_eq!(with("/image", json!("registry.example/other:1")), "image");
        assert_eq!(with("/securityContext/privileged", json!(true)), "securityContext");
        assert_eq!(
            with("/securityContext/capabilities", json!({"drop": ["ALL"], "add": ["X"]})),
            "securityContext"
        );
        assert_eq!(with("/env/-", json!({"name": "KEYBEARER_CONFIG", "value": "/mine"})), "env");
        assert_eq!(with("/env/-", json!({"name": "SSL_CERT_FILE", "value": "/mine"})), "env");
        // Where settings are looked for that no variable names: with a broker, none does.
        for name in ["XDG_CONFIG_HOME", "HOME"] {
            assert_eq!(with("/env/-", json!({"name": name, "value": "/run/secrets/mine"})), "env");
        }
        assert_eq!(with("/volumeMounts/-", json!({"name": "x", "mountPath": "/keybearer"})), "volumeMounts");
        let over_token = json!({"name": "x", "mountPath": "/run/secrets/keybearer.dev/token"});
        assert_eq!(with("/volumeMounts/-", over_token), "volumeMounts");
        assert_eq!(with("/volumeMounts", json!([])), "volumeMounts");
    }
}
