//! `KEYBEARER_*` variables: the configuration's keys in upper case, `__` between them.

use serde_json::{Map, Value};

use super::{Config, Error};
use crate::{
    document::with_hint,
    oauth::{AppConfig, SecretSource},
    secret::Secret,
    vault::KeySource,
};

const PREFIX: &str = "KEYBEARER_";
/// Variables with our prefix that are no keys: they are read by the command line and by `vault.key: {env: ...}`.
const OTHERS: [&str; 3] = ["CONFIG", "LOG", "VAULT_KEY"];

/// Kubernetes tells pods of each Service by variables: of one named `keybearer`, `KEYBEARER_SERVICE_HOST` and
/// `KEYBEARER_PORT_7080_TCP_ADDR`.
fn is_service_link(key: &str) -> bool {
    let key = format!("_{key}");
    key.contains("_SERVICE_HOST")
        || key.contains("_SERVICE_PORT")
        || key.contains("_PORT_")
        || key.ends_with("_PORT")
}

/// The configuration with what the environment says over it.
pub(super) fn over(config: Config, text: &str) -> Result<Config, Error> {
    let variables: Vec<(String, String)> = std::env::vars()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .filter(|(key, _)| !OTHERS.contains(&key.as_str()) && !is_service_link(key))
        .collect();
    overlaid(config, text, &variables)
}

/// Puts secrets themselves where a section names a variable. One that is not set is the section's to complain about.
pub(super) fn read_secrets(config: &mut Config) {
    let mut variables = Vec::new();
    for source in [&mut config.vault.key, &mut config.vault.next_key].into_iter().flatten() {
        if let KeySource::Env(name) = source {
            let name = name.clone();
            *source = read_key(&name);
            variables.push(name);
        }
    }
    for source in config.oauth.apps.values_mut().flat_map(AppConfig::secrets_mut) {
        let SecretSource::Env(name) = source else { continue };
        variables.push(name.clone());
        if let Some(value) = secret(name) {
            *source = SecretSource::Value(value);
        }
    }
    config.secret_variables = variables;
}

/// The key that a variable holds; the variable itself where it is not set.
pub(super) fn read_key(name: &str) -> KeySource {
    secret(name).map_or_else(|| KeySource::Env(name.to_owned()), KeySource::Value)
}

#[expect(clippy::disallowed_methods, reason = "this is the configuration")]
fn secret(name: &str) -> Option<Secret> {
    std::env::var(name).ok().map(|text| Secret::new(text.into_bytes()))
}

fn overlaid(config: Config, text: &str, variables: &[(String, String)]) -> Result<Config, Error> {
    if variables.is_empty() {
        return Ok(config);
    }
    // The file has been read once already, so what fails now is a variable's.
    let failed = |text: String| Error::Environment {
        variables: variables.iter().map(|(key, _)| format!("{PREFIX}{key}")).collect::<Vec<_>>().join(", "),
        text: with_hint(&text),
    };
    let mut whole: Value = if text.trim().is_empty() {
        Value::Object(Map::new())
    } else {
        serde_saphyr::from_str(text).map_err(|error| failed(error.to_string()))?
    };
    for (key, value) in variables {
        let path: Vec<String> = key.to_ascii_lowercase().split("__").map(str::to_owned).collect();
        let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
        put(&mut whole, &path, value);
    }
    serde_json::from_value(whole).map_err(|error| failed(error.to_string()))
}

fn put(whole: &mut Value, path: &[String], value: Value) {
    let Some((last, before)) = path.split_last() else { return };
    let mut at = whole;
    for key in before {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[key.as_str()];
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    at[last.as_str()] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let config = super::super::parse(text, None).map_err(|e: Error| e.to_string())?;
        let variables: Vec<_> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        overlaid(config, text, &variables).map_err(|e| e.to_string())
    }

    #[test]
    fn a_variable_wins_over_the_file_and_leaves_the_rest() {
        let text = "listen: {proxy: 127.0.0.1:1, admin: 127.0.0.1:2}";
        let config = with(text, &[("LISTEN__PROXY", "127.0.0.1:9"), ("POLICIES", "[/a, /b]")]).unwrap();
        assert_eq!(config.listen.proxy.port(), 9);
        assert_eq!(config.listen.admin.port(), 2);
        assert_eq!(config.policies.len(), 2);
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_it() {
        let error = with("", &[("LISTEN__PORXY", "127.0.0.1:9")]).unwrap_err();
        assert!(error.contains("KEYBEARER_LISTEN__PORXY") && error.contains("porxy"), "{error}");
    }

    #[test]
    fn secrets_are_read_from_the_variables_that_are_named_and_the_variables_are_remembered() {
        let text = "vault: {key: {env: CARGO_PKG_NAME}}\noauth:\n  apps:\n    a: {client_id: i, client_secret: \
                    {env: CARGO_PKG_NAME}}\n    b: {client_id: i, private_key: {env: SURELY_NOT_SET}}\n";
        let mut config: Config = super::super::parse(text, None).unwrap();
        read_secrets(&mut config);
        let named = SecretSource::Value(Secret::new(b"keybearer".to_vec()));
        assert_eq!(config.oauth.apps["a"].client_secret, Some(named));
        let unset = SecretSource::Env("SURELY_NOT_SET".to_owned());
        assert_eq!(config.oauth.apps["b"].private_key, Some(unset), "the section's to complain about");
        assert!(matches!(config.vault.key, Some(KeySource::Value(_))));
        assert_eq!(config.secret_variables, ["CARGO_PKG_NAME", "CARGO_PKG_NAME", "SURELY_NOT_SET"]);
    }

    #[test]
    fn an_apps_files_are_relative_to_the_configuration_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keybearer.yaml");
        let app = "{client_id: i, client_secret: {file: x.secret}}";
        std::fs::write(&file, format!("oauth: {{apps: {{a: {app}}}}}")).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        let placed = SecretSource::File(dir.path().join("x.secret"));
        assert_eq!(config.oauth.apps["a"].client_secret, Some(placed));
    }

    #[test]
    fn what_kubernetes_says_of_services_is_not_for_us() {
        for link in
            ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_7080_TCP_ADDR", "BROKER_SERVICE_PORT_HTTPS"]
        {
            assert!(is_service_link(link), "{link}");
        }
        for key in ["LISTEN__PROXY", "EGRESS__ROOTS", "DATA_DIR"] {
            assert!(!is_service_link(key), "{key}");
        }
    }

    #[test]
    fn an_unknown_key_in_the_file_is_an_error_with_its_line() {
        let error = with("listen:\n  proxy: 127.0.0.1:1\n  admn: 127.0.0.1:2\n", &[]).unwrap_err();
        assert!(error.starts_with("keybearer.yaml:3:3: ") && error.contains("admn"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_shown_in_its_line_with_what_to_write() {
        let told = |text: &str| with(text, &[]).unwrap_err();
        assert_eq!(
            told("data_dir: x\npolices: [x]").split_once(", expected").unwrap().0,
            "keybearer.yaml:2:1: unknown field `polices`"
        );
        assert!(
            told("polices: [x]").ends_with("; did you mean `policies`?\n  |\n1 | polices: [x]\n  | ^"),
            "{}",
            told("polices: [x]")
        );
        for (text, hint) in [
            ("listen: {proxy: localhost:7080}", "an IP address and a port, as in 127.0.0.1:7080"),
            ("egress: {allow_addresses: [127.0.0.1]}", "a network of one address as 10.1.0.7/32"),
            ("policies: policies", "a list, as in [one, two]"),
            ("listen: 7080", "keys and values"),
        ] {
            assert!(told(text).contains(hint), "{}", told(text));
        }
    }
}
