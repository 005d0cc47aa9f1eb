//! The clients of `tests/it/clients`, with neither a proxy variable nor an argument that names a proxy.

use std::{io::Write as _, time::Instant};

use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::process::Command;

use super::HOST;
use crate::{
    clients::{
        AT_ONCE, End, PLACEHOLDER, command, ended, path,
        rows::{ROWS, Row},
    },
    support::pod::Pod,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_client_acts_with_its_tenants_credential_and_knows_of_no_proxy() {
    let Some(pod) = super::pod("clients", "", "").await else { return };
    let failed: Vec<String> = stream::iter(ROWS)
        .map(|row| run(&pod, row))
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "{} clients failed:\n{}", failed.len(), failed.join("\n"));

    let requests = pod.provider.requests();
    assert!(requests.iter().all(|seen| seen.tenant.is_some()), "all carried an account's credential");
    let leaked = requests
        .iter()
        .find(|seen| seen.head_contains(PLACEHOLDER) || seen.headers.contains_key("agent-identity"));
    assert_eq!(leaked.map(|seen| (&seen.path, &seen.headers)), None);
    let names: std::collections::BTreeSet<&str> =
        requests.iter().filter_map(|seen| seen.peer.sni.as_deref()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["api.anthropic.com", "api.openai.com", HOST, "github.com"]
    );
}

/// Runs a client as the agents' user; says why where it failed.
async fn run(pod: &Pod, row: &Row) -> Option<String> {
    let (home, started) = (Pod::home(), Instant::now());
    let end = match command(row) {
        Ok(command) => ended(settings(pod, &command, row, &home)).await,
        Err(missing) => End::Skipped(missing),
    };
    let (outcome, why) = match end {
        End::Passed(detail) => (format!("ok {detail}"), None),
        End::Failed(why) | End::Skipped(why) => {
            (format!("FAILED {why}"), Some(format!("{}: {why}", row.client)))
        }
    };
    let took = started.elapsed().as_secs_f32();
    let _ = writeln!(std::io::stderr().lock(), "transparent: {} ({took:.1} s): {outcome}", row.client);
    why
}

/// The client in the pod. It sees these variables and no others.
fn settings(pod: &Pod, client: &Command, row: &Row, home: &TempDir) -> Command {
    let client = client.as_std();
    let mut command = pod.agent(client.get_program());
    command.args(client.get_args());
    command.env_clear().env("PATH", path()).env("HOME", home.path()).env("TMPDIR", home.path());
    command.env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
    if !row.ca.is_empty() {
        command.env(row.ca, pod.ca_file());
    }
    // Node's own `fetch` calls this machine elsewhere, past a proxy; here it needs no proxy.
    let base = row.base.replace("localhost", HOST);
    command.env("KB_BASE", base).env("KB_TENANTS", "acme,globex").env("KB_ROLE", "researcher");
    command.env("KB_IDENTITY", "header").envs(row.env.iter().copied());
    command
}
