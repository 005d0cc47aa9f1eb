//! A real browser: Debian's Chromium without a window, driven through its `WebDriver`.
//!
//! It reaches loopback only: names that end in `.test` are 127.0.0.1, and all others do not exist.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keybearer::drain::Drain;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::provider::TestAuthority;

/// How `WebDriver` names an element in its answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What Chromium must be told so that it asks for nothing from outside.
const QUIET: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// One window with nothing remembered. It closes when dropped.
pub(crate) struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Child,
    _dir: TempDir,
}

impl Browser {
    /// Opens a window that trusts the authority.
    ///
    /// # Panics
    /// If `tests/setup.sh` has not installed Chromium and its driver.
    pub(crate) async fn start(authority: &TestAuthority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", dir.path())
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is there: run tests/setup.sh");
        let port = timeout(Duration::from_mins(1), port(&mut process)).await.expect("it starts in a minute");
        let driver = SocketAddr::from(([127, 0, 0, 1], port));
        let mut args: Vec<String> = QUIET.iter().map(|arg| (*arg).to_owned()).collect();
        args.push(format!("--user-data-dir={}", dir.path().join("profile").display()));
        args.push(format!("--ignore-certificate-errors-spki-list={}", authority.pin()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args},
            "timeouts": {"implicit": 30_000},
        }}});
        let made = ask(driver, Method::POST, "/session", wanted).await;
        let session = made["sessionId"].as_str().unwrap().to_owned();
        Self { driver, session, _process: process, _dir: dir }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("url", json!({"url": url})).await;
    }

    /// Types into a field.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.post(&format!("element/{element}/value"), json!({"text": text})).await;
    }

    /// Clicks. Whether a page that it leads to is there already, [`Browser::find`] and [`Browser::lands_at`] see to.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("element/{element}/click"), json!({})).await;
    }

    /// What an element shows.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        let text = self.get(&format!("element/{element}/text")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the window is at an address that begins so, and gives it.
    pub(crate) async fn lands_at(&self, beginning: &str) -> String {
        let landed = async {
            loop {
                let url = self.get("url").await.as_str().unwrap().to_owned();
                if url.starts_with(beginning) {
                    return url;
                }
            }
        };
        timeout(Duration::from_mins(1), landed).await.unwrap_or_else(|_| panic!("never came to {beginning}"))
    }

    /// Waits for the element if it is not there yet.
    async fn find(&self, selector: &str) -> String {
        let found = self.post("element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        ask(self.driver, Method::POST, &format!("/session/{}/{command}", self.session), body).await
    }

    async fn get(&self, command: &str) -> Value {
        ask(self.driver, Method::GET, &format!("/session/{}/{command}", self.session), Value::Null).await
    }
}

impl Drop for Browser {
    /// Chromium is the driver's child: without this it would outlive the test.
    fn drop(&mut self) {
        let Ok(mut driver) = TcpStream::connect(self.driver) else { return };
        let _ = driver.set_read_timeout(Some(Duration::from_secs(10)));
        let session = &self.session;
        let _ = write!(
            driver,
            "DELETE /session/{session} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        let _ = driver.read_to_end(&mut Vec::new());
    }
}

/// The port that the driver says it listens on.
async fn port(process: &mut Child) -> u16 {
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the driver says where it listens");
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().unwrap();
        }
    }
}

/// One `WebDriver` command and the value that it gives.
async fn ask(driver: SocketAddr, method: Method, path: &str, body: Value) -> Value {
    let socket = tokio::net::TcpStream::connect(driver).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    let drain = Drain::default();
    drain.spawn(connection);
    let body = if method == Method::GET { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
    let value = answer["value"].take();
    assert!(value.get("error").is_none(), "{path}: {value}");
    value
}
