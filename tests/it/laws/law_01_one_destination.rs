//! Law 1. CONNECT authority = SNI = Host or `:authority` = the name judged = the name on the certificate, and the
//! address was resolved by the proxy and passed the guard. On every request, h1 and h2.

use std::sync::atomic::Ordering;

use http::{Request, Response};

use super::wire::{self, ALPNS, Script, asks};
use crate::support::{
    agent::{Answer, Body, Tunnel, absolute, identity},
    provider::{TestAuthority, Validity},
    stage::{HOST, OTHER, Stage, Staging},
};

const NAMES: [&str; 2] = [HOST, OTHER];
const OR_NONE: [Option<&str>; 3] = [None, Some(HOST), Some(OTHER)];

/// What must be answered where these names were given.
fn expected(names: &[&str]) -> (u16, Option<&'static str>) {
    match (names.contains(&HOST), names.contains(&OTHER)) {
        (true, false) => (200, None),
        (false, true) => (403, Some("destination_denied")),
        _ => (421, Some("misdirected")),
    }
}

async fn check(stage: &Stage, names: &[&str], answer: &Answer, seen: &mut usize) {
    let (status, error) = expected(names);
    assert_eq!(
        (answer.status.as_u16(), answer.error().as_deref()),
        (status, error),
        "{names:?}: {}",
        answer.text()
    );
    *seen += usize::from(status == 200);
    assert_eq!(stage.provider.requests().len(), *seen, "{names:?}");
    if status == 421 {
        let event = stage.last_action().await;
        assert_eq!(
            (&event["decision"], &event["error"]),
            (&"deny".into(), &"misdirected".into()),
            "{names:?}"
        );
        assert_eq!(event["account"], serde_json::Value::Null, "no credential was looked up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_in_a_tunnel_names_one_destination_four_times() {
    let stage = Stage::open().await;
    let mut seen = 0;
    for (connect, sni) in pairs() {
        for uri in OR_NONE {
            for host in NAMES {
                let target = uri.map_or_else(|| "/echo".to_owned(), |name| format!("https://{name}/echo"));
                let request = Request::get(target)
                    .header("host", host)
                    .header("agent-identity", identity("acme", "researcher"));
                let mut tunnel = open(&stage, connect, sni, "http/1.1").await;
                let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
                let names: Vec<&str> = [connect, sni, host].into_iter().chain(uri).collect();
                check(&stage, &names, &answer, &mut seen).await;
            }
        }
    }
    assert_eq!(seen, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_in_a_tunnel_names_one_destination_four_times() {
    let stage = Stage::open().await;
    let mut seen = 0;
    for (connect, sni) in pairs() {
        for authority in NAMES {
            for host in OR_NONE {
                let mut request = Request::get(format!("https://{authority}/echo"))
                    .header("agent-identity", identity("acme", "researcher"))
                    .body(Body::default())
                    .unwrap();
                request.headers_mut().extend(host.map(|host| (http::header::HOST, host.parse().unwrap())));
                let answer = open(&stage, connect, sni, "h2").await.call(request).await;
                let names: Vec<&str> = [connect, sni, authority].into_iter().chain(host).collect();
                check(&stage, &names, &answer, &mut seen).await;
            }
        }
    }
    assert_eq!(seen, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_uri_and_host_name_one_destination() {
    let stage = Stage::open().await;
    let mut seen = 0;
    for scheme in ["http", "https"] {
        for uri in NAMES {
            for host in NAMES {
                let request = Request::get(format!("{scheme}://{uri}/echo"))
                    .header("host", host)
                    .header("agent-identity", identity("acme", "researcher"));
                let answer = stage.direct().await.call(request.body(Body::default()).unwrap()).await;
                check(&stage, &[uri, host], &answer, &mut seen).await;
            }
        }
    }
    assert_eq!(seen, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_and_its_own_host_header_name_one_destination() {
    let stage = Stage::open().await;
    for host in [
        "other.crm.test",
        "other.crm.test:443",
        "api.crm.test:8443",
        "user@api.crm.test",
        "api.crm.test.evil",
        "api.crm.test\r\nHost: other.crm.test",
    ] {
        let answer = wire::by_hand(
            &stage,
            format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert_eq!(
            (wire::status(&answer), wire::error(&answer).as_deref()),
            (421, Some("misdirected")),
            "{host}: {answer}"
        );
    }
    for target in [HOST, "api.crm.test:0", "api.crm.test:65536", "user@api.crm.test:443", ":443"] {
        let answer = wire::by_hand(
            &stage,
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert_eq!(wire::status(&answer), 400, "{target}: {answer}");
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_spellings_of_the_same_name_are_the_same_destination() {
    let stage = Stage::open().await;
    for (connect, sni, host) in [
        ("API.crm.TEST:443", "api.crm.test", "api.crm.test"),
        ("api.crm.test.:443", "api.crm.test", "api.crm.test"),
        ("api.crm.test:443", "API.CRM.TEST", "Api.Crm.Test:443"),
        ("api.crm.test:443", "api.crm.test", "api.crm.test."),
    ] {
        let mut tunnel = stage.tunnel_with(Tunnel { connect, sni, alpn: &["http/1.1"], headers: "" }).await;
        let request = Request::get("/echo")
            .header("host", host)
            .header("agent-identity", identity("acme", "researcher"));
        let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
        assert_eq!(answer.status, 200, "{connect} {sni} {host}: {}", answer.text());
    }
    for seen in stage.provider.requests() {
        assert_eq!(seen.authority.as_deref(), Some(HOST));
        assert_eq!(seen.peer.sni.as_deref(), Some(HOST));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_part_of_the_destination() {
    let stage = Stage::open().await;
    for host in ["api.crm.test:80", "api.crm.test:8443"] {
        let mut tunnel = stage.tunnel(HOST, "http/1.1").await;
        let request = Request::get("/echo")
            .header("host", host)
            .header("agent-identity", identity("acme", "researcher"));
        let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (421, Some("misdirected")), "{host}");
        let answer = stage.get("acme", "researcher", &format!("http://{host}/echo")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().as_deref()),
            (403, Some("destination_denied")),
            "{host}"
        );
    }
    let mut tunnel = stage
        .tunnel_with(Tunnel { connect: "api.crm.test:8443", sni: HOST, alpn: &["h2"], headers: "" })
        .await;
    let request = Request::get("https://api.crm.test:8443/echo")
        .header("agent-identity", identity("acme", "researcher"));
    let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["why"].as_str()), (403, Some("no_connector")));
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_among_right_ones_on_one_connection_is_refused_alone() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let before = stage.provider.requests().len();
        for (host, status) in [(HOST, 200), (OTHER, 421), (HOST, 200), (OTHER, 421), (HOST, 200)] {
            let mut request = asks(&tunnel, "GET", "/echo");
            request.headers_mut().insert("host", host.parse().unwrap());
            assert_eq!(tunnel.call(request).await.status, status, "{alpn} {host}");
        }
        assert_eq!(stage.provider.requests().len(), before + 3, "{alpn}");
    }
    let mut direct = stage.direct().await;
    for (name, status) in [(HOST, 200), (OTHER, 403), (HOST, 200)] {
        let request = absolute("GET", &format!("http://{name}/echo"))
            .header("agent-identity", identity("acme", "researcher"));
        assert_eq!(direct.call(request.body(Body::default()).unwrap()).await.status, status);
    }
    assert_eq!(stage.provider.requests().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_host_or_with_two_is_refused() {
    let stage = Stage::open().await;
    let who = identity("acme", "researcher");
    for hosts in [
        "",
        "Host: api.crm.test\r\nHost: api.crm.test\r\n",
        "Host: api.crm.test\r\nHost: other.crm.test\r\n",
        "Host: api.crm.test, other.crm.test\r\n",
        "Host: a@api.crm.test\r\n",
        "Host:\r\n",
    ] {
        let rest = format!("{hosts}Agent-Identity: {who}\r\nConnection: close\r\n\r\n");
        let direct = wire::by_hand(&stage, format!("GET http://{HOST}/echo HTTP/1.1\r\n{rest}")).await;
        let inside = wire::by_hand_inside(&stage, format!("GET /echo HTTP/1.1\r\n{rest}")).await;
        for answer in [direct, inside] {
            assert_eq!(
                (wire::status(&answer), wire::error(&answer).as_deref()),
                (400, Some("bad_request")),
                "{hosts:?}: {answer}"
            );
        }
    }
    let origin_form =
        wire::by_hand(&stage, format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"))
            .await;
    assert_eq!(wire::error(&origin_form).as_deref(), Some("bad_request"));
    assert!(stage.provider.requests().is_empty());
}

/// A stage whose provider shows a certificate of the test's choice; returns the status and code of a request,
/// and how many requests the provider saw.
async fn certified(
    names: &[&str],
    validity: Validity,
    authority: Option<TestAuthority>,
) -> (u16, Option<String>, usize) {
    let script = Script::bind().await;
    let stage =
        Stage::set(Staging { resolve: vec![(HOST.to_owned(), script.address())], ..Staging::default() })
            .await;
    let seen =
        script.serve(authority.as_ref().unwrap_or(&stage.authority), (names, validity), "http/1.1", |_| {
            Response::new(wire::nothing())
        });
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let request = asks(&tunnel, "GET", "/echo");
        assert_eq!(tunnel.call(request).await.status, answer.status);
    }
    (answer.status.as_u16(), answer.error(), seen.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_provider_whose_certificate_is_not_for_the_name() {
    let refused = (502, Some("upstream_tls".to_owned()), 0);
    assert_eq!(certified(&[OTHER], Validity::Current, None).await, refused, "another name");
    assert_eq!(certified(&["*.test"], Validity::Current, None).await, refused, "a wildcard of another level");
    assert_eq!(certified(&[HOST], Validity::Expired, None).await, refused, "expired");
    assert_eq!(
        certified(&[HOST], Validity::Current, Some(TestAuthority::new())).await,
        refused,
        "an unknown authority"
    );
    assert_eq!(certified(&[HOST], Validity::Current, None).await, (200, None, 3), "the right one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_pass_the_guard_is_not_dialled() {
    let stage = Stage::set(Staging { allow_loopback: false, ..Staging::default() }).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    let mut answers = vec![answer];
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let request = asks(&tunnel, "GET", "/echo");
        answers.push(tunnel.call(request).await);
    }
    for answer in answers {
        let problem = answer.json();
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (403, Some("destination_denied")));
        assert_eq!((&problem["why"], &problem["host"]), (&"address".into(), &HOST.into()));
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_literal_is_judged_as_what_it_is() {
    let stage = Stage::set(Staging { allow_loopback: false, ..Staging::default() }).await;
    let own = format!("http://{}/", stage.proxy());
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://10.1.2.3/",
        "http://0.0.0.0/",
        &own,
    ] {
        let answer = stage.get("acme", "researcher", url).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().as_deref(), answer.json()["why"].as_str()),
            (403, Some("destination_denied"), Some("address")),
            "{url}"
        );
    }
    for url in
        ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://0177.0.0.1/", "http://127.0.0.1./"]
    {
        let answer = stage.get("acme", "researcher", url).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (400, Some("bad_request")), "{url}");
    }
}

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.into_iter().flat_map(|connect| NAMES.into_iter().map(move |sni| (connect, sni)))
}

async fn open(stage: &Stage, connect: &str, sni: &str, alpn: &str) -> crate::support::agent::Connection {
    let connect = format!("{connect}:443");
    stage.tunnel_with(Tunnel { connect: &connect, sni, alpn: &[alpn], headers: "" }).await
}
