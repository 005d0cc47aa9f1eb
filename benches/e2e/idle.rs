//! A sidecar that has nothing to do: how fast it is ready, what it holds, and what tunnels that say nothing cost.

mod broker;

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use self::broker::Broker;
use crate::{
    certs,
    load::{Held, Load},
    peers::{Site, free_address, keybearer},
    process::{Memory, Process},
    report::{grid, percentile, say, show},
    sections::{AGENTS_OWN, Item, Way},
};

/// How often it is started, with a new folder and with that of the start before.
const STARTS: usize = 20;
/// What begins with the start has ended by then.
const SETTLED: Duration = Duration::from_secs(1);
const TUNNELS: usize = 1000;
/// How long the tunnels are watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Runs it and prints.
pub(crate) async fn run(program: &Path, site: &Site) -> Result<()> {
    say("\na sidecar that has nothing to do [idle]");
    let alone = starts(program, site).await?;
    let mut table = grid(&["memory, MB", "resident", "its own", "pages of the program"]);
    for (what, memory) in
        [("with a vault of its own", alone), ("of a broker", of_broker(program, site).await?)]
    {
        let pages = memory.resident - memory.own;
        table.add_row([what.to_owned(), show(memory.resident), show(memory.own), show(pages)]);
    }
    say(&format!("\n{table}\nall sidecars of a node share the pages of the program"));
    let mut table = grid(&["", "MB a 1,000", "CPU ms a second, of 1,000"]);
    for (what, way) in [("tunnels, TLS ended, HTTP/1.1", Way::Tunnel), ("the same, h2", Way::TunnelH2)] {
        let (memory, cpu) = tunnels(program, site, way).await?;
        table.add_row([what.to_owned(), show(memory), show(cpu)]);
    }
    say(&format!("\n{TUNNELS} tunnels, each after one request, watched for {WATCHED:?}\n{table}"));
    Ok(())
}

/// How long it takes; and what the last one holds.
async fn starts(program: &Path, site: &Site) -> Result<Memory> {
    let mut table = grid(&["start to ready (/readyz)", "p50 ms", "longest ms"]);
    let (mut memory, mut known, mut new) = (None, Vec::new(), Vec::new());
    for number in 0..STARTS {
        let dir = site.dir.join(format!("idle-{number}"));
        new.push(Sidecar::start(program, site, &dir, keybearer::SLED).await?.0);
        let (ready, sidecar) = Sidecar::start(program, site, &dir, keybearer::SLED).await?;
        known.push(ready);
        if number == STARTS - 1 {
            memory = Some(sidecar.settled().await?);
        }
    }
    for (what, mut times) in [("first start: makes CA and vault", new), ("later ones", known)] {
        times.sort_unstable_by(f64::total_cmp);
        table.add_row([what.to_owned(), show(percentile(&times, 0.5)), show(percentile(&times, 1.0))]);
    }
    say(&table.to_string());
    memory.context("it was started")
}

/// What a sidecar holds that has its accounts from a broker. It answers a request then: it is one that works.
async fn of_broker(program: &Path, site: &Site) -> Result<Memory> {
    let broker = Broker::start(program, site, &site.dir.join("idle-broker")).await?;
    let dir = site.dir.join("idle-of-broker");
    let (_, sidecar) = Sidecar::start(program, site, &dir, &broker.vault(&dir)?).await?;
    let memory = sidecar.settled().await?;
    sidecar.load(Way::Tunnel)?.probe().await?;
    Ok(memory)
}

/// What a thousand cost: MB of resident memory, and CPU in milliseconds a second.
async fn tunnels(program: &Path, site: &Site, way: Way) -> Result<(f64, f64)> {
    let dir = site.dir.join(format!("tunnels-{}", String::from_utf8_lossy(way.alpn()).replace('/', "-")));
    let (_, sidecar) = Sidecar::start(program, site, &dir, keybearer::SLED).await?;
    keybearer::add_account(program, &dir.join("keybearer.yaml"))?;
    let load = sidecar.load(way)?;
    drop(Held::open(&load, 1).await?); // what the first one needs is not each one's
    tokio::time::sleep(SETTLED).await;
    let before = sidecar.process.rss()?;
    let held = Held::open(&load, TUNNELS).await?;
    tokio::time::sleep(SETTLED).await;
    let cpu = sidecar.process.cpu()?;
    tokio::time::sleep(WATCHED).await;
    let used = sidecar.process.cpu()?.saturating_sub(cpu);
    let memory = sidecar.process.rss()? - before;
    drop(held);
    Ok((memory, used.as_secs_f64() * 1e3 / WATCHED.as_secs_f64()))
}

/// The program with nothing but a configuration and the policy.
struct Sidecar {
    process: Process,
    proxy: SocketAddr,
}

impl Sidecar {
    /// Starts it, and says how many milliseconds it took to be ready.
    async fn start(program: &Path, site: &Site, dir: &Path, vault: &str) -> Result<(f64, Self)> {
        std::fs::create_dir_all(dir.join("policies"))?;
        std::fs::write(dir.join("policies/bench.yaml"), keybearer::POLICY)?;
        let (proxy, admin) = (free_address()?, free_address()?);
        let config = keybearer::configuration_at(site, dir, (proxy, admin), vault)?;
        let is_ready = async || keybearer::is_ready(admin).await;
        let (process, took) = keybearer::start(program, site.cores, &["proxy"], &config, is_ready).await?;
        Ok((took.as_secs_f64() * 1e3, Self { process, proxy }))
    }

    /// What it holds when what began with the start has ended.
    async fn settled(&self) -> Result<Memory> {
        tokio::time::sleep(SETTLED).await;
        self.process.memory()
    }

    /// What is asked of it, by one client or more.
    fn load(&self, way: Way) -> Result<Load> {
        let tls = certs::believing_client(way.alpn())?;
        Ok(Load { way, clients: 1, pace: None, item: Item::Small, proxy: self.proxy, token: AGENTS_OWN, tls })
    }
}
