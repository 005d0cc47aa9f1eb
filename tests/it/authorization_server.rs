//! The real authorization server does what keybearer is held against, by plain calls and through a browser.

use std::collections::BTreeMap;

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use keybearer::drain::Drain;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use crate::support::{
    authorization_server::{Answer, AuthorizationServer, CLIENT, HOST, SECRET, walk},
    browser::Browser,
    direct::{Direct, text},
    provider::TestAuthority,
};

const VERIFIER: &str = "a-verifier-of-at-least-43-characters-as-the-rfc-wants";
const ELSEWHERE: &str = "http://127.0.0.1:1/callback";

struct Ground {
    authority: TestAuthority,
    server: AuthorizationServer,
    redirect_uri: String,
}

impl Ground {
    async fn new(redirect_uri: &str) -> Self {
        let authority = TestAuthority::new();
        let server = AuthorizationServer::start(&authority, redirect_uri).await;
        Self { authority, server, redirect_uri: redirect_uri.to_owned() }
    }

    fn authorization_url(&self, more: &str) -> String {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        format!(
            "{}/auth?response_type=code&client_id={CLIENT}&redirect_uri={}&state=s1&prompt=consent\
             &scope=openid%20offline_access%20records:read%20records:write{more}\
             &code_challenge={challenge}&code_challenge_method=S256",
            self.server.issuer(),
            encode(&self.redirect_uri),
        )
    }

    async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let mut direct =
            Direct::connect(self.server.address(), &self.authority, HOST, &["http/1.1"]).await.unwrap();
        direct.send(request).await.unwrap()
    }

    /// A POST with the client as Basic.
    async fn ask(&self, path: &str, params: &[(&str, &str)]) -> (StatusCode, Value) {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT}:{SECRET}"))),
            )
            .body(form(params).into());
        let answer = self.send(request.unwrap()).await;
        let status = answer.status();
        (status, serde_json::from_str(&text(answer).await).unwrap_or_default())
    }

    async fn redeem(&self, code: &str, verifier: &str) -> (StatusCode, Value) {
        let params = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &*self.redirect_uri),
            ("code_verifier", verifier),
        ];
        self.ask("/token", &params).await
    }

    async fn refresh(&self, token: &Value) -> (StatusCode, Value) {
        let token = token.as_str().unwrap();
        self.ask("/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// A person signs in and allows all, without a browser. The address where they are sent.
    async fn consent(&self) -> String {
        let mut jar = BTreeMap::new();
        let mut at = self.authorization_url("");
        let mut forms = vec!["answer=allow&scope=records:read&scope=records:write", "login=alice"];
        while !at.starts_with(&self.redirect_uri) {
            let (_, path) = at.split_once(HOST).expect("only the server sends people about");
            let path = path.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit()).to_owned();
            let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let form = if path.starts_with("/interaction/") { forms.pop() } else { None };
            let request = Request::builder()
                .method(if form.is_some() { "POST" } else { "GET" })
                .uri(&path)
                .header(header::COOKIE, cookies.join("; "))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            let answer = self.send(request.body(form.unwrap_or_default().into()).unwrap()).await;
            for cookie in answer.headers().get_all(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                jar.insert(name.to_owned(), value.to_owned());
            }
            let location =
                answer.headers().get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned());
            let location = location.unwrap_or_else(|| panic!("{path}: {}", answer.status()));
            at = if location.starts_with('/') { format!("{HOST}{location}") } else { location };
        }
        at
    }

    async fn tokens(&self) -> Value {
        let landed = self.consent().await;
        let (status, tokens) = self.redeem(&param(&landed, "code"), VERIFIER).await;
        assert_eq!(status, StatusCode::OK, "{tokens}");
        tokens
    }
}

#[tokio::test]
async fn a_code_with_its_verifier_buys_tokens_for_what_was_allowed() {
    let ground = Ground::new(ELSEWHERE).await;
    let landed = ground.consent().await;
    assert!(landed.starts_with(ELSEWHERE), "{landed}");
    assert_eq!(param(&landed, "state"), "s1");
    assert_eq!(param(&landed, "iss"), ground.server.issuer());
    let (status, tokens) = ground.redeem(&param(&landed, "code"), VERIFIER).await;
    assert_eq!((status, &tokens["expires_in"]), (StatusCode::OK, &3600.into()), "{tokens}");
    assert_eq!(tokens["scope"], "records:read records:write");
    assert!(tokens["id_token"].is_string() && tokens["refresh_token"].is_string(), "{tokens}");
}

#[tokio::test]
async fn without_a_challenge_or_with_another_verifier_there_are_no_tokens() {
    let ground = Ground::new(ELSEWHERE).await;
    let landed = ground.consent().await;
    let (status, refusal) = ground.redeem(&param(&landed, "code"), &VERIFIER.replace("a-", "b-")).await;
    assert_eq!((status, &refusal["error"]), (StatusCode::BAD_REQUEST, &"invalid_grant".into()));
    let url = ground.authorization_url("").replace("&code_challenge=", "&x=").replace("_method", "");
    let path = url.strip_prefix(&ground.server.issuer()).unwrap();
    let answer = ground.send(Request::get(path).body(Body::empty()).unwrap()).await;
    let location = answer.headers()[header::LOCATION].to_str().unwrap();
    assert_eq!(param(location, "error"), "invalid_request", "{location}");
}

#[tokio::test]
async fn a_refresh_rotates_and_a_replay_ends_the_family() {
    let ground = Ground::new(ELSEWHERE).await;
    let first = ground.tokens().await;
    let (status, second) = ground.refresh(&first["refresh_token"]).await;
    assert_eq!(status, StatusCode::OK, "{second}");
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    let (status, refusal) = ground.refresh(&first["refresh_token"]).await;
    assert_eq!((status, &refusal["error"]), (StatusCode::BAD_REQUEST, &"invalid_grant".into()));
    let (_, refusal) = ground.refresh(&second["refresh_token"]).await;
    assert_eq!(refusal["error"], "invalid_grant", "the whole family");
    let token = second["access_token"].as_str().unwrap();
    assert_eq!(ground.ask("/token/introspection", &[("token", token)]).await.1["active"], false);
}

#[tokio::test]
async fn tokens_are_introspected_and_revoked() {
    let ground = Ground::new(ELSEWHERE).await;
    let tokens = ground.tokens().await;
    let (access, refresh) =
        (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    let (_, told) = ground.ask("/token/introspection", &[("token", access)]).await;
    assert_eq!((&told["active"], &told["sub"]), (&true.into(), &"alice".into()), "{told}");
    assert_eq!(ground.ask("/token/revocation", &[("token", refresh)]).await.0, StatusCode::OK);
    assert_eq!(ground.ask("/token/introspection", &[("token", access)]).await.1["active"], false);
    assert_eq!(ground.refresh(&tokens["refresh_token"]).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn a_client_gets_a_token_of_its_own() {
    let ground = Ground::new(ELSEWHERE).await;
    let params = [("grant_type", "client_credentials"), ("scope", "records:read")];
    let (status, tokens) = ground.ask("/token", &params).await;
    assert_eq!((status, &tokens["scope"]), (StatusCode::OK, &"records:read".into()), "{tokens}");
    assert_eq!(tokens.get("refresh_token"), None);
    let answer = ground.send(Request::post("/reg").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND, "nobody registers a client");
}

#[tokio::test]
async fn a_person_at_a_browser_signs_in_allows_and_lands_at_the_callback() {
    let mut callback = Callback::listen().await;
    let ground = Ground::new(&callback.url).await;
    let browser = Browser::start(&ground.authority).await;
    let answer = Answer::AllowWithout(&["records:write"]);
    let landed = walk(&browser, &ground.authorization_url(""), &callback.url, "alice", answer).await;
    assert_eq!(browser.text("p").await, "You may close this window");
    let asked = callback.asked.recv().await.unwrap();
    assert!(asked.contains("state=s1"), "{asked}");
    let (status, tokens) = ground.redeem(&param(&landed, "code"), VERIFIER).await;
    assert_eq!((status, &tokens["scope"]), (StatusCode::OK, &"records:read".into()), "{tokens}");
}

#[tokio::test]
async fn a_person_at_a_browser_may_decline() {
    let callback = Callback::listen().await;
    let ground = Ground::new(&callback.url).await;
    let browser = Browser::start(&ground.authority).await;
    let landed = walk(&browser, &ground.authorization_url(""), &callback.url, "alice", Answer::Deny).await;
    assert_eq!(param(&landed, "error"), "access_denied", "{landed}");
}

/// A page on loopback to be sent back to. It tells the request lines that it gets.
struct Callback {
    url: String,
    asked: mpsc::UnboundedReceiver<String>,
    _drain: Drain,
}

impl Callback {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/callback", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        let drain = Drain::default();
        drain.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 8192];
                let n = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                let _ = tell.send(request.lines().next().unwrap_or_default().to_owned());
                let page = "<!doctype html><title>Done</title><p>You may close this window</p>";
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                    page.len()
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, asked, _drain: drain }
    }
}

fn param(url: &str, name: &str) -> String {
    let query = url.split_once('?').expect("a query").1;
    let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let found = found.unwrap_or_else(|| panic!("no {name} in {url}"));
    percent_encoding::percent_decode_str(found).decode_utf8().unwrap().into_owned()
}

fn form(params: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
