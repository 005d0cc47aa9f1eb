//! The clients of `tests/it/clients`, with neither a proxy variable nor an argument that names a proxy.

use std::{collections::BTreeSet, fs, path::Path, sync::OnceLock, time::Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use super::HOST;
use crate::{
    clients::{
        AT_ONCE, End, Outcome, PLACEHOLDER, announce, command, ended, failure, path,
        proxy::{self, documented},
        rows::{AGENTS, PACKAGE_MANAGERS, Row, Way},
        to_its_end,
    },
    support::{
        pod::{Making, Pod},
        provider::{Registries, Seen},
    },
};

/// What came of running some clients once.
struct Report {
    outcomes: Vec<Outcome>,
    requests: Vec<Seen>,
    actions: Vec<Value>,
}

impl Report {
    async fn of(pod: &Pod, rows: &'static [Row]) -> Self {
        let outcomes = run_all(pod, rows.iter(), &pod.ca_file()).await;
        let requests = pod.provider.requests();
        let actions = pod.recorded_all(requests.len()).await;
        Self { outcomes, requests, actions }
    }
}

/// Each client's, as far as this machine lets us make pods.
pub(crate) fn outcomes() -> impl Iterator<Item = &'static Outcome> {
    [agents(), package_managers()].into_iter().flatten().flat_map(|report| &report.outcomes)
}

fn agents() -> Option<&'static Report> {
    static REPORT: OnceLock<Option<Report>> = OnceLock::new();
    let run = async {
        let pod = super::pod("clients", "", "").await?;
        Some(Report::of(&pod, AGENTS).await)
    };
    REPORT.get_or_init(|| to_its_end(run)).as_ref()
}

fn package_managers() -> Option<&'static Report> {
    static REPORT: OnceLock<Option<Report>> = OnceLock::new();
    let run = async {
        let pod = registries("package managers", proxy::policies(), "").await?;
        Some(Report::of(&pod, PACKAGE_MANAGERS).await)
    };
    REPORT.get_or_init(|| to_its_end(run)).as_ref()
}

/// A pod before registries. No package manager can be told to say who asks.
async fn registries(test: &str, policies: Vec<(&'static str, String)>, egress: &'static str) -> Option<Pod> {
    let config = "identity: {default: {tenant: acme, role: researcher}}";
    let registries = Registries::tiny();
    Pod::start(test, Making { policies, egress, config, registries, ..Making::default() }).await
}

#[test]
fn every_client_acts_with_its_tenants_credential_and_knows_of_no_proxy() {
    let Some(Report { outcomes, requests, .. }) = agents() else { return };
    assert_eq!(failures(outcomes), Vec::<String>::new());
    assert!(requests.iter().all(|seen| seen.tenant.is_some()), "all carried an account's credential");
    let leaked = requests
        .iter()
        .find(|seen| seen.head_contains(PLACEHOLDER) || seen.headers.contains_key("agent-identity"));
    assert_eq!(leaked.map(|seen| (&seen.path, &seen.headers)), None);
    let names: BTreeSet<&str> = requests.iter().filter_map(|seen| seen.peer.sni.as_deref()).collect();
    let expected = ["api.anthropic.com", "api.github.com", "api.openai.com", HOST, "github.com"];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn package_managers_fetch_by_a_connector_and_each_request_is_recorded() {
    let Some(Report { outcomes, requests, actions }) = package_managers() else { return };
    assert_eq!(failures(outcomes), Vec::<String>::new());
    let fetched: BTreeSet<&str> = requests.iter().filter_map(|seen| seen.authority.as_deref()).collect();
    assert_eq!(fetched, Registries::tiny().hosts().collect(), "every registry was asked");
    assert_eq!(actions.len(), requests.len(), "{actions:#?}");
    for action in actions {
        let told = ["decision", "tenant", "connector", "operation"].map(|key| action[key].as_str().unwrap());
        assert_eq!(told, ["allow", "acme", "packages", "package.get"], "{action}");
        assert!(action["account"].is_null(), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn package_managers_fetch_by_a_tunnel_and_see_the_registrys_own_certificate() {
    let tunnel = documented("egress:").strip_prefix("egress:").unwrap().trim();
    let Some(pod) = registries("opaque registries", vec![], tunnel).await else { return };
    // What is plain HTTP has no server name to pass by.
    let https = || PACKAGE_MANAGERS.iter().filter(|row| row.base.starts_with("https:"));
    let outcomes = run_all(&pod, https(), &pod.bundle_file()).await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    for host in Registries::tiny().hosts() {
        let action = pod.recorded(|action| action["host"] == host).await;
        let told = (&action["decision"], &action["rule"], &action["status"]);
        assert_eq!(told, (&"allow".into(), &"egress.tunnel".into(), &Value::Null), "{action}");
    }
    let scoped = scoped(&pod, &pod.bundle_file()).await;
    assert!(matches!(scoped, End::Passed(_)), "{:?}", why(&scoped));
}

/// Its name in a path has an encoded slash, which has two readings.
#[tokio::test(flavor = "multi_thread")]
async fn a_scoped_package_of_npm_is_refused_where_requests_are_judged() {
    let Some(pod) = registries("a scoped package", proxy::policies(), "").await else { return };
    let end = scoped(&pod, &pod.ca_file()).await;
    assert!(why(&end).is_some_and(|why| why.contains("400 Bad Request")), "{:?}", why(&end));
    pod.recorded(|action| action["error"] == "bad_request").await;
    assert!(pod.provider.requests().is_empty());
}

async fn scoped(pod: &Pod, ca: &Path) -> End {
    let npm = PACKAGE_MANAGERS.iter().find(|row| row.client == "npm").unwrap();
    let row = Row { env: &[("KB_SCOPE", "@kb/")], ..*npm };
    run(pod, &row, ca).await
}

fn why(end: &End) -> Option<&str> {
    match end {
        End::Passed(_) => None,
        End::Failed(why) | End::Skipped(why) => Some(why),
    }
}

fn failures(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().filter_map(failure).collect()
}

async fn run_all(pod: &Pod, rows: impl Iterator<Item = &'static Row>, ca: &Path) -> Vec<Outcome> {
    let measured = |row| async move {
        let started = Instant::now();
        let outcome = Outcome { row, way: Way::Transparent, end: run(pod, row, ca).await };
        announce(&outcome, started.elapsed());
        outcome
    };
    stream::iter(rows).map(measured).buffered(AT_ONCE).collect().await
}

/// Runs a client as the agents' user. It sees these variables and no others.
async fn run(pod: &Pod, row: &Row, ca: &Path) -> End {
    let home = Pod::home();
    let client = match command(row) {
        Ok(client) => client,
        Err(missing) => return End::Skipped(missing),
    };
    let client = client.as_std();
    let mut command = pod.agent(client.get_program());
    command.args(client.get_args());
    command.env_clear().env("PATH", path()).env("HOME", home.path()).env("TMPDIR", home.path());
    command.env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
    // Java does not try to open what its user may not read.
    let trusted = home.path().join("trusted.pem");
    fs::copy(ca, &trusted).unwrap();
    command.envs(row.ca.variable(&trusted, None));
    // Node's own `fetch` calls this machine elsewhere, past a proxy; here it needs no proxy.
    let base = row.base.replace("localhost", HOST);
    command.env("KB_BASE", base).env("KB_TENANTS", "acme,globex").env("KB_ROLE", "researcher");
    command.env("KB_IDENTITY", "header").envs(row.env.iter().copied());
    ended(command).await
}
