//! What a refusal means: D2, D3, and the table of `docs/refresh.md`.

use super::*;
use crate::{cause::Cause, oauth::AppFault};

const WAIT: Duration = Duration::from_secs(7);

fn refused(yaml: &str, status: u16, body: &str) -> Failure {
    raw(Grant::Refresh, status, &[("retry-after", "7")], body).read(&dialect(yaml)).unwrap_err()
}

fn definitive() -> Failure {
    Failure::Definitive(Cause::Revoked)
}

fn transient() -> Failure {
    Failure::Transient { retry_after: Some(WAIT) }
}

fn needs_user() -> Failure {
    Failure::NeedsUser { cause: Cause::Policy, claims: None }
}

#[test]
fn d2_an_errors_code_is_where_the_dialect_says() {
    for (yaml, body) in [
        ("", r#"{"error":"invalid_grant","error_description":"x"}"#),
        (
            "error_at: status, errors: {BAD_REFRESH_TOKEN: revoked}",
            r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#,
        ),
        (
            "error_at: 0.errorCode, errors: {INVALID_SESSION_ID: revoked}",
            r#"[{"errorCode":"INVALID_SESSION_ID"}]"#,
        ),
        ("error_at: error.code, errors: {'17': revoked}", r#"{"error":{"code":17}}"#),
    ] {
        assert_eq!(refused(yaml, 400, body), definitive(), "{yaml}");
    }
    assert_eq!(
        refused(
            "success: ok_true, errors: {invalid_refresh_token: revoked}",
            200,
            r#"{"ok":false,"error":"invalid_refresh_token"}"#
        ),
        definitive()
    );
    let github = r#"{"error":"bad_refresh_token","error_description":"x"}"#;
    assert_eq!(
        refused("success: no_error_key, errors: {bad_refresh_token: revoked}", 200, github),
        definitive()
    );
    assert_eq!(
        refused("errors: {bad_refresh_token: revoked}", 200, github),
        definitive(),
        "also where D1 is unsaid"
    );
}

#[test]
fn d2_a_code_means_what_its_description_says() {
    let yaml = "errors: {'invalid_grant: inactive user': user_disabled, invalid_grant: expired_idle}";
    let body = |says: &str| format!(r#"{{"error":"invalid_grant","error_description":"{says}"}}"#);
    assert_eq!(refused(yaml, 400, &body("Inactive User")), Failure::SubjectGone(Cause::UserDisabled));
    assert_eq!(refused(yaml, 400, &body("expired")), Failure::Definitive(Cause::ExpiredIdle));
    let yaml = "error_description_at: message, errors: {'invalid_grant: gone': uninstalled}";
    let message = r#"{"error":"invalid_grant","message":"app is gone"}"#;
    assert_eq!(refused(yaml, 400, message), Failure::SubjectGone(Cause::Uninstalled));
}

#[test]
fn d2_every_meaning_that_a_connector_can_give() {
    for (word, failure) in [
        ("revoked", definitive()),
        ("expired_idle", Failure::Definitive(Cause::ExpiredIdle)),
        ("expired_hard", Failure::Definitive(Cause::ExpiredHard)),
        ("wrong_client", Failure::Definitive(Cause::WrongClient)),
        ("needs_user", needs_user()),
        ("user_disabled", Failure::SubjectGone(Cause::UserDisabled)),
        ("uninstalled", Failure::SubjectGone(Cause::Uninstalled)),
        ("app", Failure::App(AppFault::Credentials)),
        ("request", Failure::App(AppFault::Request)),
        ("transient", transient()),
    ] {
        assert_eq!(
            refused(&format!("errors: {{odd: {word}}}"), 400, r#"{"error":"odd"}"#),
            failure,
            "{word}"
        );
    }
}

#[test]
fn d3_a_code_means_the_same_with_any_status() {
    for status in [400, 401, 403, 422] {
        assert_eq!(refused("", status, r#"{"error":"invalid_grant"}"#), definitive(), "{status}");
        let app = Failure::App(AppFault::Credentials);
        assert_eq!(refused("", status, r#"{"error":"invalid_client"}"#), app, "{status}");
    }
}

#[test]
fn the_standards_codes_ask_for_different_reactions() {
    for (code, failure) in [
        ("invalid_grant", definitive()),
        ("invalid_client", Failure::App(AppFault::Credentials)),
        ("access_denied", Failure::App(AppFault::Credentials)),
        ("unauthorized_client", Failure::App(AppFault::Forbidden)),
        ("invalid_request", Failure::App(AppFault::Request)),
        ("invalid_scope", Failure::App(AppFault::Request)),
        ("unsupported_grant_type", Failure::App(AppFault::Request)),
        ("invalid_target", Failure::App(AppFault::Request)),
        ("interaction_required", needs_user()),
        ("login_required", needs_user()),
        ("consent_required", needs_user()),
        ("insufficient_user_authentication", needs_user()),
        ("temporarily_unavailable", transient()),
        ("server_error", transient()),
        ("slow_down", transient()),
        ("never_heard_of", transient()),
    ] {
        assert_eq!(refused("", 400, &format!(r#"{{"error":"{code}"}}"#)), failure, "{code}");
    }
}

#[test]
fn a_step_up_keeps_what_the_sign_in_must_fulfil() {
    let google = r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#;
    assert_eq!(refused("", 400, google), needs_user());
    let entra = r#"{"error":"interaction_required","claims":"{\"access_token\":{\"acrs\":{}}}"}"#;
    let claims = Some(r#"{"access_token":{"acrs":{}}}"#.to_owned());
    assert_eq!(refused("", 400, entra), Failure::NeedsUser { cause: Cause::Policy, claims: claims.clone() });
    let with_grant = r#"{"error":"invalid_grant","claims":"{\"access_token\":{\"acrs\":{}}}"}"#;
    assert_eq!(refused("", 400, with_grant), Failure::NeedsUser { cause: Cause::Policy, claims });
    let endless = format!(r#"{{"error":"interaction_required","claims":"{}"}}"#, "x".repeat(9000));
    assert_eq!(refused("", 400, &endless), needs_user());
}

#[test]
fn without_a_code_the_status_decides() {
    for (status, failure) in [
        (302, Failure::App(AppFault::Redirect)),
        (307, Failure::App(AppFault::Redirect)),
        (400, transient()),
        (401, Failure::App(AppFault::Credentials)),
        (403, transient()),
        (404, Failure::App(AppFault::NoEndpoint)),
        (405, Failure::App(AppFault::NoEndpoint)),
        (408, Failure::Ambiguous),
        (429, transient()),
        (499, Failure::Ambiguous),
        (500, transient()),
        (502, transient()),
        (503, transient()),
        (504, Failure::Ambiguous),
        (524, Failure::Ambiguous),
    ] {
        assert_eq!(refused("", status, "<html>"), failure, "{status}");
    }
}

#[test]
fn an_outage_is_no_end_whatever_its_body_says() {
    for status in [429, 500, 503] {
        assert_eq!(refused("", status, r#"{"error":"invalid_grant"}"#), transient(), "{status}");
    }
    assert_eq!(refused("", 504, r#"{"error":"invalid_grant"}"#), Failure::Ambiguous);
}

#[test]
fn an_installation_that_is_gone_is_told_from_a_wrong_url() {
    for status in [404, 410] {
        let gone =
            raw(Grant::Installation, status, &[], r#"{"message":"Not Found"}"#).read(&Dialect::default());
        assert_eq!(gone, Err(Failure::SubjectGone(Cause::Uninstalled)));
        assert_eq!(refused("", status, ""), Failure::App(AppFault::NoEndpoint));
    }
}

#[test]
fn a_wait_is_read_in_seconds_or_as_a_date_and_is_bounded() {
    let wait = |headers: &[(&'static str, &str)]| match raw(Grant::Refresh, 429, headers, "")
        .read(&Dialect::default())
    {
        Err(Failure::Transient { retry_after }) => retry_after.map(|wait| wait.as_secs()),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&[("retry-after", "120")]), Some(120));
    assert_eq!(wait(&[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")]), Some(30));
    let skewed =
        [("retry-after", "Sat, 21 Nov 2026 13:00:30 GMT"), ("date", "Sat, 21 Nov 2026 13:00:00 GMT")];
    assert_eq!(wait(&skewed), Some(30), "by the server's own clock");
    assert_eq!(wait(&[("retry-after", "Sat, 21 Nov 2026 11:00:00 GMT")]), Some(0));
    assert_eq!(wait(&[("retry-after", "999999999999")]), Some(86_400));
    assert_eq!(wait(&[("retry-after", "later")]), None);
    assert_eq!(wait(&[]), None);
}

#[test]
fn no_failure_repeats_what_the_provider_said() {
    let body = r#"{"error":"s3cret-code","error_description":"s3cret text","refresh_token":"s3cret"}"#;
    for (yaml, status) in
        [("", 400), ("", 500), ("errors: {s3cret-code: revoked}", 400), ("success: ok_true", 200)]
    {
        let failure = refused(yaml, status, body);
        assert!(!format!("{failure:?} {failure}").contains("s3cret"), "{failure:?}");
    }
}
