//! keybearer as a user runs it: a configuration, a policy, an account added through the command line.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{Site, free_address, spawn, tail};
use crate::{
    process::{Cores, Process, pinned},
    sections::CREDENTIAL,
    wire::{self, Buffer},
};

/// Who is not ready by then has not started: one with ten thousand accounts takes longest.
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) const POLICY: &str = r#"apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: bench}
spec:
  hosts: [api.bench.test, h2.bench.test]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {"items:read": []}
  operations:
    - {name: item.get, request: "GET /v1/items/{id}", scopes: ["items:read"]}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: bench}
spec:
  tenants: [acme]
  grants:
    - {connector: bench, as: role, scopes: ["items:read"]}
"#;

/// The program that is measured: this one, or else what is built for it.
pub(crate) fn program(given: Option<&Path>) -> Result<PathBuf> {
    given.map_or_else(build, |given| Ok(given.to_owned()))
}

/// Writes the policy, makes the vault and adds the account. Returns the program and its CA's certificate.
pub(super) fn prepare(site: &Site, dir: &Path, given: Option<&Path>) -> Result<(PathBuf, PathBuf)> {
    let program = program(given)?;
    fs::create_dir_all(dir.join("policies"))?;
    fs::write(dir.join("policies/bench.yaml"), POLICY)?;
    let config = write_config(site, dir, free_address()?)?;
    command_line(&program, &config, &["vault", "init"], "")?;
    add_account(&program, &config)?;
    Ok((program, dir.join("ca/ca.pem")))
}

/// Adds the account that the provider takes.
pub(crate) fn add_account(program: &Path, config: &Path) -> Result<()> {
    let account = ["account", "add", "--tenant", "acme", "--connector", "bench", "--role", "bench"];
    command_line(program, config, &account, CREDENTIAL)
}

pub(super) fn configure(command: &mut Command, site: &Site, dir: &Path, listen: SocketAddr) -> Result<()> {
    let config = write_config(site, dir, listen)?;
    command.arg("proxy").arg("--config").arg(config);
    Ok(())
}

/// Writes the configuration of one start. Its audit begins anew: at tens of thousands of events a second, a
/// run's would be gigabytes.
fn write_config(site: &Site, dir: &Path, listen: SocketAddr) -> Result<PathBuf> {
    configuration(site, dir, listen, SLED)
}

/// The vault's section where the vault is the proxy's own.
pub(crate) const SLED: &str = "{backend: sled, key: {file: vault.key}}";

/// The same over the vault of this section.
pub(crate) fn configuration(site: &Site, dir: &Path, listen: SocketAddr, vault: &str) -> Result<PathBuf> {
    configuration_at(site, dir, (listen, free_address()?), vault)
}

/// The same with an address for people that the caller knows.
pub(crate) fn configuration_at(
    site: &Site,
    dir: &Path,
    (listen, admin): (SocketAddr, SocketAddr),
    vault: &str,
) -> Result<PathBuf> {
    let audit = dir.join("audit");
    if audit.exists() {
        fs::remove_dir_all(&audit)?;
    }
    fs::create_dir_all(&audit)?;
    let resolve: Vec<String> =
        site.routes().iter().map(|(host, address)| format!("\"{host}\": \"{address}\"")).collect();
    let text = format!(
        r#"listen: {{proxy: "{listen}", admin: "{admin}"}}
data_dir: data
identity: {{mode: open}}
policies: [policies]
egress:
  allow_addresses: ["127.0.0.0/8"]
  resolve: {{{resolve}}}
  roots: {{file: "{roots}"}}
vault: {vault}
audit: {{file: audit/audit.jsonl, durability: batch}}
ca: {{dir: ca}}
"#,
        resolve = resolve.join(", "),
        roots = site.certs.ca.display(),
    );
    let path = dir.join("keybearer.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Starts what this command is, whose log is beside its configuration, and waits until it is ready. Says how long that
/// took.
pub(crate) async fn start(
    program: &Path,
    cores: Option<Cores>,
    words: &[&str],
    config: &Path,
    is_ready: impl AsyncFn() -> bool,
) -> Result<(Process, Duration)> {
    let log = config.with_file_name("log");
    let mut command = pinned(program, cores);
    let begun = Instant::now();
    let mut process = spawn(command.args(words).arg("--config").arg(config), &log)?;
    while !is_ready().await {
        let ended = process.0.try_wait()?;
        ensure!(ended.is_none() && begun.elapsed() < LIMIT, "keybearer did not start; {}", tail(&log));
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok((process, begun.elapsed()))
}

/// Whether it says so itself.
pub(crate) async fn is_ready(admin: SocketAddr) -> bool {
    let asked = async || -> Result<u16> {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: sidecar\r\n\r\n").await?;
        let mut buffer = Buffer::new();
        let head = buffer.head(&mut stream).await?.context("it hung up")?;
        Ok(wire::status(head)?)
    };
    asked().await.is_ok_and(|status| status == 200)
}

/// Runs one of keybearer's commands with `input` on its standard input.
pub(crate) fn command_line(program: &Path, config: &Path, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // A command that reads nothing may have gone already; its status tells.
    let _unread = child.stdin.take().context("no standard input")?.write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "keybearer {} failed: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// Builds the program as users get it.
fn build() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/release");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}
