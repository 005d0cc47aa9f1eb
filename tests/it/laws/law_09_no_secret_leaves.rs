//! Law 9. No secret leaves: not in answers that echo it, however they are cut or encoded, not in logs, metrics, audit
//! events or errors, not in Debug output.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use keybearer::{
    id::Principal,
    secret::Secret,
    vault::{Material, NewAccount},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    law_11_streams_stream::websocket,
    wire::{self, ACME, ALPNS, Frames, Script, asks},
};
use crate::support::{
    agent::Answer,
    evidence,
    provider::Validity,
    stage::{HOST, POLICY, SECRETS, Stage, Staging, account, spellings},
};

fn assert_without_secrets(what: &str, text: &[u8]) {
    for (_, secret) in SECRETS {
        for spelling in spellings(secret) {
            assert!(
                memchr::memmem::find(text, spelling.as_bytes()).is_none(),
                "{what}: {}",
                String::from_utf8_lossy(text)
            );
        }
    }
}

/// A stage whose provider answers as the test says, h1 or h2.
async fn answering(
    alpn: &str,
    answer: impl Fn() -> Response<Frames> + Clone + Send + Sync + 'static,
) -> Stage {
    let script = Script::bind().await;
    let stage =
        Stage::set(Staging { resolve: vec![(HOST.to_owned(), script.address())], ..Staging::default() })
            .await;
    script.serve(&stage.authority, (&[HOST], Validity::Current), alpn, move |_| answer());
    stage
}

async fn ask(stage: &Stage, alpn: &str, path: &str) -> Answer {
    let mut tunnel = stage.tunnel(HOST, alpn).await;
    let request = asks(&tunnel, "GET", path);
    tunnel.call(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echoed_credential_is_masked_in_the_body() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let answer = ask(&stage, alpn, "/echo").await;
        assert_eq!(answer.status, 200);
        assert_without_secrets(alpn, &answer.body);
        assert!(answer.text().contains(&format!("Bearer {}", "*".repeat(ACME.len()))), "{}", answer.text());
        let seen = stage.provider.requests().pop().unwrap();
        assert_eq!(seen.headers["authorization"], format!("Bearer {ACME}"), "the provider had it");
    }
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_without_secrets("absolute-form", &answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_cut_anywhere_is_masked() {
    for alpn in ALPNS {
        let cut = Arc::new(Mutex::new((0, 0)));
        let at = Arc::clone(&cut);
        let stage = answering(alpn, move || {
            let (first, second) = *at.lock().unwrap();
            let whole = format!("<{ACME}>").into_bytes();
            Response::new(wire::pieces([
                whole[..first].to_vec(),
                whole[first..second].to_vec(),
                whole[second..].to_vec(),
            ]))
        })
        .await;
        let expected = format!("<{}>", "*".repeat(ACME.len()));
        for first in 0..=ACME.len() {
            let second = (first + 1 + first % 7).min(ACME.len() + 2);
            *cut.lock().unwrap() = (first, second);
            assert_eq!(
                ask(&stage, alpn, "/echo").await.text(),
                expected,
                "{alpn}, cut at {first} and {second}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_pauses_within_a_credential_gives_no_more_than_its_first_letters_away() {
    for alpn in ALPNS {
        let feeds: Arc<Mutex<Vec<wire::Feed>>> = Arc::default();
        let kept = Arc::clone(&feeds);
        let stage = answering(alpn, move || {
            let (feed, body) = wire::fed();
            feed.data("> ");
            kept.lock().unwrap().push(feed);
            Response::new(body)
        })
        .await;
        for cut in [1, 4, 7, 8, 12, ACME.len() - 1] {
            let mut tunnel = stage.tunnel(HOST, alpn).await;
            let mut answer = tunnel.send(asks(&tunnel, "GET", "/echo")).await.unwrap();
            let feed = feeds.lock().unwrap().pop().unwrap();
            let mut got = frame(&mut answer).await;
            assert_eq!(&got[..], b"> ");
            feed.data(ACME[..cut].to_owned());
            // Either the short beginning is let go for want of more, or a longer one is kept: this long is a pause.
            let patience = std::time::Duration::from_millis(60);
            if let Ok(early) = tokio::time::timeout(patience, frame(&mut answer)).await {
                assert!(early.len() < 8, "{cut} bytes of a credential were let go");
                got.extend_from_slice(&early);
            }
            feed.data(format!("{} and more", &ACME[cut..]));
            drop(feed);
            got.extend_from_slice(&answer.collect().await.unwrap().to_bytes());
            let text = String::from_utf8(got).unwrap();
            assert_eq!(text.len(), "> ".len() + ACME.len() + " and more".len(), "lengths stay");
            assert!(
                !text.contains(&ACME[8..]) && !text.contains(&ACME[cut..]),
                "{alpn}, cut at {cut}: {text}"
            );
            assert!(text.ends_with("* and more"), "{text}");
        }
    }
}

async fn frame(answer: &mut Response<hyper::body::Incoming>) -> Vec<u8> {
    answer.frame().await.unwrap().unwrap().into_data().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_in_headers_and_trailers_is_masked() {
    for alpn in ALPNS {
        let stage = answering(alpn, || {
            let (feed, body) = wire::fed();
            feed.data("body");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-last", HeaderValue::from_static(ACME));
            trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
            feed.trailers(trailers);
            let answer = Response::builder()
                .header("x-echo", format!("token={ACME}; again={ACME}"))
                .header("trailer", "x-last, set-cookie");
            answer
                .header("www-authenticate", format!("Bearer error=\"{ACME}\""))
                .header("set-cookie", "session=1")
                .body(body)
                .unwrap()
        })
        .await;
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let mut request = asks(&tunnel, "GET", "/echo");
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let answer = tunnel.call(request).await;
        let stars = "*".repeat(ACME.len());
        assert_eq!(answer.headers["x-echo"], format!("token={stars}; again={stars}"), "{alpn}");
        assert_eq!(answer.headers["www-authenticate"], format!("Bearer error=\"{stars}\""));
        assert!(!answer.headers.contains_key("set-cookie"), "a cookie is a credential made of ours");
        assert_eq!(
            answer.trailers.unwrap(),
            HeaderMap::from_iter([("x-last".parse().unwrap(), stars.parse().unwrap())]),
            "{alpn}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_in_server_sent_events_is_masked_as_it_streams() {
    for alpn in ALPNS {
        let feeds: Arc<Mutex<Vec<wire::Feed>>> = Arc::default();
        let kept = Arc::clone(&feeds);
        let stage = answering(alpn, move || {
            let (feed, body) = wire::fed();
            feed.data("data: hello\n\n");
            kept.lock().unwrap().push(feed);
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        })
        .await;
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let mut answer = tunnel.send(asks(&tunnel, "GET", "/echo")).await.unwrap();
        let feed = feeds.lock().unwrap().pop().unwrap();
        assert_eq!(frame(&mut answer).await, b"data: hello\n\n");
        for _ in 0..3 {
            feed.data(format!("data: {ACME}\n\n"));
            assert_eq!(
                frame(&mut answer).await,
                format!("data: {}\n\n", "*".repeat(ACME.len())).into_bytes(),
                "{alpn}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_in_a_websocket_is_masked() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut socket = websocket(&stage, alpn, &[]).await;
        for message in [Message::text(format!("<{ACME}>")), Message::binary(ACME.as_bytes().to_vec())] {
            socket.send(message).await.unwrap();
            let echo = socket.next().await.unwrap().unwrap().into_data();
            assert_without_secrets(alpn, &echo);
            assert!(
                memchr::memmem::find(&echo, "*".repeat(ACME.len()).as_bytes()).is_some(),
                "{alpn}: {echo:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_not_asked_for_what_could_not_be_searched() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let mut request = asks(&tunnel, "GET", "/echo");
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip, br"));
        assert_eq!(tunnel.call(request).await.status, 200);
        let seen = stage.provider.requests().pop().unwrap();
        assert_eq!(seen.headers["accept-encoding"], "identity", "{alpn}");
        drop(websocket(&stage, alpn, &[("sec-websocket-extensions", "permessage-deflate")]).await);
        let seen = stage.provider.requests().pop().unwrap();
        assert!(
            !seen.headers.contains_key("sec-websocket-extensions"),
            "{alpn}: a compressed message hides an echo"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_that_a_provider_echoes_is_masked() {
    let secret = "kb/canary+acme\"4f1d9c7ab2=x";
    let json = serde_json::to_string(secret).unwrap();
    let encoded =
        percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    let text = format!("{secret} {json} {encoded}");
    let script = Script::bind().await;
    let accounts = vec![account("acme", "crm", Principal::Tenant, secret)];
    let resolve = vec![(HOST.to_owned(), script.address())];
    let stage = Stage::set(Staging { resolve, accounts, ..Staging::default() }).await;
    let (body, length) = (text.clone(), text.len());
    script.serve(&stage.authority, (&[HOST], Validity::Current), "h2", move |_| {
        Response::new(wire::pieces([body.clone().into_bytes()]))
    });
    let told = ask(&stage, "http/1.1", "/echo").await.text();
    assert_eq!(told.len(), length);
    assert!(told.chars().all(|c| matches!(c, '*' | ' ' | '"')), "{told}");
}

/// As real encoders write a token in a URL, a form or JSON: each leaves other bytes as they are.
const TOKEN: &str = "kb-canary-00D5g/AB+x!yz.Q_w-12345/7890=acme";
const SPELLINGS: [&str; 7] = [
    "kb-canary-00D5g/AB%2Bx%21yz.Q_w-12345/7890%3Dacme", // Python: quote
    "kb-canary-00D5g%2FAB%2Bx%21yz.Q_w-12345%2F7890%3Dacme", // quote_plus, quote(safe="")
    "kb-canary-00D5g%2FAB%2Bx!yz.Q_w-12345%2F7890%3Dacme", // JavaScript: encodeURIComponent
    "kb-canary-00D5g%2fAB%2bx!yz.Q_w-12345%2f7890%3dacme", // .NET
    r"kb-canary-00D5g\/AB+x!yz.Q_w-12345\/7890=acme",    // PHP: json_encode
    r"kb-canary-00D5g/AB\u002Bx!yz.Q_w-12345/7890\u003dacme", // .NET: System.Text.Json, Go where HTML is meant
    r"%6Bb\u002dcanary-00D5g\/AB%2Bx!yz%2eQ_w-12345/7890=acm\u0065", // nobody's
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_encoder_a_provider_uses_its_echo_is_masked_in_headers_and_body() {
    let header = r#"{header: Authorization, value: "Bearer {token}"}"#;
    for injected in [header, r#"{query: access_token, value: "{token}"}"#] {
        let script = Script::bind().await;
        let stage = Stage::set(Staging {
            policies: vec![("policy.yaml", POLICY.replacen(header, injected, 1))],
            accounts: vec![account("acme", "crm", Principal::Tenant, TOKEN)],
            resolve: vec![(HOST.to_owned(), script.address())],
            ..Staging::default()
        })
        .await;
        script.serve(&stage.authority, (&[HOST], Validity::Current), "h2", move |request| {
            let pieces = SPELLINGS.iter().flat_map(|text| [&text[..17], &text[17..], "\n"]);
            let there = format!("/{}?again={}#{}", SPELLINGS[1], SPELLINGS[3], SPELLINGS[6]);
            let asked = request.uri().path_and_query().unwrap().as_str().to_owned();
            let answer = Response::builder().header("location", there).header("x-asked", asked);
            answer.body(wire::pieces(pieces.map(|piece| piece.as_bytes().to_vec()))).unwrap()
        });
        let answer = ask(&stage, "http/1.1", "/echo").await;
        let stars = SPELLINGS.map(|text| "*".repeat(text.len()));
        assert_eq!(answer.text().lines().collect::<Vec<_>>(), stars, "{injected}");
        assert_eq!(answer.headers["location"], format!("/{}?again={}#{}", stars[1], stars[3], stars[6]));
        assert!(!answer.headers["x-asked"].to_str().unwrap().contains("00D5g"), "{:?}", answer.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encoding_that_was_injected_is_masked_too() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let basic = POLICY.replacen(
        "auth: {type: static}\n  inject: [{header: Authorization, value: \"Bearer {token}\"}]",
        "auth: {type: static, fields: [user, password]}\n  inject: [{header: Authorization, value: \"Basic {basic(user, password)}\"}]",
        1,
    );
    let fields = [("user", "robot-of-acme"), ("password", ACME)]
        .map(|(name, value)| (name.to_owned(), Secret::new(value.into())));
    let accounts = vec![NewAccount {
        material: Material::Static { fields: fields.into() },
        ..account("acme", "crm", Principal::Tenant, ACME)
    }];
    let script = Script::bind().await;
    let resolve = vec![(HOST.to_owned(), script.address())];
    let stage = Stage::set(Staging {
        policies: vec![("policy.yaml", basic)],
        accounts,
        resolve,
        ..Staging::default()
    })
    .await;
    let encoded = BASE64_STANDARD.encode(format!("robot-of-acme:{ACME}"));
    let sent = encoded.clone();
    script.serve(&stage.authority, (&[HOST], Validity::Current), "http/1.1", move |request| {
        assert_eq!(request.headers()["authorization"], format!("Basic {sent}"));
        Response::new(wire::pieces([format!("you sent {sent}").into_bytes()]))
    });
    let answer = ask(&stage, "h2", "/echo").await;
    assert_eq!(answer.text(), format!("you sent {}", "*".repeat(encoded.len())));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_logs_nor_refusals_nor_events_say_a_secret() {
    let stage = Stage::open().await;
    for (tenant, role, method, path) in [
        ("acme", "researcher", "GET", "/echo"),
        ("globex", "publisher", "POST", "/echo"),
        ("acme", "researcher", "DELETE", "/echo"),
        ("acme", "stranger", "GET", "/echo"),
        ("acme", "researcher", "GET", "/a//b"),
        ("initech", "researcher", "GET", "/echo"),
        ("acme", "researcher", "GET", "/ws"),
    ] {
        let answer = stage.ask(method, tenant, role, &format!("http://{HOST}{path}")).await;
        assert_without_secrets(path, &answer.body);
        assert_without_secrets(path, format!("{:?}", answer.headers).as_bytes());
    }
    let key = wire::key("acme", "crm");
    stage.app().vault.freeze(&key, "operator").await.unwrap();
    stage.app().vault.unfreeze(&key).await.unwrap();
    stage.app().vault.revoke(&key).await.unwrap();
    stage.app().vault.remove(&key).await.unwrap();
    let events = stage.events().await.iter().fold(String::new(), |mut all, event| {
        let _ = write!(all, "{event}");
        all
    });
    assert_without_secrets("events", events.as_bytes());
    let text = evidence::log();
    assert!(memchr::memmem::find(&text, b"refused").is_some(), "the log was listened to");
    let metrics = stage.app().metrics().unwrap();
    assert!(memchr::memmem::find(&metrics, b"keybearer_requests_total").is_some());
    assert_without_secrets("metrics", &metrics);
    assert_without_secrets("log", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_a_secret_in_debug_output() {
    let stage = Stage::open().await;
    let vault = &stage.app().vault;
    let new = account("acme", "desk", Principal::Tenant, ACME);
    let mut shown = format!("{:?} {:?} {:?} {:?}", Secret::new(ACME.into()), new, new.material, vault);
    let account = vault.account(&wire::key("acme", "crm")).await.unwrap().unwrap();
    let _ = write!(shown, "{account:?} {:?}", vault.status().await.unwrap());
    let mut headers = HeaderMap::new();
    headers.insert("agent-identity", HeaderValue::from_static(ACME));
    let _ = write!(shown, "{:?}", keybearer::identity::claimed(&headers));
    let mut key = vault.list(None).await.unwrap();
    let _ = write!(shown, "{:?}", key.pop());
    assert_without_secrets("Debug", shown.as_bytes());
    let short = Secret::new(b"hunter2".to_vec());
    assert_eq!(
        (short.masked(), Secret::new(ACME.into()).masked()),
        ("…".to_owned(), format!("…{}", &ACME[ACME.len() - 4..]))
    );
}
