//! Real clients against a real provider.
//!
//! One row a client: what it runs, which CA variable it reads, in which ways it can say who asks. Every row runs in
//! every way, once; the outcome is written to `target/clients.md`, and README shows that table.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use http::header;
use keybearer::clients::{self, SET};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{
    provider::Seen,
    stage::{SECRETS, Stage},
};

pub(crate) mod proxy;
pub(crate) mod rows;
mod table;

use rows::{Row, Tool, Way};
use table::table;

/// The host of the connector that the plain clients call.
const PLAIN: &str = "api.provider.test";
pub(crate) const NAMES: [&str; 6] =
    [PLAIN, "api.openai.com", "api.anthropic.com", "github.com", "api.github.com", "localhost"];
/// What the clients send where they must send some credential; nothing of it may arrive.
pub(crate) const PLACEHOLDER: &str = "placeholder-from-the-agent";
/// The slowest client, `CrewAI`, took 21 s on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);
pub(crate) const AT_ONCE: usize = 3;

pub(crate) struct Outcome {
    pub(crate) row: &'static Row,
    pub(crate) way: Way,
    pub(crate) end: End,
}

pub(crate) enum End {
    Passed(Value),
    Failed(String),
    Skipped(String),
}

/// All that came of running every client once.
struct Report {
    outcomes: Vec<Outcome>,
    strangers: Vec<String>,
    requests: Vec<Seen>,
}

#[test]
fn every_client_acts_with_its_own_tenants_credential() {
    let failed: Vec<String> = report().outcomes.iter().filter_map(failure).collect();
    assert!(failed.is_empty(), "{} clients failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn no_client_asks_the_proxy_for_anyone_but_the_provider() {
    assert_eq!(report().strangers, Vec::<String>::new());
}

#[test]
fn nothing_that_a_client_sent_to_authenticate_reached_the_provider() {
    let leaked = |seen: &&Seen| {
        seen.head_contains(PLACEHOLDER)
            || ["agent-identity", "proxy-authorization"].iter().any(|name| seen.headers.contains_key(*name))
    };
    // The one client that ignores proxies called `localhost` by itself.
    let through = |seen: &&Seen| !seen.authority.as_deref().is_some_and(|name| name.starts_with("localhost"));
    let found = report().requests.iter().filter(through).find(leaked);
    assert_eq!(found.map(|seen| (&seen.path, &seen.headers)), None);
}

#[test]
fn two_tenants_runs_that_share_a_tool_are_both_seen_by_the_provider() {
    let tenants: BTreeMap<&str, usize> = report()
        .requests
        .iter()
        .filter_map(|seen| seen.tenant.as_deref())
        .fold(BTreeMap::new(), |mut count, tenant| {
            *count.entry(tenant).or_default() += 1;
            count
        });
    assert_eq!(tenants.keys().copied().collect::<Vec<_>>(), ["acme", "globex"], "{tenants:?}");
}

#[test]
fn git_pushed_its_pack_whole_and_compressed_a_request() {
    let git: Vec<&Seen> = report().requests.iter().filter(|seen| seen.path.contains(".git/")).collect();
    let push = git.iter().find(|seen| seen.body.len > 20_000_000).expect("a push of 20 MB");
    assert!(push.body.sha256.is_some() && !push.headers.contains_key(header::CONTENT_LENGTH), "{push:?}");
    assert!(
        git.iter()
            .any(|seen| seen.headers.get(header::CONTENT_ENCODING).is_some_and(|value| value == "gzip"))
    );
}

#[test]
fn readme_shows_the_clients_as_they_behaved() {
    const REFRESH: &str = "TEST_REFRESH=1 cargo test --test it clients";
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&readme).unwrap();
    let (before, rest) =
        text.split_once("<!-- clients:begin -->\n").expect("README.md has a mark clients:begin");
    let (shown, after) = rest.split_once("<!-- clients:end -->").expect("README.md has a mark clients:end");
    let outcomes: Vec<&Outcome> =
        report().outcomes.iter().chain(crate::transparent::clients::outcomes()).collect();
    let table = table(&outcomes, shown);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    std::fs::write(target.join("clients.md"), &table).unwrap();
    if std::env::var_os("TEST_REFRESH").is_some() {
        let fresh = format!("{before}<!-- clients:begin -->\n{table}<!-- clients:end -->{after}");
        std::fs::write(&readme, fresh).unwrap();
        return;
    }
    assert_eq!(
        shown, table,
        "README.md does not show the clients as they behaved; refresh it with: {REFRESH}"
    );
}

/// The clients run once a process, whichever test asks first.
fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| {
        let report = to_its_end(run_all());
        let skipped = report.outcomes.iter().filter(|outcome| matches!(outcome.end, End::Skipped(_))).count();
        tell(&format!("{} runs, {skipped} skipped", report.outcomes.len()));
        report
    })
}

/// Runs what several tests ask for.
pub(crate) fn to_its_end<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

async fn run_all() -> Report {
    let stage = proxy::stage().await;
    let jobs = rows::all().flat_map(|row| row.ways.iter().map(move |way| (row, *way)));
    let outcomes =
        stream::iter(jobs).map(|(row, way)| measured(row, way, &stage)).buffered(AT_ONCE).collect().await;
    let denied = |event: &Value| event["error"] == "destination_denied";
    let events = stage.actions().await;
    let strangers =
        events.iter().filter(|event| denied(event)).map(|event| event["host"].to_string()).collect();
    Report { outcomes, strangers, requests: stage.provider.requests() }
}

async fn measured(row: &'static Row, way: Way, stage: &Stage) -> Outcome {
    let started = Instant::now();
    let outcome = Outcome { row, way, end: run(row, way, stage).await };
    announce(&outcome, started.elapsed());
    outcome
}

async fn run(row: &Row, way: Way, stage: &Stage) -> End {
    let home = tempfile::tempdir().unwrap();
    let mut command = match command(row) {
        Ok(command) => command,
        Err(missing) => return End::Skipped(missing),
    };
    settings(&mut command, row, way, stage, &home);
    ended(command).await
}

/// Runs a client to its end, and reads its line.
pub(crate) async fn ended(mut command: Command) -> End {
    let output = match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(output) => output.unwrap(),
        Err(_) => return End::Failed(format!("still running after {LIMIT:?}")),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    match line {
        Some(line) if output.status.success() && line["ok"] == true => End::Passed(line["detail"].clone()),
        Some(line) => End::Failed(line["detail"].to_string()),
        None => End::Failed(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// The command of a row, or what is missing for it.
pub(crate) fn command(row: &Row) -> Result<Command, String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let there = |path: PathBuf| {
        path.exists()
            .then_some(path.clone())
            .ok_or_else(|| format!("no {}; run tests/setup.sh", path.display()))
    };
    let program = match row.tool {
        Tool::Program(name) => on_path(name).map(|_| PathBuf::from("sh")),
        Tool::Python => there(tests.join(".cache/venv/bin/python")),
        Tool::Node => there(tests.join("clients/node_modules")).and_then(|_| on_path("node")),
        Tool::Java => on_path("java"),
        Tool::Go => there(tests.join(".cache/go/http")),
        Tool::Deno => there(tests.join("clients/node_modules/@deno")).map(|_| PathBuf::from("sh")),
    }?;
    let mut command = Command::new(program);
    command.arg(tests.join("clients").join(row.script)).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn on_path(program: &str) -> Result<PathBuf, String> {
    std::env::split_paths(&path())
        .map(|dir| dir.join(program))
        .find(|file| file.exists())
        .ok_or_else(|| format!("no {program} on PATH; run tests/setup.sh"))
}

pub(crate) fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The client sees these variables and no others: neither a proxy nor a CA of this machine's.
fn settings(command: &mut Command, row: &Row, way: Way, stage: &Stage, home: &TempDir) {
    let url = match way {
        Way::Header => format!("http://{}", stage.proxy()),
        Way::ProxyUser => stage.proxy_url("acme", "researcher"),
        Way::DeadProxy => "http://127.0.0.1:1".to_owned(),
        Way::Transparent => unreachable!("that takes a pod"),
    };
    let direct = way == Way::DeadProxy;
    let base = if direct {
        format!("{}:{}", row.base, stage.provider.address().port())
    } else {
        row.base.to_owned()
    };
    command.env_clear().env("PATH", path()).env("HOME", home.path()).env("TMPDIR", home.path());
    command.env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, &url);
    }
    command.envs(told_to_git());
    let trusted = if direct { stage.roots_file() } else { stage.ca_file() };
    command.envs(row.ca.variable(&trusted, Some(&url)));
    command.env("KB_BASE", base).env("KB_TENANTS", "acme,globex").env("KB_ROLE", "researcher");
    command.env("KB_IDENTITY", if way == Way::ProxyUser { "proxy" } else { "header" });
    if direct {
        let own = BTreeMap::from(SECRETS);
        command.env("KB_CREDENTIALS", json!(own).to_string());
    }
    command.envs(row.env.iter().copied());
}

/// How git names itself to a proxy, as `keybearer run` tells it.
fn told_to_git() -> impl Iterator<Item = (&'static str, &'static str)> {
    let told = SET.iter().filter(|variable| variable.name.starts_with("GIT_"));
    told.filter_map(|variable| match variable.value {
        clients::Value::Text(text) => Some((variable.name, text)),
        _ => None,
    })
}

pub(crate) fn announce(outcome: &Outcome, took: Duration) {
    let who = format!("{} ({:?}, {:.1} s)", outcome.row.client, outcome.way, took.as_secs_f32());
    match &outcome.end {
        End::Passed(detail) => eprintln!("clients: {who}: ok {detail}"),
        End::Failed(why) => eprintln!("clients: {who}: FAILED {why}"),
        End::Skipped(why) => tell(&format!("{who}: SKIPPED {why}")),
    }
}

/// To standard error itself: what `eprintln!` says, the test harness swallows while a test passes.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "clients: {line}");
}

/// Where everything has been installed, as `make test` does, `TEST_NO_SKIP` makes a skip a failure.
pub(crate) fn failure(outcome: &Outcome) -> Option<String> {
    match &outcome.end {
        End::Failed(why) => Some(format!("{} ({:?}): {why}", outcome.row.client, outcome.way)),
        End::Skipped(why) if std::env::var_os("TEST_NO_SKIP").is_some() => {
            Some(format!("{} skipped: {why}", outcome.row.client))
        }
        End::Skipped(_) | End::Passed(_) => None,
    }
}
