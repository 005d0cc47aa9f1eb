//! `keybearer run -- CMD`: what the command sees, and what becomes of it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use keybearer::{
    app::App,
    clients::{self, Trust},
    config::Config,
    id::Principal,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::support::{
    provider::{Credentials, Provider, Setup, TestAuthority},
    stage::{HOST, POLICY, SECRETS, account},
};

mod java;

/// A folder with a configuration, a policy and a vault with both tenants' accounts, and a provider.
struct Home {
    dir: TempDir,
    _provider: Provider,
}

impl Home {
    async fn with_proxy_at(proxy: SocketAddr) -> Self {
        keybearer::tls::init_crypto();
        let dir = tempfile::tempdir().unwrap();
        let authority = TestAuthority::new();
        let credentials: Credentials =
            SECRETS.iter().map(|(tenant, secret)| ((*secret).to_owned(), (*tenant).to_owned())).collect();
        let setup = Setup { names: vec![HOST.to_owned()], credentials, ..Setup::default() };
        let provider = Provider::start(&authority, setup).await;
        std::fs::write(dir.path().join("roots.pem"), authority.pem()).unwrap();
        std::fs::create_dir(dir.path().join("policies")).unwrap();
        std::fs::write(dir.path().join("policies/policy.yaml"), POLICY).unwrap();
        let text = format!(
            "listen: {{proxy: \"{proxy}\", admin: \"127.0.0.1:0\"}}\ndata_dir: ./data\negress:\n  roots: {{file: roots.pem}}\n  \
             allow_addresses: [127.0.0.0/8]\n  resolve: {{{HOST}: \"{}\"}}\n",
            provider.address()
        );
        std::fs::write(dir.path().join("keybearer.yaml"), text).unwrap();
        let home = Self { dir, _provider: provider };
        let app = home.proxy().await;
        for (tenant, secret) in SECRETS {
            app.vault.add(account(tenant, "crm", Principal::Tenant, secret)).await.unwrap();
        }
        app.stop().await;
        home
    }

    async fn new() -> Self {
        Self::with_proxy_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("keybearer.yaml")
    }

    /// The proxy of this home, in this process.
    async fn proxy(&self) -> App {
        App::start(Config::load(Some(&self.file())).unwrap()).await.unwrap()
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(env!("CARGO_BIN_EXE_keybearer"));
        run.arg("run").arg("--config").arg(self.file()).args(options).arg("--").args(command);
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run
    }

    fn output(&self, options: &[&str], command: &[&str]) -> Output {
        self.run(options, command).output().unwrap()
    }
}

const ACME: &[&str] = &["--tenant", "acme", "--role", "researcher"];

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `env -0` printed.
fn environment(output: &Output) -> BTreeMap<String, OsString> {
    let pairs = output.stdout.split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap();
            (String::from_utf8_lossy(&pair[..at]).into_owned(), OsString::from_vec(pair[at + 1..].to_vec()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_sees_every_variable_of_the_table_and_none_that_leads_around() {
    let home = Home::new().await;
    let options = ["--tenant", "acme", "--role", "researcher", "--user", "alice@acme.example"];
    let mut run = home.run(&options, &["env", "-0"]);
    run.env("NO_PROXY", "api.crm.test")
        .env("KEYBEARER_VAULT_KEY", "not for agents")
        .env("KEYBEARER_LOG", "warn")
        .env_remove("JAVA_TOOL_OPTIONS");
    run.envs(clients::REMOVED.iter().map(|name| (name, "elsewhere")));
    let output = run.output().unwrap();
    let seen = environment(&output);
    let url = seen["HTTP_PROXY"].clone().into_string().unwrap();
    assert!(url.starts_with("http://acme%2Fresearcher%2Falice%40acme.example:x@127.0.0.1:"), "{url}");
    let pem = Path::new(&seen["SSL_CERT_FILE"]);
    let trust = Trust { pem, store: &pem.with_extension("p12"), password: "changeit" };
    for (name, value) in clients::environment(&url, trust) {
        assert_eq!(seen.get(name), Some(&value), "{name}");
    }
    assert!(!seen.keys().any(|name| name.starts_with("KEYBEARER_")), "{seen:?}");
    assert!(!clients::REMOVED.iter().any(|name| seen.contains_key(*name)), "{seen:?}");
    assert!(!pem.parent().unwrap().exists(), "the trust bundle outlives the command");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_the_proxy_url_has_no_user_name() {
    let home = Home::new().await;
    let seen = environment(&home.output(&[], &["env", "-0"]));
    assert!(seen["HTTPS_PROXY"].to_str().unwrap().starts_with("http://127.0.0.1:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_python_call_through_it_with_nothing_told_to_them() {
    let home = Home::new().await;
    let python = "import urllib.request as u; print(u.urlopen('https://api.crm.test/echo').read().decode())";
    for command in [
        &["curl", "-sS", "https://api.crm.test/echo"][..],
        &["curl", "-sS", "http://api.crm.test/echo"],
        &["python3", "-c", python],
    ] {
        let output = home.output(ACME, command);
        assert!(
            output.status.success() && stdout(&output).contains("\"tenant\":\"acme\""),
            "{command:?}: {output:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_is_the_commands_own() {
    let home = Home::new().await;
    assert_eq!(home.output(&[], &["true"]).status.code(), Some(0));
    assert_eq!(home.output(&[], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(home.output(&[], &["sh", "-c", "kill -KILL $$"]).status.code(), Some(128 + 9));
    let missing = home.output(&[], &["no-such-command-anywhere"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(
        stderr(&missing).starts_with("error: cannot run no-such-command-anywhere"),
        "{}",
        stderr(&missing)
    );
    assert_eq!(home.output(&[], &["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(home.output(&["--role", "researcher"], &["true"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_passed_on() {
    let home = Home::new().await;
    let script = "import signal, sys\n\
        for n in (1, 2, 3, 15): signal.signal(n, lambda n, _: sys.exit(40 + n))\n\
        print('ready', flush=True)\n\
        while True: signal.pause()";
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        let mut run = home.run(&[], &["python3", "-c", script]).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(run.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), signal).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(40 + signal as i32), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_over_the_same_vault_is_used() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::with_proxy_at(port).await;
    let running = home.proxy().await;
    let output = home.output(ACME, &["sh", "-c", "echo $HTTPS_PROXY; curl -sS https://api.crm.test/echo"]);
    let said = stdout(&output);
    assert!(said.starts_with(&format!("http://acme%2Fresearcher:x@{port}\n")), "{output:?}");
    assert!(said.contains("\"tenant\":\"acme\""), "{output:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_whose_proxy_cannot_be_found_is_an_error_that_names_its_owner() {
    let home = Home::new().await;
    let running = home.proxy().await;
    let output = home.output(ACME, &["true"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&format!("keybearer proxy (pid {}", std::process::id())), "{said}");
    running.stop().await;
}
