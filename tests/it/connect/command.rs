//! The command itself: what it prints where, its exit status, and what is left when nobody waits any more.

use std::{path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    ACCOUNT,
    strict::{Ground, app, open, policy, visit},
};
use crate::support::{
    issuer::{CLIENT_SECRET, Issuer, Person, Profile, Step},
    provider::TestAuthority,
};

const CONNECT: [&str; 3] = ["account", "connect", ACCOUNT];

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keybearer"));
    command.args(arguments).current_dir(dir).env_clear().env("HOME", dir).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command ended with.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

async fn run(dir: &Path, arguments: &[&str]) -> Ended {
    let ran = command(dir, arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: ran.status.code(), out: text(ran.stdout), err: text(ran.stderr) }
}

/// `account connect` that has said what to open, and waits.
struct Waiting {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Waiting {
    async fn start(dir: &Path, more: &[&str]) -> Self {
        let mut child = command(dir, &[&CONNECT[..], more].concat()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = timeout(Duration::from_mins(1), out.next_line()).await.expect("it asks in a minute");
        Self { child, out, said: said.unwrap().expect("it says what to open") }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Its end, and what it printed after the first line.
    async fn end(mut self) -> Ended {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.into_inner().read_to_string(&mut out).await.unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        Ended { status: self.child.wait().await.unwrap().code(), out, err }
    }
}

impl Ground {
    async fn waiting(&self, more: &[&str]) -> Waiting {
        Waiting::start(self.stage.dir(), more).await
    }

    /// The person at the URL answers, and is sent back.
    async fn answered(&self, url: &str) -> String {
        open(&visit(&self.issuer, &self.stage.authority, url).await).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_the_consent_is_the_exit_status() {
    let ground = Ground::new(Profile::default(), "{}").await;
    let waiting = ground.waiting(&[]).await;
    ground.answered(&waiting.said).await;
    let ended = waiting.end().await;
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), ""), "{ended:?}");
    assert!(ended.err.contains("asks for: records:read, records:write"), "{ended:?}");
    assert!(ended.err.contains(&format!("connected {ACCOUNT} (generation 1)")), "{ended:?}");
    assert!(!ended.err.contains("note:"), "{ended:?}");

    let agrees_to = Some(vec!["read".to_owned()]);
    ground.issuer.person(Person { agrees_to, ..Person::default() });
    let waiting = ground.waiting(&[]).await;
    ground.answered(&waiting.said).await;
    let ended = waiting.end().await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.err.contains("note: not granted: records:write"), "{ended:?}");

    ground.issuer.person(Person { declines: true, ..Person::default() });
    let waiting = ground.waiting(&[]).await;
    ground.answered(&waiting.said).await;
    let ended = waiting.end().await;
    assert_eq!((ended.status, ended.out.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.err.contains("error: the consent was declined at the provider"), "{ended:?}");

    ground.issuer.person(Person::default());
    ground.issuer.script([Step::status(503)]);
    let waiting = ground.waiting(&[]).await;
    ground.answered(&waiting.said).await;
    let ended = waiting.end().await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.err.contains("error: the provider gave no tokens for the consent"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_the_question_and_the_account_a_line_each() {
    let ground = Ground::new(Profile::default(), "{}").await;
    let waiting = ground.waiting(&["--output", "json"]).await;
    let asked: Value = serde_json::from_str(&waiting.said).unwrap();
    assert_eq!(
        (&asked["account"], &asked["provider_scopes"]),
        (&ACCOUNT.into(), &["read", "write"].as_slice().into())
    );
    ground.answered(asked["url"].as_str().unwrap()).await;
    let ended = waiting.end().await;
    assert_eq!((ended.status, ended.out.lines().count()), (Some(0), 1), "{ended:?}");
    let account: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&account["status"], &account["authorization"]), (&"active".into(), &asked["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_secret_is_no_way_to_reconnect_and_the_command_says_which_is() {
    let ground = Ground::new(Profile::default(), "{}").await;
    let waiting = ground.waiting(&[]).await;
    ground.answered(&waiting.said).await;
    assert_eq!(waiting.end().await.status, Some(0));
    let pasted = ground.stage.dir().join("pasted");
    std::fs::write(&pasted, "kb-canary-pasted-7712").unwrap();
    let rotate = ["account", "rotate", ACCOUNT, "--from-file", "pasted"];
    let ended = run(ground.stage.dir(), &rotate).await;
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.err.contains(&format!("`keybearer account connect {ACCOUNT}`")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_waiting_takes_the_question_back() {
    let ground = Ground::new(Profile::default(), "{}").await;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let waiting = ground.waiting(&[]).await;
        let back = visit(&ground.issuer, &ground.stage.authority, &waiting.said).await;
        waiting.signal(signal);
        let ended = waiting.end().await;
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert!(ended.err.contains("error: stopped: nothing was connected"), "{ended:?}");
        let page = open(&back).await;
        assert!(page.contains("no question of ours is open"), "{page}");
    }
    assert!(ground.issuer.posts().is_empty());
    assert_eq!(run(ground.stage.dir(), &["account", "list"]).await.err.trim(), "no accounts");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_the_command_serves_the_callback_itself_and_leaves_nothing_behind() {
    let authority = TestAuthority::new();
    let issuer = Issuer::start(&authority, Profile::default()).await;
    let dir = alone(&issuer, &authority);
    let waiting = Waiting::start(dir.path(), &[]).await;
    let back = visit(&issuer, &authority, &waiting.said).await;
    assert!(open(&back).await.contains("is connected"));
    let ended = waiting.end().await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.err.contains("made a vault in") && ended.err.contains("connected acme/crm"), "{ended:?}");

    let before = run(dir.path(), &["account", "show", ACCOUNT, "--output", "json"]).await;
    assert_eq!(before.status, Some(0), "{before:?}");
    let waiting = Waiting::start(dir.path(), &[]).await;
    let back = visit(&issuer, &authority, &waiting.said).await;
    waiting.signal(Signal::SIGINT);
    assert_eq!(waiting.end().await.status, Some(1));
    let callback = back.strip_prefix("http://").unwrap().split('/').next().unwrap();
    assert!(TcpStream::connect(callback).await.is_err(), "nobody listens any more");
    let after = run(dir.path(), &["account", "show", ACCOUNT, "--output", "json"]).await;
    assert_eq!((after.status, after.out), (Some(0), before.out));
    let verified = run(dir.path(), &["audit", "verify"]).await;
    assert_eq!(verified.status, Some(0), "{verified:?}");
}

/// A folder with a configuration, and no proxy in it.
fn alone(issuer: &Issuer, authority: &TestAuthority) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    write("roots.pem", &authority.pem());
    write("app", CLIENT_SECRET);
    write("policy.yaml", &policy("{}", "https://auth.provider.test/token"));
    let address = issuer.address();
    write(
        "keybearer.yaml",
        &format!(
            "data_dir: data\nlisten: {{admin: '127.0.0.1:0'}}\npolicies: [policy.yaml]\negress:\n  \
             roots: {{file: roots.pem}}\n  allow_addresses: [127.0.0.0/8]\n  resolve: {{auth.provider.test: '{address}'}}\n{}",
            app()
        ),
    );
    dir
}
