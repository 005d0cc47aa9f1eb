//! The admin side of a running proxy: its socket, its API, its health, and who may ask.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::{Duration, Instant},
};

use http::StatusCode;
use keybearer::{
    admin::{Client, Command, Error, Reply},
    drain::Drain,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpStream, UnixStream},
};

use crate::{
    cli::Desk,
    support::stage::{POLICY, SECRETS, Stage, Staging},
};

const TOKEN: &str = "kb-admin-token-0123456789abcdefghijk";
const ACCOUNT: &str = "acme/crm/tenant";

/// Sends one request as it is written, and reads the answer to its end.
async fn exchange(mut io: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// `GET path` with a `Host` header.
async fn get(to: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let io = TcpStream::connect(to).await.unwrap();
    exchange(io, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await
}

fn command(authorization: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\n{authorization}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

async fn client(stage: &Stage) -> Client {
    let socket = stage.dir().join("data/admin.sock");
    Client::find(&socket, &Drain::default()).await.unwrap().unwrap()
}

async fn with_token() -> Stage {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), format!("{TOKEN}\n")).unwrap();
    let config = format!("admin: {{token_file: {}}}\n", token.path().display());
    Stage::set(Staging { config, ..Staging::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_next_request() {
    let stage = Stage::open().await;
    let ask = async || stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    let client = client(&stage).await;
    let account = ACCOUNT.parse().unwrap();
    assert_eq!(ask().await.status, StatusCode::OK);
    client.execute(&Command::Freeze { account, by: "alice".to_owned() }).await.unwrap();
    let refused = ask().await;
    assert_eq!(refused.error().as_deref(), Some("account_frozen"));
    assert_eq!(refused.json()["by"], "alice");
    client.execute(&Command::Unfreeze { account: ACCOUNT.parse().unwrap() }).await.unwrap();
    assert_eq!(ask().await.status, StatusCode::OK);
    client.execute(&Command::Revoke { account: ACCOUNT.parse().unwrap() }).await.unwrap();
    assert_eq!(ask().await.error().as_deref(), Some("auth_revoked"));
    let Ok(Reply::Removed(_)) = client.execute(&Command::Remove { account: ACCOUNT.parse().unwrap() }).await
    else {
        panic!("the account was not removed")
    };
    assert_eq!(ask().await.error().as_deref(), Some("account_missing"));
    let told = stage.events().await;
    let told: Vec<_> = told.iter().filter(|e| e["kind"] == "account").map(|e| e["event"].clone()).collect();
    assert_eq!(told, ["account.frozen", "account.unfrozen", "account.revoked", "account.removed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_users_alone_and_goes_with_the_proxy() {
    let stage = Stage::open().await;
    let socket = stage.dir().join("data/admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let client = client(&stage).await;
    let missing = client.execute(&Command::Show { account: "acme/crm/developer".parse().unwrap() }).await;
    assert!(matches!(missing, Err(Error::Refused(fault)) if fault.error == "account_missing"));
    stage.stop().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_told_without_quoting_it() {
    let stage = Stage::open().await;
    let secret = SECRETS[0].1;
    for wrong in [
        secret.to_owned(),
        format!("\"{secret}\""),
        format!(r#"{{"add": "{secret}"}}"#),
        format!(r#"{{"add": {{"account": "{secret}", "secrets": {{"token": "{secret}"}}}}}}"#),
        format!(r#"{{"add": {{"account": "acme/crm/tenant", "secrets": "{secret}"}}}}"#),
        format!(r#"{{"{secret}": {{}}}}"#),
    ] {
        let io = UnixStream::connect(stage.dir().join("data/admin.sock")).await.unwrap();
        let (status, answer) = exchange(io, &command("", &wrong)).await;
        assert_eq!(status, 400, "{answer}");
        assert!(!answer.contains(secret), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_on_tcp_is_not_there_without_a_token_and_closed_without_the_right_one() {
    let list = r#"{"list": {}}"#;
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let ask = async |stage: &Stage, authorization: String| {
        let io = TcpStream::connect(stage.app().admin).await.unwrap();
        exchange(io, &command(&authorization, list)).await
    };
    assert_eq!(ask(&Stage::open().await, bearer(TOKEN)).await.0, 404);
    let stage = with_token().await;
    for wrong in [String::new(), bearer(""), bearer(&TOKEN[1..]), format!("authorization: Basic {TOKEN}\r\n")]
    {
        assert_eq!(ask(&stage, wrong).await.0, 401);
    }
    let (status, answer) = ask(&stage, bearer(TOKEN)).await;
    assert_eq!(status, 200);
    let accounts: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(accounts["accounts"][0]["account"], ACCOUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_from_elsewhere_is_refused_whatever_it_asks() {
    let stage = with_token().await;
    let at = stage.app().admin;
    for path in ["/metrics", "/healthz", "/readyz", "/connect/acme/crm", "/nothing"] {
        assert_eq!(get(at, "attacker.example", path).await.0, 421, "{path}");
        assert_ne!(get(at, &at.to_string(), path).await.0, 421, "{path}");
    }
    let rebound = command(&format!("authorization: Bearer {TOKEN}\r\n"), r#"{"list": {}}"#)
        .replace("host: localhost", "host: attacker.example");
    let io = TcpStream::connect(at).await.unwrap();
    assert_eq!(exchange(io, &rebound).await.0, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_what_is_wrong_and_recovers() {
    let stage = Stage::open().await;
    let at = stage.app().admin;
    let ready = async || {
        let (status, answer) = get(at, "localhost", "/readyz").await;
        (status, serde_json::from_str::<Value>(body(&answer)).unwrap())
    };
    let becomes = async |wanted: u16| {
        let begun = Instant::now();
        loop {
            let (status, told) = ready().await;
            if status == wanted {
                return told;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{status} {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(ready().await, (200, json!({"ready": true})));
    stage.write_policy(
        "policy.yaml",
        &POLICY.replace("connector: crm, as: tenant", "connector: crn, as: tenant"),
    );
    let told = becomes(503).await;
    assert_eq!(told["not_ready"][0]["what"], "policy");
    assert!(told["not_ready"][0]["why"].as_str().unwrap().contains("crn"), "{told}");
    assert_eq!(get(at, "localhost", "/healthz").await.0, 200);
    stage.write_policy("policy.yaml", POLICY);
    assert_eq!(becomes(200).await, json!({"ready": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_and_name_no_secret() {
    let stage = Stage::open().await;
    stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    let (status, answer) = get(stage.app().admin, "localhost", "/metrics").await;
    assert_eq!(status, 200);
    assert!(answer.contains("keybearer_requests_total") && answer.contains("text/plain"), "{answer}");
    assert!(!answer.contains(SECRETS[0].1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_behind_a_reconnect_url_names_the_command() {
    let stage = Stage::set(Staging { accounts: vec![], ..Staging::default() }).await;
    let refused = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(refused.error().as_deref(), Some("account_missing"));
    let url = refused.json()["reconnect_url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{}", stage.app().admin)).unwrap();
    let (status, page) = get(stage.app().admin, "localhost", path).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("keybearer account add --tenant acme --connector crm --tenant-wide"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    for (path, status) in [
        ("/connect/acme/crm?as=role:%3Cscript%3E", 400),
        ("/connect/%3Cb%3E/crm?as=tenant", 400),
        ("/connect/acme/crm?as=nobody", 400),
        ("/connect/acme/none?as=tenant", 404),
    ] {
        let (found, page) = get(stage.app().admin, "localhost", path).await;
        assert_eq!(found, status, "{path}");
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    }
}

/// `keybearer proxy` as a process.
struct Running {
    child: tokio::process::Child,
    greeting: String,
}

impl Running {
    async fn start(desk: &Desk) -> Self {
        Self::start_by(tokio::process::Command::from(desk.command(&["proxy"]))).await
    }

    async fn start_by(mut command: tokio::process::Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let greeting = loop {
            let line = lines.next_line().await.unwrap().expect("the proxy starts");
            if line.contains("agents at") {
                break line;
            }
        };
        // Somebody has to read on, or the proxy's next line is its last.
        Drain::default().detach(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, greeting }
    }

    async fn stop(mut self) -> i32 {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().await.unwrap().code().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_the_proxy_that_runs_and_to_the_vault_when_none_does() {
    let desk = Desk::new();
    desk.add();
    let proxy = Running::start(&desk).await;
    assert!(proxy.greeting.contains("2 connectors, 1 role, 1 account"), "{}", proxy.greeting);
    let frozen = desk.done(&["account", "freeze", "acme/crm/role:researcher", "--output", "json"], "").json();
    assert_eq!(frozen["status"], "frozen");
    assert_eq!(
        desk.done(&["vault", "status", "--output", "json"], "").json()["accounts"]["crm"]["frozen"],
        1
    );
    desk.done(&["vault", "init"], "");
    let again = desk.run(&["account", "freeze", "acme/crm/tenant"], "");
    assert_eq!(again.status, 1);
    assert!(again.err.starts_with("error: there is no account acme/crm/tenant\nhint: "), "{again:?}");
    assert_eq!(proxy.stop().await, 0);
    let shown = desk.done(&["account", "show", "acme/crm/role:researcher", "--output", "json"], "").json();
    assert_eq!(shown["generation"], 2);
    desk.done(&["audit", "verify"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_policy_files_are_bad_the_proxy_that_runs_says_what_an_account_is_given() {
    let desk = Desk::new();
    desk.add();
    let proxy = Running::start(&desk).await;
    std::fs::write(desk.dir.path().join("policies/torn.yaml"), "apiVersion: keybearer.dev/v1\nkind: Ro")
        .unwrap();
    desk.done(&["account", "rotate", "acme/crm/role:researcher"], "kb-canary-rotated-0123");
    desk.done(
        &["account", "add", "acme/metrics/tenant", "--meta", "site=eu1"],
        r#"{"api_key": "kb-canary-a-0123", "app_key": "kb-canary-b-0123"}"#,
    );
    let unknown = desk.run(&["account", "add", "acme/crn/tenant"], "kb-canary-unknown-0123");
    assert!(unknown.err.contains("no connector crn; did you mean `crm`?"), "{unknown:?}");
    assert_eq!(proxy.stop().await, 0);
    let without = desk.run(&["account", "rotate", "acme/crm/role:researcher"], "kb-canary-again-0123");
    assert!(without.err.contains("torn.yaml"), "{without:?}");
}

/// A shell lets a program open 1,024 files at first; a tunnel takes two.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_opens_as_many_files_as_the_system_lets_it() {
    let desk = Desk::new();
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", "ulimit -Sn 64 && exec \"$0\" proxy", env!("CARGO_BIN_EXE_keybearer")]);
    shell.current_dir(desk.dir.path()).env_clear().env("HOME", desk.dir.path());
    let proxy = Running::start_by(shell).await;
    let (_, after) = proxy.greeting.split_once("admin at http://").unwrap();
    let admin = after.split(',').next().unwrap().parse().unwrap();
    let (_, metrics) = get(admin, "localhost", "/metrics").await;
    let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    assert!(metrics.contains(&format!("\nprocess_max_fds {most}\n")), "{metrics}");
    assert_eq!(proxy.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_takes_another_vault_key_and_the_next_start_needs_it() {
    let desk = Desk::new();
    desk.add();
    let proxy = Running::start(&desk).await;
    let rotated = desk.done(&["vault", "rotate-key", "--to-file", "new.key", "--output", "json"], "");
    assert!(rotated.err.contains("made the key new.key"), "{rotated:?}");
    let to = rotated.json()["to"].as_str().unwrap().to_owned();
    assert!(rotated.err.contains(&format!("sealed with the key {to} now")), "{rotated:?}");
    let status =
        |with: &[&str]| desk.done(&[&["vault", "status", "--output", "json"], with].concat(), "").json();
    assert_eq!(
        (&status(&[])["key_fingerprint"], &status(&[])["accounts"]["crm"]["active"]),
        (&to.clone().into(), &1.into())
    );
    desk.done(&["account", "add", "globex/crm/tenant"], "kb-0123456789");
    assert_eq!(proxy.stop().await, 0);

    let refused = desk.run(&["vault", "status"], "");
    assert!(refused.status == 1 && refused.err.contains(&format!("sealed with the key {to}")), "{refused:?}");
    std::fs::rename(desk.dir.path().join("new.key"), desk.dir.path().join("data/vault.key")).unwrap();
    assert_eq!(status(&[])["accounts"]["crm"]["active"], 2);
    let events = desk.done(&["audit", "query", "--kind", "system", "--output", "json"], "").out;
    let told = events.lines().find(|line| line.contains("vault.key_rotated")).unwrap();
    assert!(told.contains(&format!("to {to}")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_another_process_has_is_told_with_its_owner() {
    let desk = Desk::new();
    desk.add();
    let proxy = Running::start(&desk).await;
    std::fs::remove_file(desk.dir.path().join("data/admin.sock")).unwrap();
    let refused = desk.run(&["account", "list"], "");
    assert_eq!(refused.status, 1);
    let owner = format!("in use by keybearer proxy (pid {}", proxy.child.id().unwrap());
    assert!(refused.err.contains(&owner), "{refused:?}");
}
