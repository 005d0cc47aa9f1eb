//! How a success is read: D1, D4–D8, D15.

use super::*;
use crate::oauth::{HostRefused, Unreadable};

#[test]
fn d1_what_makes_a_success() {
    let is_read = |yaml, body| read(yaml, body).map(|tokens| tokens.access).ok();
    let ok = Some(secret("at-1"));
    assert_eq!(is_read("success: status", r#"{"access_token":"at-1"}"#), ok);
    assert_eq!(is_read("success: ok_true", r#"{"ok":true,"access_token":"at-1"}"#), ok);
    for body in [
        r#"{"ok":false,"access_token":"at-1"}"#,
        r#"{"access_token":"at-1"}"#,
        r#"{"ok":"true","access_token":"at-1"}"#,
    ] {
        assert_eq!(is_read("success: ok_true", body), None, "{body}");
    }
    assert_eq!(is_read("success: no_error_key", r#"{"access_token":"at-1"}"#), ok);
    assert_eq!(is_read("success: no_error_key", r#"{"error":"bad","access_token":"at-1"}"#), None);
}

#[test]
fn d4_json_and_forms_are_told_apart_whatever_the_content_type_says() {
    let form = "access_token=gho_1&scope=repo%2Cgist&token_type=bearer&expires_in=28800";
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/json"] {
        let raw = raw(Grant::Code, 200, &[("content-type", kind)], form);
        let tokens = raw.read(&dialect("response_scope_separator: ','")).unwrap();
        assert_eq!((&tokens.access, life(&tokens)), (&secret("gho_1"), Some(28_800)), "{kind}");
        assert_eq!(tokens.scopes, Some(scopes(&["repo", "gist"])), "{kind}");
    }
    let raw = raw(Grant::Code, 200, &[("content-type", "text/html")], TOKENS);
    assert_eq!(raw.read(&Dialect::default()).unwrap().access, secret("at-1"));
}

#[test]
fn d5_the_token_is_where_the_dialect_says_and_what_belongs_to_it_beside_it() {
    let slack = r#"{"ok":true,"access_token":"xoxb","refresh_token":"rb","expires_in":43200,"scope":"bot",
        "authed_user":{"id":"U1","access_token":"xoxp","refresh_token":"ru","expires_in":100,"scope":"user"}}"#;
    let bot = read("", slack).unwrap();
    assert_eq!((&bot.access, &bot.refresh, life(&bot)), (&secret("xoxb"), &Some(secret("rb")), Some(43_200)));
    let user = read("token_at: authed_user.access_token", slack).unwrap();
    assert_eq!((&user.access, &user.refresh, life(&user)), (&secret("xoxp"), &Some(secret("ru")), Some(100)));
    assert_eq!(user.scopes, Some(scopes(&["user"])));

    let bare = r#"{"refresh_token":"rb","authed_user":{"access_token":"xoxp"}}"#;
    let user = read("token_at: authed_user.access_token", bare).unwrap();
    assert_eq!(user.refresh, None, "the bot's refresh token is another chain's");

    assert_eq!(read("token_at: data.token", r#"{"data":{"token":"t"}}"#).unwrap().access, secret("t"));
    assert_eq!(read("token_at: jwt", r#"{"jwt":"j"}"#).unwrap().access, secret("j"));
    assert_eq!(read("token_at: data.0.token", r#"{"data":[{"token":"t"}]}"#).unwrap().access, secret("t"));
}

#[test]
fn d5_a_refresh_may_have_its_token_elsewhere() {
    let dialect = dialect("token_at: authed_user.access_token, refreshed_token_at: access_token");
    let body = r#"{"access_token":"xoxp-2","refresh_token":"ru-2"}"#;
    assert_eq!(raw(Grant::Refresh, 200, &[], body).read(&dialect).unwrap().access, secret("xoxp-2"));
    let from_code = raw(Grant::Code, 200, &[], body).read(&dialect);
    assert_eq!(from_code, Err(Failure::Unreadable(Unreadable::NoToken)), "a bot's token is no user's");
}

#[test]
fn d6_how_long_a_token_lives() {
    // {"exp":1795266000}: 13:00 of the day.
    let jwt = "eyJhbGciOiJub25lIn0.eyJleHAiOjE3OTUyNjYwMDB9.c2ln";
    let with_jwt = format!(r#"{{"access_token":"{jwt}"}}"#);
    for (yaml, body, seconds) in [
        ("expiry: expires_in", r#"{"access_token":"t","expires_in":7200}"#, Some(7200)),
        ("expiry: expires_in", r#"{"access_token":"t","expires_in":"7200"}"#, Some(7200)),
        ("expiry: expires_in", r#"{"access_token":"t","expires_in":7200.5}"#, Some(7200)),
        ("expiry: expires_in_ms", r#"{"access_token":"t","expires_in":900000}"#, Some(900)),
        ("expiry: expires_in_ms", r#"{"access_token":"t","expires_in":"900000"}"#, Some(900)),
        ("expiry: expires_at", r#"{"access_token":"t","expires_at":1795266000}"#, Some(3600)),
        ("expiry: expires_at", r#"{"access_token":"t","expires_at":"1795266000"}"#, Some(3600)),
        ("expiry: expires_at", r#"{"access_token":"t","expires_at":1795266000000}"#, Some(3600)),
        ("expiry: expires_at", r#"{"access_token":"t","expires_at":"2026-11-21T13:00:00Z"}"#, Some(3600)),
        (
            "expiry: expires_at",
            r#"{"access_token":"t","expires_at":"2026-11-21T14:00:00+01:00"}"#,
            Some(3600),
        ),
        (
            "expiry: expires_at",
            r#"{"access_token":"t","expires_at":"Sat, 21 Nov 2026 13:00:00 GMT"}"#,
            Some(3600),
        ),
        ("expiry: jwt", &with_jwt, Some(3600)),
        ("expiry: none", r#"{"access_token":"t","expires_in":7200}"#, None),
        // Nothing is said: the profile's life, the token's own, and else nobody knows. Never 0 and never for ever.
        ("", r#"{"access_token":"t"}"#, None),
        ("lifetime: 1h", r#"{"access_token":"t"}"#, Some(3600)),
        ("lifetime: 1h", r#"{"access_token":"t","expires_in":60}"#, Some(60)),
        ("", &with_jwt, Some(3600)),
        ("expiry: introspection, lifetime: 2h", r#"{"access_token":"t","expires_in":60}"#, Some(7200)),
        ("expiry: introspection", &with_jwt, None),
        // Out of all bounds, or no number at all.
        ("", r#"{"access_token":"t","expires_in":0}"#, Some(30)),
        ("", r#"{"access_token":"t","expires_in":-5}"#, Some(30)),
        ("", r#"{"access_token":"t","expires_in":1e300}"#, Some(400 * 86_400)),
        ("", r#"{"access_token":"t","expires_in":"soon"}"#, None),
        ("", r#"{"access_token":"t","expires_in":null}"#, None),
        ("expiry: expires_at", r#"{"access_token":"t","expires_at":"2020-01-01T00:00:00Z"}"#, Some(30)),
    ] {
        assert_eq!(life(&read(yaml, body).unwrap()), seconds, "{yaml}: {body}");
    }
}

#[test]
fn d6_a_moment_is_of_the_servers_clock_and_a_life_needs_none() {
    let at = r#"{"access_token":"t","expires_at":"2026-11-21T13:00:00Z"}"#;
    for (date, seconds) in [
        ("Sat, 21 Nov 2026 12:00:20 GMT", 3600), // within 30 s: as good as ours
        ("Sat, 21 Nov 2026 12:10:00 GMT", 3000), // ten minutes ahead of us: ten minutes less
        ("Sat, 21 Nov 2026 11:50:00 GMT", 4200),
    ] {
        let headers = [("date", date)];
        let absolute = raw(Grant::Code, 200, &headers, at).read(&dialect("expiry: expires_at")).unwrap();
        assert_eq!(life(&absolute), Some(seconds), "{date}");
        let relative = raw(Grant::Code, 200, &headers, TOKENS).read(&Dialect::default()).unwrap();
        assert_eq!(life(&relative), Some(3600), "{date}");
    }
    let ahead = raw(Grant::Code, 200, &[("date", "Sat, 21 Nov 2026 12:10:00 GMT")], TOKENS);
    assert_eq!(ahead.skew().unwrap().as_secs(), 600);
}

#[test]
fn d7_how_long_a_refresh_token_lives() {
    let refresh_life = |yaml, field: &str| {
        let body = format!(r#"{{"access_token":"t",{field}}}"#);
        let tokens = read(yaml, &body).unwrap();
        tokens.refresh_expires.map(|end| end.duration_since(now()).as_secs())
    };
    for name in [
        "refresh_token_expires_in",
        "refresh_expires_in",
        "x_refresh_token_expires_in",
        "refresh_token_timeout",
    ] {
        assert_eq!(refresh_life("", &format!(r#""{name}":15897600"#)), Some(15_897_600), "{name}");
        assert_eq!(refresh_life("", &format!(r#""{name}":"86400""#)), Some(86_400), "{name}");
    }
    assert_eq!(refresh_life("refresh_expiry: rt_life", r#""rt_life":60,"refresh_expires_in":7"#), Some(60));
    assert_eq!(refresh_life("", r#""x":1"#), None);
    assert_eq!(refresh_life("", r#""refresh_expires_in":0"#), None, "Keycloak: it does not end");
    for name in ["authorization_expires_in", "x_refresh_token_hard_expires_in"] {
        let tokens = read("", &format!(r#"{{"access_token":"t","{name}":157680000}}"#)).unwrap();
        assert_eq!(tokens.deadline.unwrap().duration_since(now()).as_secs(), 157_680_000, "{name}");
    }
}

#[test]
fn d8_scopes_are_split_as_the_answer_writes_them() {
    for (yaml, field, expected) in [
        ("", r#""scope":"a b""#, Some(vec!["a", "b"])),
        ("scope_separator: ','", r#""scope":"a,b""#, Some(vec!["a", "b"])),
        ("response_scope_separator: ','", r#""scope":"a, b,""#, Some(vec!["a", "b"])),
        ("scope_at: scopes", r#""scopes":["crm.read","oauth"]"#, Some(vec!["crm.read", "oauth"])),
        ("", r#""scope":"""#, Some(vec![])),
        ("", r#""x":1"#, None), // as asked for (RFC 6749 §5.1)
        ("", r#""scope":null"#, None),
    ] {
        let tokens = read(yaml, &format!(r#"{{"access_token":"t",{field}}}"#)).unwrap();
        assert_eq!(tokens.scopes, expected.map(|list| scopes(&list)), "{yaml}: {field}");
    }
}

#[test]
fn d15_a_host_from_an_answer_is_taken_if_it_is_allowed_and_the_tokens_are_not_lost_if_it_is_not() {
    let yaml = "host_from: instance_url, host_must_match: ['*.crm.test', '{x}.dev.test:8443']";
    let found = |url: &str| {
        let tokens = read(yaml, &format!(r#"{{"access_token":"t","instance_url":"{url}"}}"#)).unwrap();
        assert_eq!(tokens.access, secret("t"));
        tokens.host.map(|host| host.map(|target| format!("{target:?}")))
    };
    assert_eq!(found("https://na47.crm.test"), Ok(Some("na47.crm.test:443".to_owned())));
    assert_eq!(found("https://NA47.crm.test./services?x#y"), Ok(Some("na47.crm.test:443".to_owned())));
    assert_eq!(found("na47.crm.test"), Ok(Some("na47.crm.test:443".to_owned())));
    assert_eq!(found("https://a.b.dev.test:8443"), Ok(Some("a.b.dev.test:8443".to_owned())));
    for evil in [
        "https://evil.test",
        "https://crm.test.evil.test",
        "https://evilcrm.test",
        "https://na47.crm.test:8080",
        "https://na47.crm.test@evil.test",
        "https://evil.test\\\\.crm.test",
        "https://169.254.169.254",
        "https://[::1]",
        "https://",
    ] {
        assert_eq!(found(evil), Err(HostRefused), "{evil}");
    }
    assert_eq!(read(yaml, r#"{"access_token":"t"}"#).unwrap().host, Ok(None));
    assert_eq!(
        read("", r#"{"access_token":"t","instance_url":"https://evil.test"}"#).unwrap().host,
        Ok(None)
    );
}

#[test]
fn whose_account_it_is_stands_in_a_field_or_in_a_claim() {
    // {"sub":"248289761001","nonce":"n-0S6","ext":{"oid":7}}
    let id =
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIyNDgyODk3NjEwMDEiLCJub25jZSI6Im4tMFM2IiwiZXh0Ijp7Im9pZCI6N319.c2ln";
    let body = format!(r#"{{"access_token":"t","id_token":"{id}","user_id":7,"team":{{"id":"T1"}}}}"#);
    let subject = |at: &str| read(&format!("subject_from: {at}"), &body).unwrap().subject;
    assert_eq!(subject("user_id").as_deref(), Some("7"));
    assert_eq!(subject("team.id").as_deref(), Some("T1"));
    assert_eq!(subject("id_token.sub").as_deref(), Some("248289761001"));
    assert_eq!(subject("id_token.ext.oid").as_deref(), Some("7"));
    assert_eq!(subject("nobody"), None);
    assert_eq!(subject("team"), None);
    assert_eq!(read("", &body).unwrap().subject, None);
    assert_eq!(read("", &body).unwrap().nonce.as_deref(), Some("n-0S6"));
}

#[test]
fn an_answer_is_read_after_it_was_put_away_as_it_was_before() {
    let first = raw(Grant::Refresh, 200, &[("date", "Sat, 21 Nov 2026 12:10:00 GMT")], TOKENS);
    let again = RawAnswer::from_secret(&first.to_secret()).unwrap();
    assert_eq!(again.read(&Dialect::default()), first.read(&Dialect::default()));
    assert_eq!(again.skew(), first.skew());
    assert!(again.may_hold_tokens());
    let slowed = raw(Grant::Refresh, 429, &[("retry-after", "7")], "\n{\n");
    let again = RawAnswer::from_secret(&slowed.to_secret()).unwrap();
    let wait = Failure::Transient { retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(again.read(&Dialect::default()), Err(wait));
    assert!(!again.may_hold_tokens());
    assert_eq!(format!("{first:?}"), "RawAnswer { status: 200, .. }");
    assert!(RawAnswer::from_secret(&secret("{}")).is_none() && RawAnswer::from_secret(&secret("")).is_none());
}

#[test]
fn a_success_that_cannot_be_read_says_what_is_wrong_with_it_and_shows_nothing() {
    for (body, why) in [
        ("", Unreadable::Syntax),
        ("<html>s3cret</html>", Unreadable::Syntax),
        (r#"{"access_token":"s3cret"#, Unreadable::Syntax),
        ("s3cret", Unreadable::Syntax),
        (r#"{"token":"s3cret"}"#, Unreadable::NoToken),
        (r#"{"access_token":""}"#, Unreadable::NoToken),
        (r#"{"access_token":{"s3cret":1}}"#, Unreadable::NoToken),
        (r#"["s3cret"]"#, Unreadable::NoToken),
    ] {
        let failure = read("", body).unwrap_err();
        assert_eq!(failure, Failure::Unreadable(why), "{body}");
        assert!(!format!("{failure:?} {failure}").contains("s3cret"), "{failure}");
    }
    let bottomless = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read("", &bottomless), Err(Failure::Unreadable(Unreadable::Syntax)));
}
