//! The URL that asks for consent (D8, D13, D14), and which callbacks are believed.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use oauth2::url::Url;
use sha2::{Digest, Sha256};

use super::*;
use crate::oauth::{Ask, Callback, CallbackError, NotSent, Pending, Pkce};

const REDIRECT: &str = "https://keybearer.test/connect/callback";

fn provider(yaml: &str, url: &str, pkce: Option<Pkce>) -> Provider {
    let authorize_url = Some(url.to_owned().try_into().unwrap());
    Provider { authorize_url, pkce, dialect: dialect(yaml), ..Provider::default() }
}

fn app() -> App {
    App { client_id: "app:1".to_owned(), ..App::anonymous() }
}

fn begun(provider: &Provider, asked: &[&str]) -> (String, Pending) {
    let asked = scopes(asked);
    let ask = Ask { scopes: &asked, claims: None };
    provider.consent(&app(), REDIRECT, ask, &|name| (name == "tenant").then_some("contoso")).unwrap()
}

fn asked(yaml: &str, list: &[&str]) -> (BTreeMap<String, String>, Pending) {
    let (url, pending) = begun(&provider(yaml, "https://idp.test/authorize", Some(Pkce::S256)), list);
    let url = Url::parse(&url).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let query: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(query.len(), pairs.len(), "no parameter twice: {pairs:?}");
    (query, pending)
}

fn state(query: &BTreeMap<String, String>) -> String {
    oauth2::url::form_urlencoded::byte_serialize(query["state"].as_bytes()).collect()
}

fn refused(yaml: &str, callback: impl Fn(&str) -> String) -> Option<CallbackError> {
    let (query, pending) = asked(yaml, &["a"]);
    match Callback::parse(&callback(&state(&query))) {
        Ok(callback) => pending.answered(callback).err(),
        Err(error) => Some(error),
    }
}

#[test]
fn exactly_what_is_asked_for_is_in_the_url() {
    let (query, pending) = asked("", &["a", "b"]);
    let names: Vec<_> = query.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "client_id",
            "code_challenge",
            "code_challenge_method",
            "redirect_uri",
            "response_type",
            "scope",
            "state"
        ]
    );
    assert_eq!((&*query["client_id"], &*query["response_type"]), ("app:1", "code"));
    assert_eq!((&*query["redirect_uri"], &*query["scope"]), (REDIRECT, "a b"));
    assert_eq!(pending.scopes(), ["a", "b"]);
    assert!(query["state"].len() >= 43, "256 bits");
    assert_ne!(query["state"], asked("", &["a", "b"]).0["state"]);
    assert!(!asked("", &[]).0.contains_key("scope"), "a provider without scopes is asked for none");
}

#[tokio::test]
async fn the_verifier_that_is_sent_is_the_challenges() {
    let (query, pending) = asked("", &["a"]);
    assert_eq!(query["code_challenge_method"], "S256");
    let callback = Callback::parse(&format!("code=c-1&state={}", state(&query))).unwrap();
    let consented = pending.answered(callback).unwrap();
    let (server, endpoint) = Stage::new("", &json(TOKENS)).await.endpoint();
    let tokens = consented.exchange(&endpoint).await.unwrap().read(&Dialect::default()).unwrap();
    let form = server.one().await.form();
    assert_eq!((&*form["code"], &*form["redirect_uri"]), ("c-1", REDIRECT));
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    assert_eq!(query["code_challenge"], challenge);
    assert_eq!(
        consented.granted(&tokens),
        Ok(scopes(&["a"])),
        "an answer without scopes has those asked for"
    );
    let fewer = Tokens { scopes: Some(vec![]), ..tokens };
    assert_eq!(consented.granted(&fewer), Ok(vec![]));
}

#[test]
fn pkce_is_left_out_or_plain_only_where_the_connector_says_so() {
    let query = |pkce| {
        let (url, _) = begun(&provider("", "https://idp.test/authorize", pkce), &["a"]);
        Url::parse(&url).unwrap().query_pairs().into_owned().collect::<BTreeMap<_, _>>()
    };
    assert!(!query(None).contains_key("code_challenge"));
    let plain = query(Some(Pkce::Plain));
    assert!(plain["code_challenge_method"] == "plain" && plain["code_challenge"].len() >= 43);
}

#[test]
fn d8_scopes_have_between_them_what_the_provider_wants() {
    assert_eq!(asked("scope_separator: ','", &["a", "b"]).0["scope"], "a,b");
    let (query, _) = asked("scope_parameter: user_scope, scope_separator: ','", &["a", "b"]);
    assert_eq!((query.get("scope"), &*query["user_scope"]), (None, "a,b"));
}

#[test]
fn d13_the_url_carries_what_the_provider_wants_besides() {
    let yaml = "authorize_extra: {access_type: offline, prompt: consent, audience: 'api.{tenant}.test'}";
    let (query, _) = asked(yaml, &["a"]);
    assert_eq!((&*query["access_type"], &*query["prompt"]), ("offline", "consent"));
    assert_eq!(query["audience"], "api.contoso.test");
    assert_eq!(asked("resource: 'https://mcp.test'", &["a"]).0["resource"], "https://mcp.test", "RFC 8707");
}

#[test]
fn d13_parameters_may_stand_in_the_fragment_or_after_others() {
    for (url, begins) in [
        (
            "https://app.idp.test/#/oauth/authorize",
            "https://app.idp.test/#/oauth/authorize?response_type=code&",
        ),
        ("https://idp.test/a?x=1", "https://idp.test/a?x=1&response_type=code&"),
        ("https://idp.test/{tenant}/a", "https://idp.test/contoso/a?response_type=code&"),
    ] {
        let (made, _) = begun(&provider("", url, None), &["a"]);
        assert!(made.starts_with(begins), "{made}");
    }
}

#[test]
fn d14_offline_scopes_are_asked_for_once() {
    let (query, pending) =
        asked("offline_scopes: [refresh_token, offline_access]", &["api", "offline_access"]);
    assert_eq!(query["scope"], "api offline_access refresh_token");
    assert_eq!(pending.scopes(), ["api", "offline_access", "refresh_token"]);
    let (query, _) = asked("subject_from: id_token.sub, subject_scopes: [openid]", &["api"]);
    assert_eq!(query["scope"], "api openid", "without it nobody says whose account it is");
}

#[test]
fn a_step_up_carries_its_claims() {
    let ask = Ask { scopes: &[], claims: Some(r#"{"id_token":{}}"#) };
    let provider = provider("", "https://idp.test/authorize", None);
    let (url, _) = provider.consent(&app(), REDIRECT, ask, &|_| None).unwrap();
    assert!(url.contains("claims=%7B%22id_token%22%3A%7B%7D%7D"), "{url}");
}

#[test]
fn a_provider_without_a_page_asks_nobody() {
    let refused = Provider::default().consent(&app(), REDIRECT, Ask::default(), &|_| None).err();
    assert_eq!(refused, Some(NotSent::NoUrl("authorize_url")));
}

#[test]
fn a_callback_must_name_the_state_that_was_sent() {
    assert_eq!(refused("", |state| format!("code=c&state={state}")), None);
    assert_eq!(refused("", |_| "code=c".to_owned()), Some(CallbackError::State));
    assert_eq!(refused("", |_| "code=c&state=".to_owned()), Some(CallbackError::State));
    assert_eq!(refused("", |state| format!("code=c&state={state}x")), Some(CallbackError::State));
    let other = state(&asked("", &["a"]).0);
    assert_eq!(refused("", |_| format!("code=c&state={other}")), Some(CallbackError::State));
    assert_eq!(
        refused("", |state| format!("error=access_denied&state={state}x")),
        Some(CallbackError::State)
    );
}

#[test]
fn a_callback_with_a_parameter_twice_is_not_read() {
    for query in ["code=a&code=b", "state=a&state=a", "iss=a&iss=b", "error=a&error=b"] {
        assert_eq!(Callback::parse(query).err(), Some(CallbackError::Twice), "{query}");
    }
    assert!(Callback::parse("x=1&x=2&scope=a").is_ok());
}

#[test]
fn another_servers_answer_is_not_believed() {
    let yaml = "issuer: 'https://idp.test'";
    let with = |iss: &str, rest: &str| refused(yaml, |state| format!("{rest}&state={state}{iss}"));
    assert_eq!(with("&iss=https%3A%2F%2Fidp.test", "code=c"), None);
    for iss in ["", "&iss=", "&iss=https%3A%2F%2Fevil.test", "&iss=https%3A%2F%2Fidp.test%2F"] {
        assert_eq!(with(iss, "code=c"), Some(CallbackError::Issuer), "{iss}");
        assert_eq!(with(iss, "error=access_denied"), Some(CallbackError::Issuer), "{iss}");
    }
    assert_eq!(
        refused("", |state| format!("code=c&state={state}&iss=x")),
        None,
        "nobody said which it must be"
    );
}

#[test]
fn a_refusal_at_the_provider_says_whose_turn_it_is() {
    for (error, turn) in [
        ("access_denied", CallbackError::Declined),
        ("login_required", CallbackError::Declined),
        ("invalid_scope", CallbackError::Refused),
        ("unauthorized_client", CallbackError::Refused),
        ("odd", CallbackError::Refused),
        ("server_error", CallbackError::Unavailable),
        ("temporarily_unavailable", CallbackError::Unavailable),
    ] {
        let callback = |state: &str| format!("error={error}&error_description=x&code=c&state={state}");
        assert_eq!(refused("", callback), Some(turn), "{error}");
    }
    assert_eq!(refused("", |state| format!("state={state}")), Some(CallbackError::NoCode));
    assert_eq!(refused("", |state| format!("code=&state={state}")), Some(CallbackError::NoCode));
}

#[test]
fn an_id_token_must_have_the_nonce_that_was_sent() {
    assert!(!asked("", &["a"]).0.contains_key("nonce"));
    let granted = |nonce: fn(&str) -> Option<String>| {
        let (query, pending) = asked("", &["openid"]);
        let callback = Callback::parse(&format!("code=c&state={}", state(&query))).unwrap();
        let tokens = Tokens { nonce: nonce(&query["nonce"]), ..read("", TOKENS).unwrap() };
        pending.answered(callback).unwrap().granted(&tokens)
    };
    assert_eq!(granted(|sent| Some(sent.to_owned())), Ok(scopes(&["openid"])));
    assert_eq!(granted(|_| None), Err(CallbackError::Nonce));
    assert_eq!(granted(|sent| Some(format!("{sent}x"))), Err(CallbackError::Nonce));
}

#[test]
fn nothing_of_a_consent_is_shown() {
    let (query, pending) = asked("", &["a"]);
    assert!(!format!("{pending:?}").contains(&query["state"]));
}
