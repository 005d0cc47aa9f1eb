//! Law 4. Whatever an agent sends to authenticate, select an identity or be read as another request is removed,
//! however it is spelt; the audit names it and never its value.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::wire::{self, ACME, ALPNS, Wide};
use crate::support::{
    agent::{Answer, Body, Connection, absolute, identity, inside},
    provider::Seen,
    stage::{HOST, POLICY, Stage, Staging},
};

/// Occurs in every value that the agent sends, and must occur nowhere else.
const MARK: &str = "from-the-agent-7c1f";

/// Carriers of credentials, of identities, and of another method, host or path than the one that was judged.
const HEADERS: [&str; 74] = [
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "Cookie2",
    "X-Api-Key",
    "Api-Key",
    "ApiKey",
    "X-ApiKey",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Authorization",
    "X-Id-Token",
    "X-Session-Token",
    "Private-Token",
    "Job-Token",
    "Deploy-Token",
    "X-Vault-Token",
    "X-Amz-Security-Token",
    "X-Goog-Api-Key",
    "X-GitHub-Token",
    "X-GitLab-Token",
    "X-Shopify-Access-Token",
    "X-Figma-Token",
    "X-Functions-Key",
    "DPoP",
    "Ocp-Apim-Subscription-Key",
    "DD-API-KEY",
    "DD-APPLICATION-KEY",
    "X-Auth-Key",
    "X-Auth-Email",
    "X-Client-Secret",
    "X-Csrf-Token",
    // the connector's own: its place of injection and what it has removed
    "X-Desk-Key",
    "X-Crm-User",
    // who to act as
    "Impersonate-User",
    "Impersonate-Group",
    "Impersonate-Uid",
    "Sudo",
    "X-Sudo",
    "X-Impersonate-User",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Remote-User",
    "Remote-User",
    "X-Authenticated-User",
    "X-Authenticated-Userid",
    "X-User-Id",
    "X-On-Behalf-Of",
    "X-Original-User",
    "X-Webauth-User",
    "X-Goog-Iap-Jwt-Assertion",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-User-Project",
    "X-Client-Cert",
    "X-Forwarded-Client-Cert",
    "X-Ssl-Client-Cert",
    "X-Amzn-Oidc-Data",
    "X-Ms-Client-Principal",
    "X-Ms-Client-Principal-Id",
    // another reading
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Method",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-URI",
    "X-Forwarded-Host",
    "X-Host",
    "X-Forwarded-URI",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "Forwarded",
];

/// Never named by `stripped`: they belong to the hop, or to the proxy.
const HOP: [&str; 3] = ["Proxy-Connection", "Keep-Alive", "HTTP2-Settings"];

/// The default connector with another place of injection, in a header and in the query.
fn policy() -> String {
    POLICY.replacen(
        "inject: [{header: Authorization, value: \"Bearer {token}\"}]",
        "inject: [{header: Authorization, value: \"Bearer {token}\"}, {header: X-Desk-Key, value: \"{token}\"}]",
        1,
    )
}

async fn open() -> Stage {
    Stage::set(Staging { policies: vec![("policy.yaml", policy())], ..Staging::default() }).await
}

/// What arrived: our credential, once, and nothing of the agent's.
fn assert_clean(seen: &Seen, what: &str) {
    assert!(!seen.head_contains(MARK), "{what}: {seen:#?}");
    let ours: Vec<_> = seen.headers.get_all("authorization").iter().collect();
    assert_eq!(ours, [&HeaderValue::try_from(format!("Bearer {ACME}")).unwrap()], "{what}");
    assert_eq!(seen.headers.get_all("x-desk-key").iter().count(), 1, "{what}");
    assert!(!seen.headers.contains_key("agent-identity"), "{what}");
}

/// What the audit says was taken out. No value stands anywhere in the event.
async fn stripped(stage: &Stage, id: &str, what: &str) -> Vec<String> {
    let event = wire::event(stage, id).await;
    let text = event.to_string();
    assert!(!text.contains(MARK), "{what}: {text}");
    let names = event["stripped"].as_array().cloned().unwrap_or_default();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn last(stage: &Stage) -> Seen {
    stage.provider.requests().pop().unwrap()
}

fn asks(connection: &Connection, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request =
        inside(connection, "GET", HOST, "/echo").header("agent-identity", identity("acme", "researcher"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_that_authenticates_reaches_the_provider() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        for header in HEADERS {
            let name = header.to_ascii_lowercase();
            let value = format!("Bearer {MARK}");
            for (variant, times) in [(name.clone(), 1), (name.clone(), 2), (name.replace('-', "_"), 1)] {
                let what = format!("{alpn} {variant} × {times}");
                if variant == "proxy-authorization" && times == 2 {
                    continue; // who asks is said twice: 400, tested below
                }
                let fields = vec![(&*variant, &*value); times];
                let answer = tunnel.call(asks(&tunnel, &fields)).await;
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                assert_clean(&last(&stage), &what);
                let stripped = stripped(&stage, wire::id(&answer), &what).await;
                assert_eq!(stripped, std::slice::from_ref(&variant), "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_does_not_matter_and_neither_does_the_way_in() {
    let stage = open().await;
    let who = identity("acme", "researcher");
    for header in [
        "AUTHORIZATION",
        "aUtHoRiZaTiOn",
        "X-API-KEY",
        "x_Api_Key",
        "COOKIE",
        "X-DESK-KEY",
        "x-CRM-user",
        "Sudo",
        "X_FORWARDED_HOST",
    ] {
        let rest = format!(
            "Host: {HOST}\r\nAgent-Identity: {who}\r\n{header}: {MARK}\r\n{header}: {MARK}\r\nConnection: close\r\n\r\n"
        );
        let direct = wire::by_hand(&stage, format!("GET http://{HOST}/echo HTTP/1.1\r\n{rest}")).await;
        let inside = wire::by_hand_inside(&stage, format!("GET /echo HTTP/1.1\r\n{rest}")).await;
        for answer in [direct, inside] {
            assert_eq!(wire::status(&answer), 200, "{header}: {answer}");
            assert_eq!(
                stripped(&stage, wire::id_by_hand(&answer), header).await,
                [header.to_ascii_lowercase()]
            );
        }
        for seen in stage.provider.requests().iter().rev().take(2) {
            assert_clean(seen, header);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_carriers_at_once_are_all_named() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let names: Vec<String> = HEADERS.iter().map(|name| name.to_ascii_lowercase()).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (&**name, MARK)).collect();
        let answer = tunnel.call(asks(&tunnel, &fields)).await;
        assert_eq!(answer.status, 200);
        assert_clean(&last(&stage), alpn);
        let (mut told, mut expected) = (stripped(&stage, wire::id(&answer), alpn).await, names);
        told.sort();
        expected.sort();
        assert_eq!(told, expected, "{alpn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_connection_nominates_is_removed_and_carriers_among_it_are_named() {
    let stage = open().await;
    let who = identity("acme", "researcher");
    for (nominated, named) in
        [("X-Api-Key", true), ("Authorization", true), ("X-Private", false), ("X-Desk-Key", true)]
    {
        let head = format!(
            "GET http://{HOST}/echo HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\n{nominated}: {MARK}\r\nConnection: close, {nominated}\r\n\r\n"
        );
        let answer = wire::by_hand(&stage, head).await;
        assert_eq!(wire::status(&answer), 200, "{nominated}");
        assert_clean(&last(&stage), nominated);
        let expected = if named { vec![nominated.to_ascii_lowercase()] } else { vec![] };
        assert_eq!(stripped(&stage, wire::id_by_hand(&answer), nominated).await, expected, "{nominated}");
    }
    for header in HOP {
        let head = format!(
            "GET http://{HOST}/echo HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\n{header}: {MARK}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(wire::status(&wire::by_hand(&stage, head).await), 200, "{header}");
        assert_clean(&last(&stage), header);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nominating_our_own_headers_takes_nothing_from_them() {
    let stage = open().await;
    let who = identity("acme", "researcher");
    let head = format!(
        "GET http://{HOST}/echo HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\nConnection: close, authorization, host, x-desk-key\r\n\r\n"
    );
    assert_eq!(wire::status(&wire::by_hand(&stage, head).await), 200);
    assert_clean(&last(&stage), "nominated");
}

#[tokio::test(flavor = "multi_thread")]
async fn userinfo_is_dropped_and_named() {
    let stage = open().await;
    for userinfo in [format!("user:{MARK}"), MARK.to_owned(), format!("a@{MARK}")] {
        let head = format!(
            "GET http://{userinfo}@{HOST}/echo HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {}\r\nConnection: close\r\n\r\n",
            identity("acme", "researcher")
        );
        let answer = wire::by_hand(&stage, head).await;
        if userinfo.contains('@') {
            assert_eq!(wire::status(&answer), 400, "{userinfo}: two readings");
            continue;
        }
        assert_eq!(wire::status(&answer), 200, "{userinfo}: {answer}");
        assert_clean(&last(&stage), &userinfo);
        assert_eq!(stripped(&stage, wire::id_by_hand(&answer), &userinfo).await, ["userinfo"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_said_twice_is_refused() {
    let stage = open().await;
    let one = identity("acme", "researcher");
    for alpn in ALPNS {
        for (name, value) in
            [("agent-identity", identity("globex", "researcher")), ("agent-identity", one.clone())]
        {
            let mut tunnel = stage.tunnel(HOST, alpn).await;
            let answer = tunnel.call(asks(&tunnel, &[(name, &value)])).await;
            assert_eq!(
                (answer.status.as_u16(), answer.error().as_deref()),
                (400, Some("bad_request")),
                "{alpn}"
            );
        }
    }
    assert!(stage.provider.requests().is_empty());
}

/// Query or form → what is left of it, and what the audit names.
const PARAMETERS: [(&str, &str, &[&str]); 17] = [
    ("access_token=@", "", &["?access_token"]),
    ("q=1&access_token=@&page=2", "q=1&page=2", &["?access_token"]),
    ("ACCESS_TOKEN=@", "", &["?access_token"]),
    ("%61ccess_token=@", "", &["?access_token"]),
    ("access%5Ftoken=@", "", &["?access_token"]),
    ("%61%63%63%65%73%73%5f%74%6f%6b%65%6e=@", "", &["?access_token"]),
    ("access_token=@&access_token=@&q=1", "q=1", &["?access_token", "?access_token"]),
    ("access_token[]=@", "", &["?access_token"]),
    ("access_token%5B0%5D=@", "", &["?access_token"]),
    ("token=@&Token=@", "", &["?token", "?token"]),
    ("q=1;token=@", "", &["?token"]),
    ("token=@;q=1&z=9", "z=9", &["?token"]),
    ("+token=@", "", &["?token"]),
    ("token+=@", "", &["?token"]),
    ("&&token=@&", "&&", &["?token"]),
    (
        "api_key=@&oauth_token=@&client_secret=@&refresh_token=@",
        "",
        &["?api_key", "?oauth_token", "?client_secret", "?refresh_token"],
    ),
    ("q=%20a+b&tokens=1&x=token", "q=%20a+b&tokens=1&x=token", &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_query_parameter_that_authenticates_reaches_the_provider() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        for (query, left, names) in PARAMETERS {
            let what = format!("{alpn} {query}");
            let path = format!("/echo?{}", query.replace('@', MARK));
            let answer = tunnel.call(wire::asks(&tunnel, "GET", &path)).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            let seen = last(&stage);
            assert_clean(&seen, &what);
            let expected = if left.is_empty() { "/echo".to_owned() } else { format!("/echo?{left}") };
            assert_eq!(seen.path, expected, "{what}");
            assert_eq!(stripped(&stage, wire::id(&answer), &what).await, names, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_the_connector_injects_is_ours_alone() {
    let by_query = POLICY.replacen(
        "inject: [{header: Authorization, value: \"Bearer {token}\"}]",
        "inject: [{query: key, value: \"{token}\"}]",
        1,
    );
    let stage = Stage::set(Staging { policies: vec![("policy.yaml", by_query)], ..Staging::default() }).await;
    for query in ["key=@", "KEY=@&q=1", "k%65y=@", "q=1;key=@", "key[]=@"] {
        let url = format!("http://{HOST}/anything?{}", query.replace('@', MARK));
        let answer = stage.get("acme", "researcher", &url).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["x-provider-tenant"]),
            (200, &HeaderValue::from_static("acme"))
        );
        let seen = last(&stage);
        assert!(!seen.head_contains(MARK), "{query}: {}", seen.path);
        assert_eq!(seen.path.matches("key=").count(), 1, "{query}: {}", seen.path);
        assert!(seen.path.ends_with(&format!("key={ACME}")), "{query}: {}", seen.path);
    }
}

async fn post(tunnel: &mut Connection, fields: &[(&str, &str)], body: String) -> Answer {
    let mut request =
        inside(tunnel, "POST", HOST, "/echo").header("agent-identity", identity("acme", "publisher"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    tunnel.call(request.body(Body::new(Bytes::from(body))).unwrap()).await
}

fn echoed(answer: &Answer) -> String {
    answer.json()["body"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_parameter_that_authenticates_reaches_the_provider() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        for mime in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; charset=utf-8"]
        {
            for (form, left, names) in PARAMETERS {
                let what = format!("{alpn} {mime} {form}");
                let answer = post(&mut tunnel, &[("content-type", mime)], form.replace('@', MARK)).await;
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                assert_eq!(echoed(&answer), left, "{what}");
                assert_eq!(stripped(&stage, wire::id(&answer), &what).await, names, "{what}");
            }
        }
        let answer = post(
            &mut tunnel,
            &[("content-type", "application/json")],
            format!("{{\"note\": \"token={MARK}\"}}"),
        )
        .await;
        assert_eq!(
            echoed(&answer),
            format!("{{\"note\": \"token={MARK}\"}}"),
            "JSON is the agent's own business"
        );
    }
}

fn multipart(part: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {part}\r\n\r\n{MARK}\r\n--b--\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_could_carry_a_token_unseen_is_refused() {
    let stage = open().await;
    let plain = format!("token={MARK}");
    let form = "application/x-www-form-urlencoded";
    let cases: Vec<(Vec<(&str, &str)>, String)> = vec![
        (vec![("content-type", "multipart/form-data; boundary=b")], multipart("name=\"token\"")),
        (vec![("content-type", "Multipart/Form-Data; boundary=b")], multipart("name=TOKEN")),
        (
            vec![("content-type", "multipart/form-data; boundary=b")],
            multipart("filename=\"x\"; name=\"access_token\""),
        ),
        (vec![("content-type", "multipart/form-data; boundary=b")], multipart("name*=utf-8''token")),
        (vec![("content-type", "multipart/form-data; boundary=b")], multipart("name = \"token\"")),
        (vec![("content-type", "multipart/form-data; boundary=b")], multipart("name=\"token[]\"")),
        // Which of two types a provider believes is anybody's guess.
        (vec![("content-type", "text/plain"), ("content-type", form)], plain.clone()),
        (vec![("content-type", form), ("content-type", "text/plain")], plain.clone()),
        (vec![("content-type", "text/plain, application/x-www-form-urlencoded")], plain.clone()),
        // What is encoded cannot be read here and will be there.
        (vec![("content-type", form), ("content-encoding", "br")], plain.clone()),
        (
            vec![("content-type", "multipart/form-data; boundary=b"), ("content-encoding", "deflate")],
            "compressed".to_owned(),
        ),
        (vec![("content-type", "application/x-www-form-urlencoded; charset=utf-16")], plain.clone()),
    ];
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        for (fields, body) in &cases {
            let answer = post(&mut tunnel, fields, body.clone()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.error().as_deref()),
                (400, Some("bad_request")),
                "{alpn} {fields:?} {body}: {}",
                answer.text()
            );
            assert!(!answer.text().contains(MARK));
            stripped(&stage, wire::id(&answer), "refused").await;
        }
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_tokens_passes_as_it_is() {
    let stage = open().await;
    let mut tunnel = stage.tunnel(HOST, "h2").await;
    let parts = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"token.txt\"\r\n\r\nhello\r\n--b--\r\n";
    let answer =
        post(&mut tunnel, &[("content-type", "multipart/form-data; boundary=b")], parts.to_owned()).await;
    assert_eq!((answer.status.as_u16(), echoed(&answer)), (200, parts.to_owned()));
    let answer = post(
        &mut tunnel,
        &[("content-type", "application/x-www-form-urlencoded")],
        "a=1&b=%20&&=".to_owned(),
    )
    .await;
    assert_eq!((answer.status.as_u16(), echoed(&answer)), (200, "a=1&b=%20&&=".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_too_large_to_be_read_is_refused() {
    let config = "limits: {inspect_body_bytes: 1000}\n".to_owned();
    let stage = Stage::set(Staging { config, ..Staging::default() }).await;
    let mut tunnel = stage.tunnel(HOST, "http/1.1").await;
    let answer = post(
        &mut tunnel,
        &[("content-type", "application/x-www-form-urlencoded")],
        format!("a={}", "x".repeat(1000)),
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), answer.error().as_deref(), &answer.json()["limit"]),
        (413, Some("body_too_large"), &1000.into())
    );
    assert!(stage.provider.requests().is_empty());
}

/// Uploads a body with this trailer and another; returns the action's id.
async fn trailers_h2(stage: &Stage, name: &str) -> String {
    let mut wide = Wide::open(stage, "h2").await;
    let (feed, body) = wire::fed();
    let request = wide.request("POST", "/upload").body(body).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(MARK));
    trailers.insert("x-checksum", HeaderValue::from_static("kept"));
    feed.data("body");
    feed.trailers(trailers);
    drop(feed);
    let answer = Answer::read(wide.send(request).await.unwrap()).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    wire::id(&answer).to_owned()
}

/// By hand, because hyper's client sends no trailer that should not be one (RFC 9110 §6.5.1).
async fn trailers_h1(stage: &Stage, name: &str) -> String {
    let who = identity("acme", "publisher");
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: {name}, x-checksum\r\n\r\n"
    );
    let answer = wire::by_hand_inside(
        stage,
        format!("{head}4\r\nbody\r\n0\r\n{name}: {MARK}\r\nx-checksum: kept\r\n\r\n"),
    )
    .await;
    assert_eq!(wire::status(&answer), 200, "{name}: {answer}");
    wire::id_by_hand(&answer).to_owned()
}

/// They frame the message or are the hop's, and authenticate nobody.
const FRAMING: [&str; 3] = ["host", "content-length", "agent-identity"];

#[tokio::test(flavor = "multi_thread")]
async fn no_trailer_that_authenticates_reaches_the_provider() {
    let stage = open().await;
    for alpn in ALPNS {
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "x_api_key",
            "x-desk-key",
            "x-crm-user",
            "x_crm_user",
            "impersonate-user",
            "host",
            "content-length",
            "agent-identity",
            "proxy-authorization",
        ] {
            let what = format!("{alpn} {name}");
            let id =
                if alpn == "h2" { trailers_h2(&stage, name).await } else { trailers_h1(&stage, name).await };
            let seen = last(&stage);
            let told = seen.body.trailers.clone().unwrap_or_default();
            assert!(!told.contains_key(name), "{what}: {told:?}");
            assert!(told.values().all(|value| value != MARK), "{what}: {told:?}");
            assert_eq!(told.get("x-checksum"), Some(&HeaderValue::from_static("kept")), "{what}");
            assert_eq!(seen.body.len, 4, "{what}");
            let told = stripped(&stage, &id, &what).await;
            let expected = if FRAMING.contains(&name) { vec![] } else { vec![name.to_owned()] };
            assert_eq!(told, expected, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_authenticates_nobody_passes() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let fields = [
            ("accept", "application/json"),
            ("if-none-match", "\"v1\""),
            ("x-request-id", "r-1"),
            ("user-agent", "agent/1"),
            ("x-authors", "kept"),
            ("accept-language", "de"),
        ];
        let answer = tunnel.call(asks(&tunnel, &fields)).await;
        assert_eq!(answer.status, 200);
        let seen = last(&stage);
        for (name, value) in fields {
            assert_eq!(
                seen.headers.get(name).map(HeaderValue::as_bytes),
                Some(value.as_bytes()),
                "{alpn} {name}"
            );
        }
        assert_eq!(stripped(&stage, wire::id(&answer), alpn).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_not_told_to_the_provider() {
    let stage = open().await;
    let mut direct = stage.direct().await;
    let request = absolute("GET", "http://api.crm.test/echo")
        .header("proxy-authorization", "Basic YWNtZS9yZXNlYXJjaGVyOng=");
    let answer = direct.call(request.body(Body::default()).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = last(&stage);
    assert_clean(&seen, "proxy-authorization");
    assert!(!seen.headers.contains_key("proxy-authorization"));
    let event = wire::event(&stage, wire::id(&answer)).await;
    assert_eq!((&event["tenant"], &event["role"]), (&"acme".into(), &"researcher".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_knows_another_tenants_secret_gains_nothing() {
    let stage = open().await;
    let globex = crate::support::stage::SECRETS[1].1;
    let mut tunnel = stage.tunnel(HOST, "h2").await;
    let mine = format!("Bearer {globex}");
    let answer = tunnel.call(asks(&tunnel, &[("authorization", &mine), ("authorization", &mine)])).await;
    assert_eq!((answer.status.as_u16(), answer.headers["x-provider-tenant"].as_bytes()), (200, &b"acme"[..]));
}
