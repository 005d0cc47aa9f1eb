//! The guide in README.md, run as it stands: only its provider is a stand-in, and its ports are free ones.

use std::{net::TcpListener, path::Path, process::Command};

use keybearer::{clients, config::Config};

use crate::support::provider::{Credentials, Provider, Setup, TestAuthority};

const README: &str = include_str!("../../README.md");
const HOST: &str = "httpbin.org";

/// The shell blocks of the guide as one script.
fn script() -> String {
    let guide =
        README.split("<!-- guide:begin").nth(1).and_then(|rest| rest.split("<!-- guide:end -->").next());
    let blocks = guide.expect("README.md has a guide").split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_leads_from_nothing_to_a_connector() {
    let home = tempfile::tempdir().unwrap();
    let authority = TestAuthority::new();
    // As httpbin.org does, it takes the token that the guide makes up.
    let token = "a-made-up-token-1700000000";
    let credentials: Credentials = [(token.to_owned(), "acme".to_owned())].into_iter().collect();
    let setup = Setup { names: vec![HOST.to_owned()], credentials, ..Setup::default() };
    let provider = Provider::start(&authority, setup).await;
    let roots = home.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let (proxy, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let script = script().replace("127.0.0.1:7080", &proxy).replace("$(date +%s)", "1700000000");
    let program = Path::new(env!("CARGO_BIN_EXE_keybearer")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var_os("PATH").unwrap().display());
    let output = Command::new("sh")
        .args(["-euc", &format!("trap 'kill $! 2>/dev/null || true' EXIT\n{script}")])
        .current_dir(home.path())
        .env("PATH", path)
        .env("HOME", home.path())
        .env("KEYBEARER_LISTEN__PROXY", &proxy)
        .env("KEYBEARER_LISTEN__ADMIN", &admin)
        .env("KEYBEARER_EGRESS__RESOLVE", format!("{{{HOST}: \"{}\"}}", provider.address()))
        .env("KEYBEARER_EGRESS__ALLOW_ADDRESSES", "[127.0.0.0/8]")
        .env("KEYBEARER_EGRESS__ROOTS", format!("{{file: {}}}", roots.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let all = format!("{said}\n--- standard error ---\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    assert_eq!(said.matches("\"tenant\":\"acme\"").count(), 2, "{all}");
    for told in ["Bearer ****", "\"error\": \"insufficient_scope\"", "acme/httpbin/tenant", "\n200\n"] {
        assert!(said.contains(told), "{told:?} is not in\n{all}");
    }
    assert!(!all.contains(token), "{all}");
    let requests = provider.requests();
    assert_eq!(requests.len(), 3, "the refused one did not arrive");
}

/// The block of docs/configuration.md that shows every key.
fn reference() -> &'static str {
    let text = include_str!("../../docs/configuration.md");
    text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

#[test]
fn the_configuration_reference_shows_every_key_with_its_default() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("keybearer.yaml");
    let loaded = |text: &str| {
        std::fs::write(&file, text).unwrap();
        format!("{:#?}", Config::load(Some(&file)).unwrap())
    };
    let (shown, defaults) = (loaded(reference()), loaded(""));
    assert_eq!(shown, defaults);
    // A key that the block does not have at all would not differ, so each is looked for by name.
    let keys = defaults.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key.trim());
    let named = |key: &&str| {
        key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && *key != "secret_variables"
    };
    for key in keys.filter(named) {
        assert!(reference().contains(&format!("{key}:")), "docs/configuration.md does not show {key}");
    }
}

#[test]
fn every_refusal_is_in_the_documentation() {
    let (code, docs) = (include_str!("../../src/proxy/refusal.rs"), include_str!("../../docs/errors.md"));
    let rows = code.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => (\""));
    let codes: Vec<&str> = rows.filter_map(|(_, rest)| rest.split('"').next()).collect();
    assert!(codes.len() > 20, "{codes:?}");
    for code in codes {
        assert!(docs.contains(&format!("`{code}`")), "docs/errors.md does not tell of {code}");
    }
}

#[test]
fn every_metric_is_in_the_documentation() {
    let docs = include_str!("../../docs/metrics.md");
    let sources = [
        include_str!("../../src/proxy/metrics.rs"),
        include_str!("../../src/audit/mod.rs"),
        include_str!("../../src/vault/metrics.rs"),
        include_str!("../../src/ruleset/metrics.rs"),
        include_str!("../../src/tls/leaves.rs"),
        include_str!("../../src/admission/server.rs"),
        include_str!("../../src/admission/certificate/mod.rs"),
        include_str!("../../src/broker/metrics.rs"),
        include_str!("../../src/credential/remote/metrics.rs"),
        include_str!("../../src/credential/refresh/metrics.rs"),
    ];
    let names: Vec<&str> = sources
        .iter()
        .flat_map(|source| source.split('"').filter(|text| text.starts_with("keybearer_")))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let name = name.split('{').next().unwrap();
        assert!(docs.contains(&format!("`{name}`")), "docs/metrics.md does not tell of {name}");
    }
}

#[test]
fn every_variable_is_in_the_documentation() {
    let docs = include_str!("../../docs/clients.md");
    for name in clients::SET.iter().map(|variable| variable.name).chain(clients::REMOVED.iter().copied()) {
        assert!(docs.contains(&format!("`{name}`")), "docs/clients.md does not tell of {name}");
    }
}
