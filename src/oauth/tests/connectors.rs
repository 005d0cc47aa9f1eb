//! The dialects of the shipped connector files, by what their providers answer.

use serde::Deserialize;

use super::*;
use crate::{
    cause::Cause,
    oauth::{AppFault, Reach, Rotates},
};

/// The dialect of a shipped file's first connector.
fn shipped(file: &str) -> Dialect {
    #[derive(Deserialize)]
    struct Document {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        dialect: Dialect,
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/connectors").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let first = text.split("\n---").next().unwrap();
    serde_saphyr::from_str::<Document>(first).unwrap().spec.auth.dialect
}

fn refused(dialect: &Dialect, status: u16, body: &str) -> Failure {
    raw(Grant::Refresh, status, &[], body).read(dialect).unwrap_err()
}

#[test]
fn github() {
    let github = shipped("github.yaml");
    let body = "access_token=ghu_1&expires_in=28800&refresh_token=ghr_2&refresh_token_expires_in=15897600&scope=repo%2Cgist";
    let tokens = raw(Grant::Refresh, 200, &[], body).read(&github).unwrap();
    assert_eq!((&tokens.refresh, life(&tokens)), (&Some(secret("ghr_2")), Some(28_800)));
    assert_eq!(tokens.scopes, Some(scopes(&["repo", "gist"])));
    let code = |code: &str| format!(r#"{{"error":"{code}"}}"#);
    assert_eq!(refused(&github, 200, &code("bad_refresh_token")), Failure::Definitive(Cause::Revoked));
    let app = Failure::App(AppFault::Credentials);
    assert_eq!(refused(&github, 200, &code("incorrect_client_credentials")), app);
    assert!(github.rotation.rotates == Rotates::Always && github.rotation.old_access_dies);
}

#[test]
fn slack() {
    let slack = shipped("slack.yaml");
    let body = r#"{"ok":true,"access_token":"xoxe.xoxb-1","refresh_token":"xoxe-2","expires_in":43200,
        "scope":"chat:write,team:read","team":{"id":"T1"}}"#;
    let tokens = raw(Grant::Refresh, 200, &[], body).read(&slack).unwrap();
    assert_eq!((&tokens.refresh, life(&tokens)), (&Some(secret("xoxe-2")), Some(43_200)));
    assert_eq!(tokens.scopes, Some(scopes(&["chat:write", "team:read"])));
    assert_eq!(tokens.subject.as_deref(), Some("T1"));
    let no = |code: &str| refused(&slack, 200, &format!(r#"{{"ok":false,"error":"{code}"}}"#));
    assert_eq!(no("invalid_refresh_token"), Failure::Definitive(Cause::Revoked));
    assert_eq!(no("account_inactive"), Failure::SubjectGone(Cause::UserDisabled));
    assert_eq!(no("bad_client_secret"), Failure::App(AppFault::Credentials));
    assert_eq!(no("ratelimited"), Failure::Transient { retry_after: None });
    assert_eq!(no("never_heard_of"), Failure::Transient { retry_after: None });
}

#[test]
fn gmail() {
    let gmail = shipped("gmail.yaml");
    let body =
        r#"{"access_token":"ya29","expires_in":3599,"scope":"s1 s2","refresh_token_expires_in":604799}"#;
    let tokens = raw(Grant::Refresh, 200, &[], body).read(&gmail).unwrap();
    assert_eq!((&tokens.refresh, life(&tokens)), (&None, Some(3599)));
    assert!(tokens.refresh_expires.is_some(), "seven days in Testing");
    assert_eq!(gmail.revocation_reach, Reach::Grant);
    let rapt = r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#;
    assert_eq!(refused(&gmail, 400, rapt), Failure::NeedsUser { cause: Cause::Policy, claims: None });
}

#[test]
fn salesforce() {
    let salesforce = shipped("salesforce.yaml");
    let body = r#"{"access_token":"00D","instance_url":"https://na47.my.salesforce.com",
        "id":"https://login.salesforce.com/id/00D/005","scope":"api refresh_token"}"#;
    let tokens = raw(Grant::Refresh, 200, &[], body).read(&salesforce).unwrap();
    assert_eq!(life(&tokens), Some(7200), "no expires_in");
    assert_eq!(tokens.host.unwrap().unwrap().host.to_string(), "na47.my.salesforce.com");
    assert_eq!(tokens.subject.as_deref(), Some("https://login.salesforce.com/id/00D/005"));
    let no = |says: &str| {
        refused(&salesforce, 400, &format!(r#"{{"error":"invalid_grant","error_description":"{says}"}}"#))
    };
    assert_eq!(no("expired access/refresh token"), Failure::Definitive(Cause::Revoked));
    assert_eq!(no("inactive user"), Failure::SubjectGone(Cause::UserDisabled));
    assert_eq!(no("ip restricted"), Failure::App(AppFault::Request));
    assert_eq!(salesforce.offline_scopes, ["refresh_token", "offline_access"]);
}
