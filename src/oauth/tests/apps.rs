//! The configuration of apps, and what a dialect may not say.

use super::*;
use crate::{
    document::Place,
    id::{ConnectorName, TenantId},
    oauth::{AppConfig, Apps, Config, ConfigError, SecretSource},
};

fn config(yaml: &str) -> Config {
    serde_saphyr::from_str(yaml).unwrap()
}

fn loaded(yaml: &str) -> Result<Apps, ConfigError> {
    let mut config = config(yaml);
    // As `config` does for variables that are set.
    for source in config.apps.values_mut().flat_map(AppConfig::secrets_mut) {
        if *source == SecretSource::Env("SET".to_owned()) {
            *source = SecretSource::Value(secret("from-env"));
        }
    }
    Apps::load(&config)
}

fn of(apps: &Apps, connector: &str, tenant: &str) -> Option<String> {
    let app = apps.of(&ConnectorName::new(connector).unwrap(), &TenantId::new(tenant).unwrap());
    app.map(|app| app.client_id.clone())
}

#[test]
fn a_tenants_own_app_wins_over_the_connectors() {
    let apps = loaded(
        "redirect_url: https://kb.example/connect/callback\napps:\n  \
         salesforce: {client_id: ours, client_secret: {env: SET}}\n  \
         salesforce/acme: {client_id: theirs, client_secret: {env: SET}}\n  crm/acme: {client_id: only}\n",
    )
    .unwrap();
    assert_eq!(of(&apps, "salesforce", "acme").as_deref(), Some("theirs"));
    assert_eq!(of(&apps, "salesforce", "globex").as_deref(), Some("ours"));
    assert_eq!(of(&apps, "crm", "acme").as_deref(), Some("only"));
    assert_eq!(of(&apps, "crm", "globex"), None);
    assert_eq!(apps.redirect_url(), Some("https://kb.example/connect/callback"));
    let app = apps.of(&ConnectorName::new("crm").unwrap(), &TenantId::new("acme").unwrap()).unwrap();
    assert_eq!(app.redirect_url.as_deref(), apps.redirect_url());
}

#[test]
fn secrets_come_from_files_and_variables_and_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (line, pem) = (dir.path().join("secret"), dir.path().join("key.pem"));
    std::fs::write(&line, "from-file\n").unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test writes the key into a file")]
    std::fs::write(&pem, rsa_key().expose()).unwrap();
    let apps = loaded(&format!(
        "apps:\n  a: {{client_id: i, client_secret: {{file: {}}}}}\n  b: {{client_id: i, client_secret: {{env: SET}}}}\n  \
         c: {{client_id: i, private_key: {{file: {}}}, key_id: k1}}\n  d: {{client_id: i}}\n",
        line.display(),
        pem.display()
    ))
    .unwrap();
    let auth = |name: &str| {
        let app = apps.of(&ConnectorName::new(name).unwrap(), &TenantId::new("t").unwrap()).unwrap();
        format!(
            "{:?} {:?}",
            app.auth,
            matches!(&app.auth, ClientAuth::Secret(s) if *s == secret("from-file"))
        )
    };
    assert_eq!(auth("a"), "Secret(Secret(…)) true");
    assert_eq!(auth("b"), "Secret(Secret(…)) false");
    assert!(
        auth("c").starts_with(r#"PrivateKey(SigningKey { algorithm: RS256, key_id: Some("k1")"#),
        "{}",
        auth("c")
    );
    assert_eq!(auth("d"), "None false");
    assert!(
        !format!("{:?}", config("apps: {b: {client_id: i, client_secret: {env: SET}}}")).contains("from-env")
    );
}

#[test]
fn what_cannot_be_used_says_what_to_write_instead() {
    let dir = tempfile::tempdir().unwrap();
    let two_lines = dir.path().join("two");
    std::fs::write(&two_lines, "a\nb\n").unwrap();
    let two_lines = two_lines.display();
    for (yaml, says) in [
        ("apps: {a/b/c: {client_id: i}}".to_owned(), "neither `connector` nor `connector/tenant`"),
        ("apps: {'a b': {client_id: i}}".to_owned(), "neither `connector` nor `connector/tenant`"),
        ("apps: {a: {client_id: ' '}}".to_owned(), "client_id is empty"),
        (
            "apps: {a: {client_id: i, client_secret: {env: X}, private_key: {env: Y}}}".to_owned(),
            "leave one of them out",
        ),
        ("apps: {a: {client_id: i, client_secret: {env: KB_X}}}".to_owned(), "KB_X is not set"),
        ("apps: {a: {client_id: i, client_secret: {file: /nowhere/x}}}".to_owned(), "cannot read /nowhere/x"),
        (
            format!("apps: {{a: {{client_id: i, client_secret: {{file: {two_lines}}}}}}}"),
            "has a line break in it",
        ),
        ("apps: {a: {client_id: i, private_key: {env: SET}}}".to_owned(), "no RSA, P-256 or Ed25519 key"),
        ("redirect_url: http://kb.example/cb".to_owned(), "oauth.redirect_url"),
        ("redirect_url: /cb".to_owned(), "oauth.redirect_url"),
        ("redirect_url: 'https://kb.example/cb#x'".to_owned(), "oauth.redirect_url"),
    ] {
        let error = loaded(&yaml).unwrap_err().to_string();
        assert!(error.contains(says), "{yaml}: {error}");
    }
    assert!(loaded("redirect_url: http://127.0.0.1:7090/connect/callback").is_ok());
}

#[test]
fn keys_of_three_kinds_sign() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        assert!(SigningKey::from_pem(&secret(&pem), None).is_some(), "{algorithm:?}");
    }
    assert!(SigningKey::from_pem(&rsa_key(), None).is_some());
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    assert!(SigningKey::from_pem(&secret(&p384), None).is_none());
    assert!(SigningKey::from_pem(&secret("no key"), None).is_none());
}

#[test]
fn what_does_not_go_together_in_a_dialect_is_a_problem() {
    for (yaml, says) in [
        ("expiry: introspection", "expiry: say where to ask: introspect_url"),
        ("expiry: none, lifetime: 1h", "lifetime: tokens that never expire"),
        ("lifetime: 1s", "lifetime: a token lives from 30 s"),
        ("host_from: instance_url", "host_must_match: a host from an answer gets the credential"),
        ("host_must_match: ['*.crm.test']", "host_from: say where the host is found"),
        ("subject_scopes: [openid]", "subject_from: say where the subject is found"),
        ("rotation: {grace: 10m}", "rotation: a refresh token that does not rotate has no grace"),
        ("revocation_header: X-Token", "revocation_header: only delete_bearer"),
        ("scope_separator: ''", "scope_separator: write what stands between"),
        ("refresh_url: 'http://idp.test/refresh'", "refresh_url: begin the URL with https://"),
        ("introspect_url: 'http://idp.test/x'", "introspect_url: begin the URL with https://"),
    ] {
        let mut problems = Vec::new();
        dialect(yaml).check(false, &Place::spec(0), &mut problems);
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].starts_with(&format!("spec.{says}")), "{yaml}: {said:?}");
    }
    let mut problems = Vec::new();
    dialect("refresh_url: 'http://idp.test/refresh'").check(true, &Place::spec(0), &mut problems);
    assert_eq!(problems, []);
}

#[test]
fn a_dialect_that_cannot_be_read_is_an_error_with_its_place() {
    for (yaml, says) in [
        ("{sucess: ok_true}", "sucess"),
        ("{success: maybe}", "maybe"),
        ("{token_at: a..b}", "no way to a field"),
        ("{refresh_url: idp.test/token}", "begin the URL with https://"),
        ("{refresh_url: 'ftp://idp.test/token'}", "begin the URL with https://"),
        ("{refresh_url: 'https://{x}.com/token'}", "at least two labels"),
        ("{refresh_url: 'https://*.idp.test/token'}", "has no `*`"),
        ("{refresh_url: 'https://u:p@idp.test/token'}", "user name"),
        ("{refresh_extra: {x: '{open'}}", "a brace is left open"),
        ("{refresh_extra: {x: '{Upper}'}}", "no placeholder"),
        ("{host_must_match: ['*.com']}", "at least two labels"),
        ("{revocation_header: 'a b'}", "no header name"),
        ("{idle_ttl: soon}", "no duration"),
        ("{rotation: {rotates: sometimes}}", "sometimes"),
        ("{errors: {x: dead}}", "dead"),
    ] {
        let error = serde_saphyr::from_str::<Dialect>(yaml).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("line 1"), "{yaml}: {error}");
    }
}
