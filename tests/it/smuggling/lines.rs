//! Where a line, a field and a request end (RFC 9112 §2, §3 and §5).

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Case,
    Follows::{No, Yes},
    Form, Wire, case, filled,
};
use crate::support::raw::{Script, message};

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_one_reading_or_is_refused() {
    Wire::open().await.hold(Form::Absolute, LINES).await;
}

const LINES: &[Case] = &[
    case("\r\n\r\nGET {U} HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    // A bare LF ends a line (RFC 9112 §2.2 allows it); every line leaves with CRLF.
    case("GET {U} HTTP/1.1\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case("GET {U} HTTP/1.1\r\nHost: wire.test\n{I}\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case(
        "GET {U} HTTP/1.1\r\n{H}X-A: a\nCookie: b\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\nx-a: a\r\n\r\n"],
    ),
    case("GET {U} HTTP/1.1\r\n{H}X-A: a\rb\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}X-A: a\r\n b\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}X-A : a\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H} X-A: a\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n X-A: a\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}X-A: a\0b\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}X-A\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}: a\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}X(A): a\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1\r\n{H}X-\u{e9}: a\r\n\r\n", &[400], No, &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_has_one_reading_or_is_refused() {
    Wire::open().await.hold(Form::Absolute, REQUEST_LINES).await;
}

const REQUEST_LINES: &[Case] = &[
    case("GET {U} HTTP/1.0\r\n{H}\r\n", &[200], No, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case("GET {U} HTTP/1.0\r\n{I}\r\n", &[200], No, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case(
        "GET {U} HTTP/1.0\r\n{H}Connection: keep-alive\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case("GET {U}\r\n", &[400], No, &[]),
    case("GET {X}\r\n\r\n", &[400], No, &[]),
    case("GET {U} HTTP/0.9\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.2\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U} HTTP/2.0\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U} http/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U} HTTP/1.1 \r\n{H}\r\n", &[400], No, &[]),
    case("GET  {U} HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET\t{U}\tHTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U} y HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("G@T {U} HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    // Methods are case-sensitive, and these are none of the connector's.
    case("get {U} HTTP/1.1\r\n{H}\r\n", &[403, 200], Yes, &[]),
    case("PRI {U} HTTP/1.1\r\n{H}\r\n", &[403, 200], Yes, &[]),
    case("TRACE {U} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    // The other forms of a target do not belong here, or are no URL.
    case("GET {X} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("GET //wire.test{X} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("GET wire.test:80 HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("OPTIONS * HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("GET http:wire.test{X} HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET http:///wire.test{X} HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET file:///etc/passwd HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET ws://wire.test{X} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("GET HTTP://wire.test{X} HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    // A user name is dropped; two `@` are two readings of where it ends.
    case(
        "GET http://user:pw@wire.test{X} HTTP/1.1\r\n{H}\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case("GET http://a@evil.test@wire.test{X} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("GET http://wire.test@evil.test{X} HTTP/1.1\r\n{H}\r\n", &[421, 200], Yes, &[]),
    case("GET http://wire.test\\@evil.test{X} HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    // A fragment is the agent's own affair.
    case("GET {U}#/../y HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case("GET {U}?a=1#b?c HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X}?a=1 HTTP/1.1\r\n\r\n"]),
    // A query keeps its bytes, or is refused.
    case(
        "GET {U}?a?b/../c;d=%2e%zz HTTP/1.1\r\n{H}\r\n",
        &[200, 200],
        Yes,
        &["GET {X}?a?b/../c;d=%2e%zz HTTP/1.1\r\n\r\n"],
    ),
    case("GET {U}?a=\"<> HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    case("GET {U}?a=\0 HTTP/1.1\r\n{H}\r\n", &[400], No, &[]),
    // No path is the path `/`, which is none of the connector's.
    case("GET http://wire.test HTTP/1.1\r\n{H}\r\n", &[403, 200], Yes, &[]),
    case("GET http://wire.test?x=1 HTTP/1.1\r\n{H}\r\n", &[403, 200], Yes, &[]),
    // CONNECT opens no tunnel to what is not a host and a port.
    case("CONNECT {X} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("CONNECT wire.test HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    case("CONNECT wire.test:80 HTTP/1.1\r\nHost: wire.test:81\r\n\r\n", &[421, 200], Yes, &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_target_inside_a_tunnel_is_the_tunnels() {
    let table = [
        case("GET {X} HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
        case("GET {U} HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
        case("GET http://evil.test{X} HTTP/1.1\r\n{H}\r\n", &[421, 200], Yes, &[]),
        case("GET http://wire.test:81{X} HTTP/1.1\r\n{H}\r\n", &[421, 200], Yes, &[]),
        case("GET {X} HTTP/1.1\r\nHost: evil.test\r\n{I}\r\n", &[421, 200], Yes, &[]),
        case("GET //evil.test{X} HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
        case("GET {X} HTTP/1.1\r\n{I}\r\n", &[400, 200], Yes, &[]),
        case("GET {X} HTTP/1.0\r\n{I}\r\n", &[400], No, &[]),
        case("OPTIONS * HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
        case("CONNECT wire.test:80 HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
        case("CONNECT evil.test:443 HTTP/1.1\r\n{H}\r\n", &[400, 200], Yes, &[]),
    ];
    Wire::open().await.hold(Form::Origin, &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_refused_in_our_words_and_on_record() {
    let wire = Wire::open().await;
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(101));
    for (bytes, status) in [("GET / HTP/1.1\r\n\r\n", 400), (&*many, 431)] {
        for form in [Form::Absolute, Form::Origin] {
            let mut stream = wire.opened(form).await;
            let after = filled("GET {U} HTTP/1.1\r\n{H}\r\n", form, 0);
            stream.write_all(after.as_bytes()).await.unwrap();
            assert!(message(&mut stream).await.unwrap().starts_with(b"HTTP/1.1 200 "));
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
            assert!(
                head.contains("details=\"bad_request\"") && head.contains("connection: close"),
                "{answer}"
            );
            assert_eq!((&problem["error"], &problem["status"]), (&"bad_request".into(), &status.into()));
            let event = wire.stage.action(problem["action_id"].as_str().unwrap()).await;
            assert_eq!((&event["error"], &event["decision"]), (&"bad_request".into(), &"deny".into()));
            let led_to = matches!(form, Form::Origin).then_some("wire.test:80");
            assert_eq!((&event["status"], event["host"].as_str()), (&status.into(), led_to));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_says_is_never_taken_for_ours() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n";
    let wire = Wire::before(Script::Answer(answer)).await;
    let mut stream = wire.opened(Form::Absolute).await;
    for number in 0..3 {
        stream
            .write_all(filled("GET {U} HTTP/1.1\r\n{H}\r\n", Form::Absolute, number).as_bytes())
            .await
            .unwrap();
        let answer = message(&mut stream).await.unwrap();
        assert!(answer.ends_with(b"\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n"), "{number}");
    }
}
