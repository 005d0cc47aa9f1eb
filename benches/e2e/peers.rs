//! The proxies that are compared: how each is found, configured and started.

mod envoy;
pub(crate) mod keybearer;
mod mitmproxy;

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    certs::{self, Certs},
    load::Load,
    process::{Cores, Process, pinned},
    provider::Provider,
    sections::{AGENTS_OWN, CREDENTIAL, H1_HOST, H2_HOST, Item, Section, Way},
};

/// A proxy must answer within this after its start.
const READY: Duration = Duration::from_secs(20);

/// Everything a proxy is configured with.
pub(crate) struct Site {
    /// For configurations, logs and stores; removed at the end.
    pub(crate) dir: PathBuf,
    pub(crate) certs: Certs,
    pub(crate) provider: Provider,
    pub(crate) cores: Option<Cores>,
}

impl Site {
    /// Which address stands for which host.
    pub(crate) fn routes(&self) -> [(&'static str, SocketAddr); 2] {
        [(H1_HOST, self.provider.h1), (H2_HOST, self.provider.h2)]
    }

    /// A folder of the proxy's own.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Relay,
    Keybearer,
    Envoy,
    Mitmproxy,
}

impl Kind {
    /// In the order of a round: the yardstick first.
    pub(crate) const ALL: [Self; 4] = [Self::Relay, Self::Keybearer, Self::Envoy, Self::Mitmproxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Keybearer => "keybearer",
            Self::Envoy => "envoy",
            Self::Mitmproxy => "mitmproxy",
        }
    }

    /// The way a proxy goes in a section: a relay knows no absolute-form, its CONNECT is the yardstick there.
    pub(crate) fn way(self, section: &Section) -> Way {
        match (self, section.way) {
            (Self::Relay, Way::Absolute) => Way::Tunnel,
            (_, way) => way,
        }
    }
}

/// A proxy that can be started.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    program: PathBuf,
    /// The CA of the certificates that clients see through it.
    ca: PathBuf,
}

/// A proxy that answers.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// From start to first proxied answer.
    pub(crate) ready: Duration,
    /// After that answer, MB.
    pub(crate) idle_rss: f64,
}

impl Peer {
    /// Finds the program and prepares what outlives a start (accounts, CAs).
    pub(crate) fn prepare(kind: Kind, site: &Site, keybearer: Option<&Path>) -> Result<Self> {
        let dir = site.folder(kind.name())?;
        let (program, ca) = match kind {
            Kind::Relay => (std::env::current_exe()?, site.certs.ca.clone()),
            Kind::Keybearer => keybearer::prepare(site, &dir, keybearer)?,
            Kind::Envoy => (envoy::program()?, site.certs.ca.clone()),
            Kind::Mitmproxy => (cached("bin/mitmdump")?, dir.join("mitmproxy-ca-cert.pem")),
        };
        Ok(Self { kind, program, ca })
    }

    /// Starts the proxy and waits for its first answer, checked with certificates and credential.
    pub(crate) async fn start(&self, site: &Site) -> Result<Running> {
        let dir = site.folder(self.kind.name())?;
        let address = free_address()?;
        let mut command = pinned(&self.program, site.cores);
        match self.kind {
            Kind::Relay => {
                command.args(["relay", &address.to_string()]);
                command.args(site.routes().map(|(host, address)| format!("{host}={address}")));
            }
            Kind::Keybearer => keybearer::configure(&mut command, site, &dir, address)?,
            Kind::Envoy => envoy::configure(&mut command, site, &dir, address)?,
            Kind::Mitmproxy => mitmproxy::configure(&mut command, site, &dir, address)?,
        }
        let log = dir.join("log");
        let (process, start) = (spawn(&mut command, &log)?, Instant::now());
        match self.first_answer(process, address, start).await {
            Ok(running) => Ok(running),
            Err(error) => Err(error.context(format!("{} did not start; {}", self.kind.name(), tail(&log)))),
        }
    }

    async fn first_answer(
        &self,
        mut process: Process,
        address: SocketAddr,
        start: Instant,
    ) -> Result<Running> {
        loop {
            let error = match self.probe(address).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if let Some(status) = process.0.try_wait()? {
                bail!("it ended with {status}");
            }
            if start.elapsed() > READY {
                return Err(error.context(format!("no proxied answer within {READY:?}")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ready = start.elapsed();
        let idle_rss = process.rss()?;
        Ok(Running { process, address, ready, idle_rss })
    }

    /// One request with the certificate checked as clients check it.
    async fn probe(&self, address: SocketAddr) -> Result<()> {
        let way = Way::Tunnel;
        let tls = certs::verifying_client(&self.ca, way.alpn()).context("the proxy's CA")?;
        let token = self.token();
        Load { way, clients: 1, pace: None, item: Item::Small, proxy: address, token, tls }.probe().await
    }

    /// The load of a section on this proxy.
    pub(crate) fn load(&self, section: &Section, address: SocketAddr) -> Result<Arc<Load>> {
        let way = self.kind.way(section);
        let tls = certs::believing_client(way.alpn())?;
        let Section { clients, pace, item, .. } = *section;
        Ok(Arc::new(Load { way, clients, pace, item, proxy: address, token: self.token(), tls }))
    }

    /// What agents send: the right credential where nobody puts it in.
    fn token(&self) -> &'static str {
        if self.kind == Kind::Relay { CREDENTIAL } else { AGENTS_OWN }
    }
}

/// A file of the Python environment that `benches/setup.sh` makes.
fn cached(file: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/.cache/venv").join(file);
    if !path.exists() {
        bail!("not installed; run benches/setup.sh");
    }
    Ok(path)
}

fn spawn(command: &mut Command, log: &Path) -> Result<Process> {
    let output = File::create(log)?;
    command.stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(Process(command.spawn().with_context(|| format!("cannot start {command:?}"))?))
}

/// The last words of a proxy that failed.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [] => "it said nothing".to_owned(),
        [.., a, b, c] => format!("its last lines:\n    {a}\n    {b}\n    {c}"),
        few => format!("it said:\n    {}", few.join("\n    ")),
    }
}

/// A port that nobody has now. Another program could take it before the proxy does; the run then says so.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
