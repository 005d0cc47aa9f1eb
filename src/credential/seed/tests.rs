//! What may be minted from, and what is said to what may not.

use serde_json::json;

use super::*;
use crate::catalog::Catalog;

fn connector(kind: &str, token_url: &str) -> Arc<Connector> {
    let inject = json!([{"header": "Authorization", "value": "Bearer {token}"}]);
    let inject = if kind == "aws_sigv4" { json!([]) } else { inject };
    let spec =
        json!({"hosts": ["api.crm.test"], "auth": {"type": kind, "token_url": token_url}, "inject": inject});
    let catalog = Catalog::compile(vec![("crm".parse().unwrap(), serde_json::from_value(spec).unwrap())]);
    Arc::clone(catalog.unwrap().connector("crm").unwrap())
}

/// What somebody who adds this is told.
fn told(kind: &str, input: &str, metadata: &[(&str, &str)]) -> Result<(), String> {
    told_of(&connector(kind, "https://login.crm.test/token"), input, metadata)
}

fn told_of(connector: &Connector, input: &str, metadata: &[(&str, &str)]) -> Result<(), String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let metadata = metadata.iter().map(owned).collect();
    let fields = match input {
        "" => BTreeMap::new(),
        input => parse_seed(connector.auth.kind, input.as_bytes()).map_err(|error| error.to_string())?,
    };
    let checked = check_seed(connector, &fields, &metadata).map_err(|error| error.to_string());
    assert!(!format!("{checked:?}").contains("kb-canary"), "{checked:?}");
    checked
}

fn pem() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

#[test]
fn what_can_be_minted_from_is_taken() {
    let robot = json!({"type": "service_account", "client_email": "r@x.test", "private_key": pem(), "project_id": "p"});
    let signs = json!({"client_id": "one", "private_key": pem(), "key_id": "k1"}).to_string();
    let client = r#"{"client_id": "one", "client_secret": "kb-canary-secret"}"#;
    for (kind, input, metadata) in [
        ("client_credentials", client, &[][..]),
        ("client_credentials", &signs, &[]),
        ("client_credentials", "", &[]),
        ("jwt_bearer", &robot.to_string(), &[("subject", "ada@x.test")]),
        ("jwt_bearer", &signs, &[]),
        ("jwt_bearer", "", &[]),
        ("token_exchange", "kb-canary-subject", &[("subject_token_type", "jwt")]),
        ("token_exchange", r#"{"subject_token": "kb-canary-subject"}"#, &[("audience", "api://x")]),
        ("token_exchange", "", &[("subject_token_file", "/run/token")]),
        ("github_app", "", &[("permissions", "issues:read, contents:write"), ("repositories", "app")]),
        (
            "aws_sigv4",
            "",
            &[("role_arn", "arn:aws:iam::1:role/x"), ("web_identity_token_file", "/run/token")],
        ),
    ] {
        assert_eq!(told(kind, input, metadata), Ok(()), "{kind} {metadata:?}");
    }
}

#[test]
fn what_cannot_is_refused_with_what_to_write() {
    let file = "this is no service account's key: write the JSON file";
    for (kind, input, metadata, says) in [
        ("client_credentials", "kb-canary-alone", &[][..], "write a JSON object"),
        ("client_credentials", r#"{"client_id": "one"}"#, &[], "the client's secret or key is missing"),
        ("client_credentials", r#"{"client_secret": "kb-canary-s"}"#, &[], "client_id is missing"),
        (
            "client_credentials",
            r#"{"client_id": "one", "token": "kb-canary-t"}"#,
            &[],
            "there is no field token",
        ),
        (
            "client_credentials",
            r#"{"client_id": "one", "client_secret": "kb-canary-s", "private_key": "kb-canary-k"}"#,
            &[],
            "write one of them",
        ),
        (
            "client_credentials",
            r#"{"client_id": "one", "private_key": "kb-canary-key"}"#,
            &[],
            "private_key does not sign",
        ),
        ("jwt_bearer", r#"{"type": "authorized_user", "client_secret": "kb-canary-s"}"#, &[], file),
        ("jwt_bearer", r#"{"client_email": "a", "private_key": "kb-canary-key"}"#, &[], file),
        (
            "jwt_bearer",
            r#"{"client_id": "one", "client_secret": "kb-canary-s"}"#,
            &[],
            "private_key is missing",
        ),
        ("token_exchange", "", &[], "subject_token is missing"),
        ("token_exchange", "kb-canary-s", &[("subject_token_type", "password")], "is not access_token"),
        ("token_exchange", "", &[("subject_token_file", "token")], "is not an absolute path"),
        ("github_app", "", &[("permissions", "repo")], "permissions=repo is not a list of permissions"),
        ("github_app", r#"{"client_id": "1", "client_secret": "kb-canary-s"}"#, &[], "there is no field"),
        ("aws_sigv4", "", &[("role_arn", "crew")], "is not the ARN of a role"),
        ("aws_sigv4", "", &[("role_arn", "arn:aws:iam::1:role/x")], "add --meta web_identity_token_file="),
        ("aws_sigv4", "", &[], "add --meta role_arn="),
    ] {
        let told = told(kind, input, metadata).err().unwrap_or_default();
        assert!(told.contains(says), "{kind} {input}: {told}");
    }
    let open = connector("github_app", "https://api.crm.test/app/installations/{installation}/access_tokens");
    assert!(told_of(&open, "", &[]).unwrap_err().contains("add --meta installation="));
    assert_eq!(told_of(&open, "", &[("installation", "7")]), Ok(()));
}

#[test]
fn an_installation_is_asked_for_the_most_that_is_needed_of_each_permission() {
    let (connector, fields) = (connector("github_app", "https://api.crm.test/t"), BTreeMap::new());
    let metadata = BTreeMap::from([("repositories".to_owned(), "app, site".to_owned())]);
    let seed = Seed { connector: &connector, fields: &fields, metadata: &metadata };
    let asked = |scopes: &[&str]| {
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let narrowed = seed.narrowed(&scopes).unwrap();
        assert_eq!(narrowed.repositories, ["app", "site"]);
        narrowed.permissions.iter().map(|(name, level)| format!("{name}:{level}")).collect::<Vec<_>>()
    };
    assert_eq!(asked(&["issues:write", "issues:read", "contents:read"]), ["contents:read", "issues:write"]);
    assert_eq!(asked(&[]), ["metadata:read"]);
}

#[test]
fn a_session_is_named_in_letters_that_aws_takes() {
    let name = session(&"acme/s3/user:ada@x.test/writer".parse().unwrap());
    assert_eq!(name, "keybearer-acme-s3-user-ada@x.test-writer");
    let long = format!("{}/s3/tenant", "a".repeat(60)).parse().unwrap();
    assert_eq!(session(&long).len(), SESSION);
}
