//! Both ways over the wire.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::{
    catalog::{AuthType, Catalog, Connector, ConnectorSpec, MissingField},
    cause::Cause,
    credential::{
        Closed, Error, Trouble,
        found::{Bare, Fields, Found, Gives},
    },
    secret::{Secret, to_json},
    vault::{Change, Whole},
};

const SECRET: &str = "kb-canary-wire-0123456789";

fn key() -> AccountKey {
    "acme/crm/user:alice/writer".parse().unwrap()
}

fn question(ask: Ask) -> Question {
    let subject = Subject {
        tenant: "acme".parse().unwrap(),
        role: "writer".parse().unwrap(),
        user: Some("alice".parse().unwrap()),
    };
    Question { account: key(), subject, ask, refused: None }
}

fn account() -> Bare {
    Bare {
        key: key(),
        generation: 7,
        scopes: Some(["deals:read".parse().unwrap()].into()),
        metadata: [("instance".to_owned(), "na47".to_owned())].into(),
        authorization: Some("consent-1".to_owned()),
    }
}

fn now() -> Timestamp {
    "2026-11-21T18:00:00Z".parse().unwrap()
}

fn live() -> Found {
    let fields = Fields {
        secrets: Some([("token".to_owned(), Secret::new(SECRET.into()))].into()),
        obtained: Some("2026-11-21T17:59:00.123456789Z".parse().unwrap()),
        until: Some(Instant::now() + Duration::from_hours(1)),
        due: Some(Instant::now() + Duration::from_mins(45)),
        ..Fields::default()
    };
    Found { account: account(), gives: Gives::Fields(fields) }
}

/// What the other side reads of it.
fn sent(found: Found) -> (Value, Found) {
    let text = to_json(&Answer::of(found, now())).unwrap();
    let answer: Answer = serde_json::from_slice(&text).unwrap();
    (serde_json::from_slice(&text).unwrap(), answer.found(Instant::now()).unwrap())
}

#[test]
fn a_question_is_written_as_people_would() {
    let mut asked = question(Ask::Challenged);
    asked.refused = Some(Refused { generation: Some(7), obtained: Some(now()) });
    let expected = json!({
        "account": "acme/crm/user:alice/writer",
        "subject": {"tenant": "acme", "role": "writer", "user": "alice"},
        "ask": "challenged",
        "refused": {"generation": 7, "obtained": "2026-11-21T18:00:00Z"},
    });
    assert_eq!(serde_json::to_value(&asked).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Question>(expected).unwrap(), asked);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_lives_arrives_as_it_was_sent() {
    let (text, found) = sent(live());
    assert_eq!((&text["standing"], &text["until"]), (&json!("live"), &json!("2026-11-21T19:00:00Z")));
    let Gives::Fields(fields) = found.gives else { panic!("it gives nothing") };
    let Gives::Fields(before) = live().gives else { panic!("it gave nothing") };
    assert_eq!(fields.secrets, before.secrets);
    assert_eq!((fields.obtained, fields.until, fields.due), (before.obtained, before.until, before.due));
    let Bare { key, generation, scopes, metadata, authorization } = found.account;
    let before = account();
    assert_eq!((key, generation, scopes), (before.key, before.generation, before.scopes));
    assert_eq!((metadata, authorization), (before.metadata, before.authorization));
}

/// What the broker's clock says is held against the broker's clock, from when it was asked.
#[tokio::test(start_paused = true)]
async fn an_end_does_not_move_with_the_clock_of_who_reads_it_nor_with_the_time_on_the_way() {
    let asked = Instant::now();
    tokio::time::advance(Duration::from_secs(2)).await;
    let answer = Answer::of(live(), "1999-01-01T00:00:00Z".parse().unwrap());
    tokio::time::advance(Duration::from_secs(3)).await;
    let Gives::Fields(fields) = answer.found(asked).unwrap().gives else { panic!("it gives nothing") };
    assert_eq!(fields.until, Some(asked + Duration::from_hours(1)));
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_is_sent_no_secret() {
    let (text, found) = sent(live().unseen());
    assert_eq!((&text["standing"], text.get("fields")), (&json!("live"), None));
    assert!(matches!(found.gives, Gives::Fields(Fields { secrets: None, obtained: Some(_), .. })));
}

#[tokio::test(start_paused = true)]
async fn whatever_closes_an_account_and_whatever_is_in_its_way_arrives() {
    for closed in [Closed::NeedsUser, Closed::Reauthorize, Closed::SubjectGone, Closed::Refused] {
        let closed = closed(Cause::UserDisabled);
        let until = Some(Instant::now() + Duration::from_mins(15));
        let (_, found) = sent(Found { account: account(), gives: Gives::Closed(closed, until) });
        assert!(matches!(found.gives, Gives::Closed(read, at) if read == closed && at == until));
    }
    let retry_after = Duration::from_millis(1500);
    for trouble in [
        Trouble::Unreachable { retry_after },
        Trouble::AppPaused { retry_after },
        Trouble::NoApp,
        Trouble::Unreadable,
        Trouble::Seed,
        Trouble::Slow,
        Trouble::Busy,
        Trouble::Vault,
        Trouble::Interrupted,
    ] {
        let (_, found) = sent(Found { account: account(), gives: Gives::Over(Some(trouble)) });
        assert!(matches!(found.gives, Gives::Over(Some(read)) if read == trouble), "{trouble:?}");
    }
}

#[test]
fn an_answer_that_contradicts_itself_is_none() {
    let closed_by_nothing = json!({
        "account": "acme/crm/tenant", "generation": 1, "standing": "closed", "now": "2026-11-21T18:00:00Z",
    });
    let answer: Answer = serde_json::from_value(closed_by_nothing).unwrap();
    assert!(answer.found(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_version_adds_is_passed_over() {
    let (mut text, _) = sent(Found { account: account(), gives: Gives::Over(Some(Trouble::NoApp)) });
    text["weather"] = json!({"sunny": true});
    text["trouble"] = json!({"why": "mercury_in_retrograde", "for": "long"});
    let read: Answer = serde_json::from_value(text).unwrap();
    assert!(matches!(read.found(Instant::now()).unwrap().gives, Gives::Over(Some(Trouble::Busy))));
    let problem: Problem = serde_json::from_value(json!({"error": "on_strike"})).unwrap();
    assert_eq!(problem.error, Code::VaultUnavailable);
}

#[test]
fn debug_of_an_answer_shows_no_secret() {
    let shown = format!("{:?}", Answer::of(live(), now()));
    assert!(shown.contains("token") && !shown.contains(SECRET), "{shown}");
}

fn connector(auth: &Value) -> Arc<Connector> {
    let spec = json!({
        "hosts": ["api.crm.test"],
        "auth": auth,
        "inject": [{"header": "Authorization", "value": "Bearer {token}"}],
        "operations": [{"name": "deal.list", "request": "GET /deals"}],
    });
    let spec: ConnectorSpec = serde_json::from_value(spec).unwrap();
    let catalog = Catalog::compile(vec![("crm".parse().unwrap(), spec)]).unwrap();
    Arc::clone(catalog.connector("crm").unwrap())
}

fn minting() -> Arc<Connector> {
    connector(&json!({"type": "client_credentials", "token_url": "https://login.crm.test/token"}))
}

#[test]
fn a_refusal_is_told_by_the_sidecar_as_the_broker_found_it() {
    let question = question(Ask::Give);
    let missing = MissingField("app_key".to_owned());
    let errors = [
        Error::Missing(key()),
        Error::Frozen { by: "an admin".to_owned() },
        Error::Revoked(key()),
        Error::NotAllowed(question.subject.clone()),
        Error::Field(missing),
        Error::Unwritable(http::header::AUTHORIZATION),
        Error::Unminted(AuthType::ClientCredentials),
    ];
    for error in errors {
        let problem = Problem::of(&error);
        assert_eq!(problem.status, problem.error.status());
        let text = to_json(&problem).unwrap();
        let read: Problem = serde_json::from_slice(&text).unwrap();
        let told = read.error(&question, &minting(), "https://broker.test");
        assert_eq!(format!("{told:?}"), format!("{error:?}"));
    }
}

#[test]
fn what_is_the_matter_with_the_broker_is_no_account_s_matter() {
    for code in [
        Code::BadRequest,
        Code::WorkloadInvalid,
        Code::PolicyUnavailable,
        Code::AuditUnavailable,
        Code::Overloaded,
        Code::VaultUnavailable,
    ] {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        let problem = Problem::new(code, "so it is");
        let told = problem.error(&question(Ask::Give), &minting(), "https://broker.test");
        let shown = format!("the broker https://broker.test answers {}: so it is", code.as_str());
        assert_eq!(told.to_string(), shown);
    }
}

#[test]
fn lines_are_read_as_they_are_written() {
    let whole = |user: Option<&str>| match user {
        Some(user) => Whole::of_user(&"acme".parse().unwrap(), &user.parse().unwrap()),
        None => Whole::of_tenant("acme".parse().unwrap()),
    };
    for (line, text) in [
        (
            Line::Begin(Begin { policy_revision: Some("r1".to_owned()) }),
            json!({"begin": {"policy_revision": "r1"}}),
        ),
        (Line::of(&Change::Account(key())), json!({"account": "acme/crm/user:alice/writer"})),
        (Line::of(&Change::Whole(whole(None))), json!({"whole": {"tenant": "acme"}})),
        (
            Line::of(&Change::Whole(whole(Some("alice")))),
            json!({"whole": {"tenant": "acme", "user": "alice"}}),
        ),
        (Line::of(&Change::Unknown), json!({"unknown": true})),
        (Line::PolicyRevision("r2".to_owned()), json!({"policy_revision": "r2"})),
        (Line::Heard(true), json!({"heard": true})),
    ] {
        assert_eq!(serde_json::to_value(&line).unwrap(), text);
        assert_eq!(Line::read(text.to_string().as_bytes()), line);
    }
}

#[test]
fn a_line_that_says_nothing_known_says_that_anything_may_have_changed() {
    for text in [r#"{"account": "nobody's"}"#, r#"{"tide": "high"}"#, "{}", "", "no JSON", "[1]"] {
        assert_eq!(Line::read(text.as_bytes()), Line::Unknown(true), "{text}");
    }
    assert_eq!(
        Line::read(br#"{"heard": true, "load": 0.2}"#),
        Line::Heard(true),
        "more is said of what is known"
    );
}

/// Broken JSON may be quoted where it is reported; what an account gives is not.
#[test]
fn what_cannot_be_read_is_not_quoted() {
    let fields: BTreeMap<&str, &str> = [("token", SECRET)].into();
    let text = json!({"account": "acme/crm/tenant", "generation": 1, "standing": "live", "fields": fields});
    let error = serde_json::from_slice::<Answer>(text.to_string().as_bytes()).unwrap_err().to_string();
    assert!(!error.contains(SECRET), "{error}");
}
