//! The provider keeps its promises, before anything is concluded from what it says about a proxy.

use axum::body::Body;
use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::support::{
    direct::{Direct, text, tls},
    provider::{Credentials, Provider, Setup, Speaks, TestAuthority, Validity},
};

const NAME: &str = "api.provider.test";
const H1: &[&str] = &["http/1.1"];
const H2: &[&str] = &["h2"];
const ANY: &[&str] = &["h2", "http/1.1"];

struct Ground {
    authority: TestAuthority,
    provider: Provider,
}

impl Ground {
    async fn new(speaks: Speaks, validity: Validity) -> Self {
        let authority = TestAuthority::new();
        let credentials = Credentials::from_iter([("acme-secret", "acme"), ("globex-secret", "globex")]);
        let setup = Setup { names: vec![NAME.to_owned()], credentials, speaks, validity, ..Setup::default() };
        let provider = Provider::start(&authority, setup).await;
        Self { authority, provider }
    }

    async fn usual() -> Self {
        Self::new(Speaks::default(), Validity::default()).await
    }

    async fn stranger(&self, offer: &[&str]) -> Direct {
        Direct::connect(self.provider.address(), &self.authority, NAME, offer).await.unwrap()
    }

    async fn acme(&self, offer: &[&str]) -> Direct {
        self.stranger(offer).await.bearer("acme-secret")
    }
}

async fn json_of(answer: http::Response<hyper::body::Incoming>) -> Value {
    serde_json::from_str(&text(answer).await).unwrap()
}

#[tokio::test]
async fn the_version_spoken_is_what_alpn_agreed_on() {
    for (speaks, version) in [
        (Speaks::Http1AndHttp2, Version::HTTP_2),
        (Speaks::Http2, Version::HTTP_2),
        (Speaks::Http1, Version::HTTP_11),
    ] {
        let ground = Ground::new(speaks, Validity::default()).await;
        assert_eq!(ground.acme(ANY).await.get("/echo").await.unwrap().version(), version);
        assert_eq!(ground.provider.requests()[0].version, version);
    }
}

#[tokio::test]
async fn a_provider_of_h1_only_refuses_a_client_of_h2_only() {
    let ground = Ground::new(Speaks::Http1, Validity::default()).await;
    assert!(Direct::connect(ground.provider.address(), &ground.authority, NAME, H2).await.is_err());
}

#[tokio::test]
async fn another_name_or_an_expired_certificate_does_not_verify() {
    let ground = Ground::usual().await;
    assert!(Direct::connect(ground.provider.address(), &ground.authority, "other.test", ANY).await.is_err());
    let ground = Ground::new(Speaks::default(), Validity::Expired).await;
    assert!(Direct::connect(ground.provider.address(), &ground.authority, NAME, ANY).await.is_err());
}

#[tokio::test]
async fn a_request_without_its_credential_is_answered_401_and_written_down() {
    let ground = Ground::usual().await;
    let mut stranger = ground.stranger(ANY).await;
    for path in ["/echo", "/v1/messages", "/acme/app.git/info/refs", "/nowhere"] {
        assert_eq!(stranger.get(path).await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let seen = ground.provider.requests();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.tenant.is_none()));
}

#[tokio::test]
async fn echo_tells_the_request_and_whose_credential_it_carried() {
    let ground = Ground::usual().await;
    let request = Request::post("/echo?q=a%20b").header("x-odd", "1").body(Body::from("hello")).unwrap();
    let answer = ground.acme(ANY).await.send(request).await.unwrap();
    assert_eq!(answer.headers()["x-provider-tenant"], "acme");
    let told = json_of(answer).await;
    assert_eq!(
        (&told["tenant"], &told["path"], &told["body"]),
        (&json!("acme"), &json!("/echo?q=a%20b"), &json!("hello"))
    );
    let headers = told["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!(["x-odd", "1"]))
            && headers.contains(&json!(["authorization", "Bearer acme-secret"]))
    );
}

#[tokio::test]
async fn anything_takes_its_credential_in_any_header_or_parameter() {
    let ground = Ground::usual().await;
    let mut stranger = ground.stranger(ANY).await;
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("any:globex-secret"));
    for (path, name, value) in [
        ("/anything?key=globex-secret", "x-none", "-"),
        ("/anything", "dd-api-key", "globex-secret"),
        ("/anything", "authorization", basic.as_str()),
    ] {
        let request = Request::get(path).header(name, value).body(Body::empty()).unwrap();
        assert_eq!(json_of(stranger.send(request).await.unwrap()).await["tenant"], "globex", "{path} {name}");
    }
}

#[tokio::test]
async fn anthropic_takes_a_key_or_a_bearer_but_not_both() {
    let ground = Ground::usual().await;
    let ask = |names: &[&str]| {
        let mut request = Request::post("/v1/messages").header(header::CONTENT_TYPE, "application/json");
        for name in names {
            request = request
                .header(*name, if *name == "x-api-key" { "acme-secret" } else { "Bearer acme-secret" });
        }
        request.body(Body::from("{}")).unwrap()
    };
    let mut client = ground.stranger(ANY).await;
    for (names, status) in [
        (&["x-api-key"][..], StatusCode::OK),
        (&["authorization"], StatusCode::OK),
        (&["x-api-key", "authorization"], StatusCode::UNAUTHORIZED),
        (&["x-api-key", "x-api-key"], StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(client.send(ask(names)).await.unwrap().status(), status, "{names:?}");
    }
}

#[tokio::test]
async fn a_journal_entry_has_the_connection_and_the_body_measured() {
    let ground = Ground::usual().await;
    for offer in [H1, H2] {
        let trailers =
            HeaderMap::from_iter([(header::HeaderName::from_static("x-end"), HeaderValue::from_static("1"))]);
        let frames =
            [Frame::data("abc".into()), Frame::trailers(trailers)].map(Ok::<_, std::convert::Infallible>);
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let request = Request::put("/upload").header(header::TRAILER, "x-end").body(body).unwrap();
        let told = json_of(ground.acme(offer).await.send(request).await.unwrap()).await;
        let seen = ground.provider.requests().pop().unwrap();
        assert_eq!(seen.body.sha256.as_deref(), told["sha256"].as_str());
        assert_eq!(
            (seen.body.len, &seen.body.trailers.unwrap()["x-end"]),
            (3, &HeaderValue::from_static("1"))
        );
        assert_eq!((seen.peer.sni.as_deref(), seen.peer.alpn.as_deref()), (Some(NAME), Some(offer[0])));
        assert_eq!((seen.method, seen.authority.as_deref()), (Method::PUT, Some(NAME)));
    }
    let seen = ground.provider.requests();
    assert_ne!(seen[0].peer.connection, seen[1].peer.connection);
    assert!(seen[0].head_contains("acme-secret") && !seen[0].head_contains("globex-secret"));
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body_and_only_to_who_may_send_it() {
    let ground = Ground::usual().await;
    for (secret, first) in [("acme-secret", "HTTP/1.1 100 Continue"), ("wrong", "HTTP/1.1 401 Unauthorized")]
    {
        let mut stream = tls(ground.provider.address(), &ground.authority, NAME, H1).await.unwrap();
        let head = format!(
            "PUT /upload HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {secret}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut begin = vec![0; first.len()];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(String::from_utf8(begin).unwrap(), first);
    }
}

#[tokio::test]
async fn bytes_are_as_many_as_asked_for() {
    let ground = Ground::usual().await;
    for count in [0, 1, 65_536, 200_001] {
        let answer = ground.acme(ANY).await.get(&format!("/bytes/{count}")).await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], count.to_string());
        assert_eq!(text(answer).await.len(), count);
    }
}

#[tokio::test]
async fn trailers_follow_the_body_in_both_versions() {
    let ground = Ground::usual().await;
    for offer in [H1, H2] {
        let request = Request::get("/trailers").header(header::TE, "trailers").body(Body::empty()).unwrap();
        let body = ground.acme(offer).await.send(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-checksum"], "of-the-body");
    }
}

#[tokio::test]
async fn a_paced_event_and_a_slow_head_come_with_the_tests_step_and_not_before() {
    let ground = Ground::usual().await;
    let mut client = ground.acme(H2).await;
    let mut events = client.get("/stream/2/paced").await.unwrap().into_body();
    for n in 0..2 {
        assert!(futures_util::poll!(events.frame()).is_pending());
        ground.provider.pace().step();
        let frame = events.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("data: event {n}\n\n"));
    }
    let mut slow = std::pin::pin!(client.get("/slow-head"));
    assert!(futures_util::poll!(&mut slow).is_pending());
    ground.provider.pace().step();
    assert_eq!(text(slow.await.unwrap()).await, "at last\n");
}

#[tokio::test]
async fn a_websocket_echoes_over_h1_upgrade_and_h2_extended_connect() {
    let ground = Ground::usual().await;
    let h1 = Request::get("/ws")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let h2 =
        Request::builder().method(Method::CONNECT).uri("/ws").extension(Protocol::from_static("websocket"));
    for (offer, request, status) in [(H1, h1, StatusCode::SWITCHING_PROTOCOLS), (H2, h2, StatusCode::OK)] {
        let mut client = ground.acme(offer).await;
        // By the first answer the client has the server's SETTINGS, which permit an extended CONNECT.
        assert_eq!(client.get("/echo").await.unwrap().status(), StatusCode::OK);
        let answer = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["x-provider-tenant"], "acme");
        let io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    }
}

#[tokio::test]
async fn grpc_repeats_a_whole_message_and_says_when_it_was_cut() {
    let ground = Ground::usual().await;
    for (path, message, times, status) in [
        ("/echo.Echo/Unary", &b"\0\0\0\0\x02ab"[..], 1, "0"),
        ("/echo.Echo/Stream", b"\0\0\0\0\x02ab", 3, "0"),
        ("/echo.Echo/Unary", b"\0\0\0\0\x03ab", 1, "13"),
    ] {
        let request =
            Request::post(path).header(header::CONTENT_TYPE, "application/grpc").body(Body::from(message));
        let answer = ground.acme(H2).await.send(request.unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], status);
        assert_eq!(body.to_bytes(), message.repeat(times));
    }
}

#[tokio::test]
async fn a_model_that_is_offered_a_tool_calls_it_until_told_its_result() {
    let ground = Ground::usual().await;
    let mut client = ground.acme(ANY).await;
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": parameters}}]);
    let mut ask = json!({"messages": [{"role": "user", "content": "?"}], "tools": tools});
    let answer = client.post("/v1/chat/completions", "application/json", ask.to_string()).await;
    let call = &serde_json::from_str::<Value>(&answer).unwrap()["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(*call, json!({"name": "look", "arguments": "{\"path\":\"echo\"}"}));
    ask["messages"] = json!([{"role": "tool", "content": "seen"}]);
    let answer = client.post("/v1/chat/completions", "application/json", ask.to_string()).await;
    assert!(answer.contains("this is the account of acme"), "{answer}");
}

#[tokio::test]
async fn a_cleartext_provider_speaks_h1_without_tls() {
    let ground = Ground::new(Speaks::Cleartext, Validity::default()).await;
    let mut stream = tokio::net::TcpStream::connect(ground.provider.address()).await.unwrap();
    let head = format!(
        "GET /echo HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer acme-secret\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
