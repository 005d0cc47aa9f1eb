//! A sidecar that has nothing to do: how fast it is ready, what it holds, and what tunnels that say nothing cost.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    certs,
    load::{Held, Load},
    peers::{Site, free_address, keybearer},
    process::Process,
    report::{grid, percentile, say, show},
    sections::{AGENTS_OWN, Item, Way},
    wire::{self, Buffer},
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
    starts(program, site).await?;
    let mut table = grid(&["", "MB a 1,000", "CPU ms a second, of 1,000"]);
    for (what, way) in [("tunnels, TLS ended, HTTP/1.1", Way::Tunnel), ("the same, h2", Way::TunnelH2)] {
        let (memory, cpu) = tunnels(program, site, way).await?;
        table.add_row([what.to_owned(), show(memory), show(cpu)]);
    }
    say(&format!("\n{TUNNELS} tunnels, each after one request, watched for {WATCHED:?}\n{table}"));
    Ok(())
}

async fn starts(program: &Path, site: &Site) -> Result<()> {
    let mut table = grid(&["start to ready (/readyz)", "p50 ms", "longest ms"]);
    let (mut memory, mut known, mut new) = (None, Vec::new(), Vec::new());
    for number in 0..STARTS {
        let dir = site.dir.join(format!("idle-{number}"));
        new.push(Sidecar::start(program, site, &dir).await?.0);
        let (ready, sidecar) = Sidecar::start(program, site, &dir).await?;
        known.push(ready);
        if number == STARTS - 1 {
            tokio::time::sleep(SETTLED).await;
            memory = Some(sidecar.process.memory()?);
        }
    }
    for (what, mut times) in [("first start: makes CA and vault", new), ("later ones", known)] {
        times.sort_unstable_by(f64::total_cmp);
        table.add_row([what.to_owned(), show(percentile(&times, 0.5)), show(percentile(&times, 1.0))]);
    }
    let memory = memory.context("it was started")?;
    say(&format!(
        "{table}\nidle memory: {} MB resident; {} MB of it its own, {} MB pages of the program, which all sidecars of a node share",
        show(memory.resident),
        show(memory.own),
        show(memory.resident - memory.own)
    ));
    Ok(())
}

/// What a thousand cost: MB of resident memory, and CPU in milliseconds a second.
async fn tunnels(program: &Path, site: &Site, way: Way) -> Result<(f64, f64)> {
    let dir = site.dir.join(format!("tunnels-{}", String::from_utf8_lossy(way.alpn()).replace('/', "-")));
    let (_, sidecar) = Sidecar::start(program, site, &dir).await?;
    keybearer::add_account(program, &dir.join("keybearer.yaml"))?;
    let tls = certs::believing_client(way.alpn())?;
    let load =
        Load { way, clients: TUNNELS, item: Item::Small, proxy: sidecar.proxy, token: AGENTS_OWN, tls };
    let load = Arc::new(load);
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
    async fn start(program: &Path, site: &Site, dir: &Path) -> Result<(f64, Self)> {
        std::fs::create_dir_all(dir.join("policies"))?;
        std::fs::write(dir.join("policies/bench.yaml"), keybearer::POLICY)?;
        let (proxy, admin) = (free_address()?, free_address()?);
        let config = keybearer::configuration_at(site, dir, (proxy, admin), keybearer::SLED)?;
        let (process, took) =
            keybearer::start(program, site.cores, &config, async || is_ready(admin).await).await?;
        Ok((took.as_secs_f64() * 1e3, Self { process, proxy }))
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    let asked = async || -> Result<u16> {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: sidecar\r\n\r\n").await?;
        let mut buffer = Buffer::new();
        let head = buffer.head(&mut stream).await?.context("it hung up")?;
        Ok(wire::status(head)?)
    };
    asked().await.is_ok_and(|status| status == 200)
}
