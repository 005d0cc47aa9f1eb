//! What a container can do to the sidecar and its rules, by the capabilities that it has.

use serde_json::Value;

use super::{
    check::{items, user_of},
    parts::SIDECAR,
};

/// With these, the rules can be removed.
const CHANGES: [&str; 2] = ["NET_ADMIN", "SYS_ADMIN"];
/// By these, root gets past the rules: as the sidecar's user, or by packets that they do not see as TCP. Containers have
/// them unless they are dropped.
const PASSES: [&str; 2] = ["SETUID", "NET_RAW"];

/// Whether it is in a list of capabilities. Runtimes take them in any case, and some with `CAP_` before.
fn lists(capabilities: &Value, name: &str) -> bool {
    let mut listed = items(capabilities).filter_map(Value::as_str).map(str::to_ascii_uppercase);
    listed.any(|one| one == "ALL" || one.strip_prefix("CAP_").unwrap_or(&one) == name)
}

/// Whether the container is given a capability that containers do not have by themselves.
fn is_given(container: &Value, name: &str) -> bool {
    let context = &container["securityContext"];
    context["privileged"] == true || lists(&context["capabilities"]["add"], name)
}

/// Whether it has one that containers have by themselves.
fn has(container: &Value, name: &str) -> bool {
    is_given(container, name) || !lists(&container["securityContext"]["capabilities"]["drop"], name)
}

/// Others have the capabilities of their container's only if they become root.
fn may_be_root(container: &Value, spec: &Value) -> bool {
    let contexts = [&container["securityContext"], &spec["securityContext"]];
    let is_not_root = contexts.into_iter().find_map(|context| context["runAsNonRoot"].as_bool());
    user_of(container, spec).is_none_or(|uid| uid == 0) && is_not_root != Some(true)
}

/// Whether it can remove the rules.
pub(super) fn may_change(container: &Value) -> bool {
    CHANGES.into_iter().any(|name| is_given(container, name))
}

/// Whether it can get past them.
pub(super) fn may_pass(container: &Value, spec: &Value) -> bool {
    may_be_root(container, spec) && PASSES.into_iter().any(|name| has(container, name))
}

/// The system keeps the sidecar's memory and files from whoever is another user, but not from whoever may trace it.
pub(super) fn may_look(container: &Value, spec: &Value) -> bool {
    let sees = spec["shareProcessNamespace"] == true
        || spec["hostPID"] == true
        || container["targetContainerName"] == SIDECAR;
    sees && is_given(container, "SYS_PTRACE")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{check::pod, config::Config, wish::Wish},
        *,
    };

    /// What is said of a pod in this mode whose one container, and which itself, has this.
    fn warned(mode: &str, container: &Value, spec: &Value) -> Vec<String> {
        let said = json!({"keybearer.dev/tenant": "acme", "keybearer.dev/role": "researcher", "keybearer.dev/mode": mode});
        let mut one = json!({"metadata": {"labels": {"keybearer.dev/inject": "true"}, "annotations": said}, "spec": spec});
        one["spec"]["containers"] = json!([{"name": "agent", "image": "agent:1"}]);
        one["spec"]["containers"][0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let wish = Wish::of(&one, &Config::default()).unwrap().unwrap();
        pod(&one, &wish, &Config::default()).unwrap()
    }

    fn in_context(context: &Value) -> Vec<String> {
        warned("transparent", &json!({"securityContext": context}), &json!({}))
    }

    #[test]
    fn whoever_can_undo_the_rules_or_pass_them_is_told_of() {
        let undoes = "container agent can remove the redirection, as it is privileged or has NET_ADMIN";
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "SYS_ADMIN", "ALL", "all"] {
            let context = json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"], "add": [name]}});
            assert_eq!(in_context(&context), [undoes], "{name}");
        }
        let passes = "container agent may be root with SETUID or NET_RAW, by which it can go past the proxy; let it run as \
                      another user (runAsUser), or drop ALL capabilities";
        for context in [
            json!({"runAsUser": 0}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["NET_RAW"]}}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["SETUID"]}}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["SETUID"]}}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["CAP_NET_RAW"]}}),
        ] {
            assert_eq!(in_context(&context), [passes], "{context}");
        }
        for context in [
            json!({"runAsUser": 1000}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["ALL"]}}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["NET_RAW", "SETUID"]}}),
            json!({"runAsUser": 0, "capabilities": {"drop": ["all"], "add": ["NET_BIND_SERVICE"]}}),
        ] {
            assert_eq!(in_context(&context), [""; 0], "{context}");
        }
        let unknown =
            "container agent sets no runAsUser; if its image's user is 65532, it goes past the proxy";
        assert_eq!(in_context(&json!({})), [passes, unknown]);
        assert_eq!(in_context(&json!({"runAsNonRoot": true})), [unknown]);
        assert_eq!(warned("proxy", &json!({"securityContext": {"runAsUser": 0}}), &json!({})), [""; 0]);
    }

    #[test]
    fn whoever_can_look_into_the_sidecar_is_told_of() {
        let looks = "container agent sees the sidecar's processes and may trace them, so it can read the sidecar's memory and \
                     files; take SYS_PTRACE from it, or shareProcessNamespace and hostPID from the pod";
        let traces = json!({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}});
        let privileged = json!({"securityContext": {"privileged": true}});
        let shared = json!({"shareProcessNamespace": true});
        assert_eq!(warned("proxy", &traces, &shared), [looks]);
        assert_eq!(warned("proxy", &privileged, &shared), [looks]);
        assert_eq!(warned("proxy", &traces, &json!({"hostPID": true})), [looks]);
        assert_eq!(warned("proxy", &traces, &json!({})), [""; 0]);
        assert_eq!(warned("proxy", &json!({}), &shared), [""; 0]);
        let mut debugger = traces;
        debugger["targetContainerName"] = json!(SIDECAR);
        assert_eq!(warned("proxy", &debugger, &json!({})), [looks]);
    }
}
