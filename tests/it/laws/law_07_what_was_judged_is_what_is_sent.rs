//! Law 7. The path has one reading, or the request is refused; the canonical bytes go upstream, the query and the
//! body as they were written.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::wire::{self, ALPNS, Wide, asks};
use crate::support::{
    agent::{Answer, Body, identity, inside},
    provider::Seen,
    stage::{HOST, POLICY, Stage, Staging},
};

/// The default policy, with a connector that knows every path below `/files/`.
fn policy() -> String {
    POLICY.replacen(
        "  operations:\n",
        "  operations:\n    - {name: file.get, request: \"GET /files/{path...}\", scopes: [accounts:read]}\n",
        1,
    )
}

async fn open() -> Stage {
    Stage::set(Staging { policies: vec![("policy.yaml", policy())], ..Staging::default() }).await
}

/// As it is asked for, and as it arrives.
const CANONICAL: [(&str, &str); 19] = [
    ("/files/a", "/files/a"),
    ("/files/a/", "/files/a/"),
    ("/%66iles/a", "/files/a"),
    ("/files/%7euser", "/files/~user"),
    ("/files/a%2db%2Ec%5f", "/files/a-b.c_"),
    ("/files/%41%5A%30", "/files/AZ0"),
    ("/files/caf%c3%a9", "/files/caf%C3%A9"),
    ("/files/a%20b", "/files/a%20b"),
    ("/files/100%25", "/files/100%25"),
    ("/files/a:b@c!$&'()*+,=", "/files/a:b@c!$&'()*+,="),
    ("/files/a%3ab%40", "/files/a%3Ab%40"),
    ("/files/%3c%3e%22%7b%7d", "/files/%3C%3E%22%7B%7D"),
    ("/files/a|b", "/files/a%7Cb"),
    ("/files/..a/b..", "/files/..a/b.."),
    ("/files/...", "/files/..."),
    ("/files/.hidden", "/files/.hidden"),
    ("/files/%ff%fe", "/files/%FF%FE"),
    ("/files/%3f%23", "/files/%3F%23"),
    ("/files/a%2541", "/files/a%2541"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_canonical_path_is_what_arrives() {
    let stage = open().await;
    let who = identity("acme", "researcher");
    for (number, (asked, arrives)) in CANONICAL.into_iter().enumerate() {
        let before = 3 * number;
        let rest = format!("Host: {HOST}\r\nAgent-Identity: {who}\r\nConnection: close\r\n\r\n");
        wire::by_hand(&stage, format!("GET http://{HOST}{asked} HTTP/1.1\r\n{rest}")).await;
        assert_arrived(&stage, before + 1, arrives, asked).await;
        wire::by_hand_inside(&stage, format!("GET {asked} HTTP/1.1\r\n{rest}")).await;
        assert_arrived(&stage, before + 2, arrives, asked).await;
        let mut tunnel = stage.tunnel(HOST, "h2").await;
        tunnel.call(asks(&tunnel, "GET", asked)).await;
        assert_arrived(&stage, before + 3, arrives, asked).await;
    }
}

async fn assert_arrived(stage: &Stage, count: usize, path: &str, asked: &str) {
    let seen: Vec<Seen> = stage.provider.requests();
    assert_eq!((seen.len(), seen.last().map(|seen| &*seen.path)), (count, Some(path)), "{asked}");
    let actions = wire::actions(stage, count).await;
    let event = actions.last().unwrap();
    assert_eq!(
        (&event["path"]["canonical"], &event["operation"]),
        (&path.into(), &"file.get".into()),
        "{asked}"
    );
}

/// Paths that two servers could take for two.
const AMBIGUOUS: [&str; 34] = [
    "/files/../echo",
    "/files/..",
    "/files/.",
    "/./echo",
    "/files/%2e%2e/echo",
    "/files/%2E./echo",
    "/files/.%2e",
    "/files/%2e",
    "//echo",
    "/files//a",
    "/files/a//",
    "/files/a%2fb",
    "/files/a%2Fb",
    "/files/a%5cb",
    "/files/a%5Cb",
    "/files/a;b",
    "/files/a;x=y/b",
    "/files/a%3bb",
    "/files/a%3Bb",
    "/files/..;/echo",
    "/files/%252e%252e/echo",
    "/files/a%252fb",
    "/files/a%255cb",
    "/files/a%25252f",
    "/files/a%00",
    "/files/a%0d%0aX:1",
    "/files/a%0a",
    "/files/a%1f",
    "/files/a%7f",
    "/files/a%",
    "/files/a%2",
    "/files/a%zz",
    "/files/a%u002e",
    "/files/a%253bb",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_path_is_refused() {
    let stage = open().await;
    let who = identity("acme", "researcher");
    for path in AMBIGUOUS {
        let rest = format!("Host: {HOST}\r\nAgent-Identity: {who}\r\nConnection: close\r\n\r\n");
        let direct = wire::by_hand(&stage, format!("GET http://{HOST}{path} HTTP/1.1\r\n{rest}")).await;
        let inside = wire::by_hand_inside(&stage, format!("GET {path} HTTP/1.1\r\n{rest}")).await;
        for answer in [direct, inside] {
            assert_eq!(
                (wire::status(&answer), wire::error(&answer).as_deref()),
                (400, Some("bad_request")),
                "{path}: {answer}"
            );
            assert!(answer.contains("\"why\": \"the path "), "{path}: {answer}");
        }
        let mut tunnel = stage.tunnel(HOST, "h2").await;
        let answer = tunnel.call(asks(&tunnel, "GET", path)).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (400, Some("bad_request")), "{path}");
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused() {
    let stage = open().await;
    let who = identity("acme", "publisher");
    let mut wrong = Vec::new();
    let head = |line: &str, fields: &str| {
        format!("{line}\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\n{fields}Connection: close\r\n\r\n")
    };
    for (line, fields, body) in [
        ("GET /files/a\\b HTTP/1.1", "", ""),
        ("GET /files/a\u{1}b HTTP/1.1", "", ""),
        ("GET /files/a b HTTP/1.1", "", ""),
        ("GET files/a HTTP/1.1", "", ""),
        ("GET * HTTP/1.1", "", ""),
        ("POST /echo HTTP/1.1", "Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"),
        ("POST /echo HTTP/1.1", "Content-Length: 3, 3\r\n", "abc"),
        ("POST /echo HTTP/1.1", "Content-Length: +3\r\n", "abc"),
        ("POST /echo HTTP/1.1", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("POST /echo HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("POST /echo HTTP/1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("POST /echo HTTP/1.1", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("GET /echo HTTP/1.1", "X-Folded: a\r\n b\r\n", ""),
        ("TRACE /echo HTTP/1.1", "", ""),
    ] {
        let answer = wire::by_hand_inside(&stage, head(line, fields) + body).await;
        if wire::status(&answer) != 400 {
            wrong.push(format!("{line} {fields:?}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(stage.provider.requests().is_empty());
    assert!(stage.actions().await.iter().all(|event| event["error"] == "bad_request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_two_lengths_is_read_in_one_way_and_framed_anew() {
    // RFC 9112 §6.3 lets a server go by the chunks alone. What would be a second request by the other reading is
    // not one, and the connection is closed.
    let stage = open().await;
    let who = identity("acme", "publisher");
    let smuggled = format!("GET /files/smuggled HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\n\r\n");
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\nConnection: close\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    wire::by_hand_inside(&stage, format!("{head}0\r\n\r\n{smuggled}")).await;
    let seen = stage.provider.requests();
    assert!(
        seen.iter().all(|seen| seen.path == "/echo"
            && seen.body.len == 0
            && !seen.headers.contains_key("transfer-encoding")),
        "{seen:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_arrives_byte_for_byte() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        for query in [
            "?",
            "?q",
            "?q=",
            "?=&&=",
            "?q=a%20b+c",
            "?q=%2e%2E/../..//",
            "?a=1&a=2&A=3",
            "?x=%zz%",
            "?u=http://x/?y=1",
            "?q=caf%c3%a9",
            "?;;a=1;b=2",
            "?$filter=a%20eq%20'b'",
            "?[]=1&{x}=2|3",
        ] {
            let asked = format!("/files/a{query}");
            let answer = tunnel.call(asks(&tunnel, "GET", &asked)).await;
            assert_ne!(answer.status, 400, "{alpn} {query}: {}", answer.text());
            let seen = stage.provider.requests().pop().unwrap();
            let expected = if query == "?" { "/files/a" } else { &*asked };
            assert_eq!(seen.path.trim_end_matches('?'), expected, "{alpn} {query}");
            let event = wire::event(&stage, wire::id(&answer)).await;
            assert_eq!(event["path"]["canonical"], "/files/a", "no query is recorded");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn method_host_and_body_arrive_as_they_were_judged() {
    let stage = open().await;
    for alpn in ALPNS {
        for method in ["PATCH", "POST", "PUT"] {
            let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
            let mut tunnel = stage.tunnel(HOST, alpn).await;
            let request = inside(&tunnel, method, HOST, "/echo")
                .header("agent-identity", identity("acme", "publisher"));
            let answer = tunnel.call(request.body(Body::new(Bytes::from(body.clone()))).unwrap()).await;
            assert_eq!(answer.status, 200, "{alpn} {method}");
            let seen = stage.provider.requests().pop().unwrap();
            assert_eq!(
                (seen.method.as_str(), seen.authority.as_deref(), seen.body.len),
                (method, Some(HOST), 100_000)
            );
            let expected = wire::hex(&Sha256::digest(&body));
            assert_eq!(seen.body.sha256, Some(expected), "{alpn} {method}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_arrives_whole_and_once() {
    let stage = open().await;
    for alpn in ALPNS {
        let mut wide = Wide::open(&stage, alpn).await;
        let request = wide
            .request("POST", "/upload")
            .body(wire::pieces(["one", "", "two", "three"].map(Vec::from)))
            .unwrap();
        let answer = Answer::read(wide.send(request).await.unwrap()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["len"]), (200, &11.into()), "{alpn}");
    }
    assert_eq!(stage.provider.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_in_the_query_is_not_the_providers_to_read() {
    let stage = open().await;
    let answer = stage.ask("POST", "acme", "publisher", "http://api.crm.test/echo?_method=DELETE&q=1").await;
    assert_eq!(answer.status, 200);
    assert_eq!(stage.provider.requests().pop().unwrap().path, "/echo?q=1");
    assert_eq!(wire::event(&stage, wire::id(&answer)).await["stripped"], serde_json::json!(["?_method"]));
}
