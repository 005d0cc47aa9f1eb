//! Security events: signed by their transmitter, for us, now, once.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{ALICE, BOB, Scene, Told, ends};
use crate::support::signer::Signer;

const ISSUER: &str = "https://idp.acme.example";
const AUDIENCE: &str = "https://keybearer.acme.example/ssf/events";
const OWN: &str = "kb-canary-ssf-own-0123456789abcdef012345";

const CONFIG: &str = "  ssf:
    - issuer: https://idp.acme.example
      audience: https://keybearer.acme.example/ssf/events
      jwks: {file: FILES/jwks.json}
      tenants: {T-4711: acme}
      tenant: acme
      users: {alice-at-the-idp: alice@acme.example}
";

const SCIM: &str = "  scim: [{tenant: acme, token: {file: FILES/scim}}]\n";
const SCIM_TOKEN: &str = "kb-canary-scim-beside-0123456789abcdef01";

const EMAIL: &str = include_str!("session-revoked-email.json");
const COMPLEX: &str = include_str!("session-revoked-complex.json");
const CREDENTIAL: &str = include_str!("credential-change.json");
const DISABLED: &str = include_str!("account-disabled.json");
const ENABLED: &str = include_str!("account-enabled.json");
const VERIFICATION: &str = include_str!("verification.json");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of an event, issued now.
fn event(body: &str, jti: &str) -> Value {
    let mut claims: Value = serde_json::from_str(body).unwrap();
    claims["iss"] = json!(ISSUER);
    claims["aud"] = json!(AUDIENCE);
    claims["iat"] = json!(now());
    claims["jti"] = json!(jti);
    claims
}

fn signed(claims: &Value, signer: &Signer) -> String {
    signer.sign(&signer.header("secevent+jwt"), claims)
}

async fn push(scene: &Scene, token: &str) -> Told {
    let head = "content-type: application/secevent+jwt\r\naccept: application/json\r\n";
    scene.call("POST", "/ssf/events", head, token).await
}

async fn taken(scene: &Scene, token: &str) {
    let told = push(scene, token).await;
    assert_eq!((told.status, &told.body), (202, &Value::Null), "{told:?}");
}

async fn refused(scene: &Scene, token: &str, code: &str) {
    let told = push(scene, token).await;
    assert_eq!((told.status, &told.body["err"]), (400, &json!(code)), "{told:?}");
    assert!(told.head.contains("content-language: en"), "{told:?}");
    assert!(!told.body["description"].as_str().unwrap().is_empty());
}

async fn scene(more: &str) -> (Scene, Signer) {
    let signer = Signer::new("k1");
    let jwks = signer.keys().to_string();
    let files = [("jwks.json", jwks.as_str()), ("own", OWN), ("scim", SCIM_TOKEN)];
    (Scene::set(&format!("{CONFIG}{more}"), &files).await, signer)
}

fn by(what: &str) -> (u16, Option<String>) {
    (403, Some(format!("{what} of {ISSUER}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_ends_open_streams_and_the_next_request_is_refused() {
    let (scene, signer) = scene("").await;
    for (body, what) in
        [(EMAIL, "session-revoked"), (CREDENTIAL, "credential-change"), (DISABLED, "account-disabled")]
    {
        let stream = scene.stream(ALICE).await;
        taken(&scene, &signed(&event(body, what), &signer)).await;
        assert_eq!(scene.asked("acme", ALICE).await, by(what));
        ends(stream).await;
        assert_eq!(scene.asked("acme", BOB).await.0, 200);
        assert_eq!(scene.asked("globex", ALICE).await.0, 200);
        taken(&scene, &signed(&event(ENABLED, &format!("after {what}")), &signer)).await;
        assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    }
    let told = scene.told().await;
    let each = ["ssf.event", "user.frozen", "ssf.event", "user.unfrozen"];
    assert_eq!(told, each.repeat(3).iter().map(|event| format!("{event} acme {ALICE}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_is_whom_scim_knows_by_this_identifier() {
    let (scene, signer) = scene(SCIM).await;
    let complex = signed(&event(COMPLEX, "before"), &signer);
    taken(&scene, &complex).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200, "nobody is known by this identifier");
    let head = format!("authorization: Bearer {SCIM_TOKEN}\r\n");
    let okta = include_str!("okta-create.json");
    assert_eq!(scene.call("POST", "/scim/v2/Users", &head, okta).await.status, 201);
    taken(&scene, &signed(&event(COMPLEX, "after"), &signer)).await;
    assert_eq!(scene.asked("acme", ALICE).await, by("session-revoked"));
    let told = scene.told().await;
    assert_eq!(told[0], "ssf.ignored acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_for_us_by_its_transmitter_lately_changes_nothing() {
    let (scene, signer) = scene("").await;
    let with = |member: &str, value: Value| {
        let mut claims = event(EMAIL, "j1");
        claims[member] = value;
        signed(&claims, &signer)
    };
    let good = event(EMAIL, "j1");
    let header = |member: &str, value: &str| {
        let mut header = signer.header("secevent+jwt");
        header[member] = json!(value);
        signer.sign(&header, &good)
    };
    let unsigned = signed(&good, &signer).rsplit_once('.').unwrap().0.to_owned() + ".";
    for (token, code) in [
        (signed(&good, &Signer::new("k1")), "authentication_failed"),
        (unsigned, "authentication_failed"),
        (header("kid", "k2"), "invalid_key"),
        (header("typ", "JWT"), "invalid_request"),
        (header("alg", "none"), "invalid_request"),
        (with("iss", json!("https://idp.evil.example")), "invalid_issuer"),
        (with("iss", json!(null)), "invalid_request"),
        (with("aud", json!("https://elsewhere.example")), "invalid_audience"),
        (with("aud", json!(null)), "invalid_audience"),
        (with("iat", json!(now() - 25 * 60 * 60)), "invalid_request"),
        (with("iat", json!(now() + 3600)), "invalid_request"),
        (with("iat", json!(null)), "invalid_request"),
        (with("jti", json!(null)), "invalid_request"),
        (with("events", json!({})), "invalid_request"),
        (with("sub_id", json!({"format": "email"})), "invalid_request"),
        (String::new(), "invalid_request"),
        ("{}".to_owned(), "invalid_request"),
        ("x".repeat(100_000), "invalid_request"),
    ] {
        refused(&scene, &token, code).await;
    }
    let told = scene
        .call("POST", "/ssf/events", "content-type: application/json\r\n", &signed(&good, &signer))
        .await;
    assert_eq!((told.status, &told.body["err"]), (400, &json!("invalid_request")));
    assert_eq!(scene.call("GET", "/ssf/events", "", "").await.status, 405);
    for user in [ALICE, BOB] {
        assert_eq!(scene.asked("acme", user).await.0, 200);
    }
    assert_eq!(scene.told().await, Vec::<String>::new());
    let events = scene.stage.events().await;
    assert!(events.iter().any(|event| event["event"] == "ssf.refused" && event["detail"] == "invalid_key"));
    taken(&scene, &signed(&good, &signer)).await;
    assert_eq!(scene.asked("acme", ALICE).await, by("session-revoked"), "the good one was not used up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_event_is_acknowledged_and_changes_nothing_also_after_a_restart() {
    let (mut scene, signer) = scene("").await;
    let disabled = signed(&event(DISABLED, "j1"), &signer);
    taken(&scene, &disabled).await;
    taken(&scene, &signed(&event(ENABLED, "j2"), &signer)).await;
    taken(&scene, &disabled).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    scene.stage.restart(|_| ()).await;
    taken(&scene, &disabled).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    let told = scene.told().await;
    assert_eq!(told.iter().filter(|event| **event == "ssf.repeated acme").count(), 2, "{told:?}");
    taken(&scene, &signed(&event(DISABLED, "j3"), &signer)).await;
    assert_eq!(scene.asked("acme", ALICE).await, by("account-disabled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_lifts_only_what_the_same_transmitter_froze_before_it() {
    let (scene, signer) = scene("").await;
    let mut late = event(ENABLED, "late");
    late["toe"] = json!(now() - 60);
    taken(&scene, &signed(&event(DISABLED, "j1"), &signer)).await;
    taken(&scene, &signed(&late, &signer)).await;
    assert_eq!(scene.asked("acme", ALICE).await, by("account-disabled"), "it was enabled before, not after");
    let alice = keybearer::vault::Whole::of_user(&"acme".parse().unwrap(), &ALICE.parse().unwrap());
    let (source, since) = (keybearer::vault::Source::Operator, jiff::Timestamp::now());
    let ops = keybearer::vault::Hold { source, by: "ops".to_owned(), since };
    scene.stage.app().vault.hold(&alice, ops).await.unwrap();
    taken(&scene, &signed(&event(ENABLED, "j2"), &signer)).await;
    assert_eq!(scene.asked("acme", ALICE).await, (403, Some("ops".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_nothing_follows_from_are_acknowledged() {
    let (scene, signer) = scene("      freeze_on: [account-disabled]\n").await;
    let stranger = EMAIL.replace("\"email\": \"Alice@acme.example\"", "\"email\": \"\"");
    for (body, jti) in [(VERIFICATION, "j1"), (CREDENTIAL, "j2"), (EMAIL, "j3"), (stranger.as_str(), "j4")] {
        taken(&scene, &signed(&event(body, jti), &signer)).await;
    }
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    assert_eq!(scene.told().await, ["ssf.ignored acme"; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmitter_that_was_given_a_token_has_to_send_it() {
    let (scene, signer) = scene("      token: {file: FILES/own}\n").await;
    let token = signed(&event(EMAIL, "j1"), &signer);
    refused(&scene, &token, "authentication_failed").await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    let head = format!("content-type: application/secevent+jwt\r\nauthorization: Bearer {OWN}\r\n");
    assert_eq!(scene.call("POST", "/ssf/events", &head, &token).await.status, 202);
    assert_eq!(scene.asked("acme", ALICE).await, by("session-revoked"));
}
