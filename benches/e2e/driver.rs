//! The run: starts the provider and the proxies, takes turns round by round, prints.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    certs::Certs,
    freeze, herd, idle,
    peers::{Kind, Peer, Running, Site, keybearer},
    process::{Cores, load_average},
    provider::Provider,
    report::{self, Cold, Figures, Row, complain, say},
    sections::{ALONE, SECTIONS, Section},
};

/// Rounds are left out when the whole run would take longer.
const WHOLE_RUN: Duration = Duration::from_secs(230);
/// Turns each proxy has in a section.
const ROUNDS: usize = 3;
/// Length of one turn's measurement, unless `BENCH_SECONDS` says otherwise.
const SECONDS: f64 = 1.5;
/// Runnable processes besides ours from which on the figures deserve a warning.
const BUSY: f64 = 0.7;

/// What `BENCH_*` variables ask for.
struct Wishes {
    window: Duration,
    proxies: Vec<Kind>,
    sections: Vec<&'static Section>,
    /// Of [`ALONE`].
    alone: Vec<&'static str>,
    keybearer: Option<PathBuf>,
}

impl Wishes {
    fn read() -> Result<Self> {
        let seconds = match variable("BENCH_SECONDS") {
            Some(text) => text.parse().with_context(|| format!("BENCH_SECONDS={text} is no number"))?,
            None => SECONDS,
        };
        ensure!((0.1..=30.0).contains(&seconds), "BENCH_SECONDS must be 0.1 to 30");
        let proxies = chosen("BENCH_ONLY", &Kind::ALL, |kind| kind.name())?;
        let all: Vec<&'static str> = SECTIONS.iter().map(|section| section.key).chain(ALONE).collect();
        let wanted = chosen("BENCH_SECTIONS", &all, |key| key)?;
        Ok(Self {
            window: Duration::from_secs_f64(seconds),
            sections: SECTIONS.iter().filter(|section| wanted.contains(&section.key)).collect(),
            alone: ALONE.into_iter().filter(|key| wanted.contains(key)).collect(),
            proxies,
            keybearer: variable("BENCH_KEYBEARER").map(PathBuf::from),
        })
    }
}

/// The members of `all` that a comma-separated variable names; all of them where it is not set.
fn chosen<T: Copy>(name: &str, all: &[T], word: impl Fn(&T) -> &'static str) -> Result<Vec<T>> {
    let Some(list) = variable(name) else { return Ok(all.to_vec()) };
    let known: Vec<&str> = all.iter().map(&word).collect();
    for asked in list.split(',') {
        ensure!(known.contains(&asked), "{name}: no {asked:?}; there are {}", known.join(", "));
    }
    Ok(all.iter().copied().filter(|one| list.split(',').any(|asked| asked == word(one))).collect())
}

#[expect(clippy::disallowed_methods, reason = "the benchmark has no configuration file; these shorten a run")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs everything; an error only where nothing could be measured, or keybearer failed though it was asked for.
pub(crate) fn run() -> Result<()> {
    let wishes = Wishes::read()?;
    let cores = match Cores::find() {
        Ok(cores) => {
            cores.pin_self()?;
            say(&format!("proxy alone on core {}; load and provider on core {}", cores.proxy, cores.load));
            Some(cores)
        }
        Err(why) => {
            say(&format!("not pinned: {why}. The proxy shares its core with the load; ratios mean little"));
            None
        }
    };
    let busy = load_average();
    if busy > BUSY {
        say(&format!("load average {busy:.1}: others work on this machine; do not quote these figures"));
    }
    // One thread: provider and clients share one core anyway, and so do not wait for the scheduler.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&wishes, cores))
}

async fn measure(wishes: &Wishes, cores: Option<Cores>) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("e2e").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let certs = Certs::make(dir.path())?;
    let provider = Provider::start(&certs).await?;
    let site = Site { dir: dir.path().to_owned(), certs, provider, cores };
    if !wishes.sections.is_empty() {
        compare(&site, wishes).await?;
    }
    if wishes.proxies.contains(&Kind::Keybearer) && !wishes.alone.is_empty() {
        alone(&site, wishes).await?;
    }
    Ok(())
}

/// What concerns keybearer alone.
async fn alone(site: &Site, wishes: &Wishes) -> Result<()> {
    let program = keybearer::program(wishes.keybearer.as_deref())?;
    for key in &wishes.alone {
        match *key {
            "idle" => Box::pin(idle::run(&program, site)).await?,
            "herd" => Box::pin(herd::run(&program, site.cores, &site.dir.join(key))).await?,
            _ => Box::pin(freeze::run(&program, site)).await?,
        }
    }
    Ok(())
}

/// The tables.
async fn compare(site: &Site, wishes: &Wishes) -> Result<()> {
    let mut bench = Bench::new(site, wishes);
    bench.prepare(&wishes.proxies, wishes.keybearer.as_deref());
    let start = Instant::now();
    for (done, section) in wishes.sections.iter().enumerate() {
        let left = u32::try_from(wishes.sections.len() - done)?;
        let share = WHOLE_RUN.saturating_sub(start.elapsed()) / left;
        let rows = bench.section(section, share).await;
        report::section(section, &rows);
    }
    report::cold(&bench.cold);
    bench.conclude(start.elapsed())
}

struct Bench<'a> {
    site: &'a Site,
    window: Duration,
    peers: Vec<Peer>,
    cold: Vec<Cold>,
    /// Proxies that could not be measured, and why.
    skipped: Vec<(Kind, String)>,
    failed_requests: usize,
}

impl<'a> Bench<'a> {
    fn new(site: &'a Site, wishes: &Wishes) -> Self {
        let (peers, cold, skipped) = (Vec::new(), Vec::new(), Vec::new());
        Self { site, window: wishes.window, peers, cold, skipped, failed_requests: 0 }
    }

    fn prepare(&mut self, proxies: &[Kind], keybearer: Option<&Path>) {
        for kind in proxies {
            match Peer::prepare(*kind, self.site, keybearer) {
                Ok(peer) => {
                    self.cold.push(Cold { who: kind.name(), ready_ms: vec![], idle_rss_mb: vec![] });
                    self.peers.push(peer);
                }
                Err(error) => self.skip(*kind, format!("{error:#}")),
            }
        }
    }

    fn skip(&mut self, kind: Kind, why: String) {
        say(&format!("skipped: {}: {why}", kind.name()));
        self.skipped.push((kind, why));
    }

    /// Starts all proxies anew, then lets them take turns, within `share` of time but at least once each.
    async fn section(&mut self, section: &Section, share: Duration) -> Vec<Row> {
        let start = Instant::now();
        let running = self.start_all().await;
        let mut rows: Vec<Row> =
            self.peers.iter().map(|peer| Row { who: peer.kind.name(), rounds: vec![] }).collect();
        let mut longest = Duration::ZERO;
        for round in 0..ROUNDS {
            if round > 0 && start.elapsed() + longest > share {
                say(&format!("{}: {round} of {ROUNDS} rounds, to end in time", section.key));
                break;
            }
            let turn = Instant::now();
            self.round(section, &running, &mut rows).await;
            longest = longest.max(turn.elapsed());
        }
        rows
    }

    /// Those that do not start are skipped from then on.
    async fn start_all(&mut self) -> Vec<Running> {
        let (mut running, mut started) = (Vec::new(), Vec::new());
        for peer in std::mem::take(&mut self.peers) {
            match peer.start(self.site).await {
                Ok(proxy) => {
                    if let Some(cold) = self.cold.iter_mut().find(|cold| cold.who == peer.kind.name()) {
                        cold.ready_ms.push(proxy.ready.as_secs_f64() * 1e3);
                        cold.idle_rss_mb.push(proxy.idle_rss);
                    }
                    running.push(proxy);
                    started.push(peer);
                }
                Err(error) => self.skip(peer.kind, format!("{error:#}")),
            }
        }
        self.peers = started;
        running
    }

    async fn round(&mut self, section: &Section, running: &[Running], rows: &mut [Row]) {
        let mut relay = None;
        for ((peer, proxy), row) in self.peers.iter().zip(running).zip(rows) {
            match turn(peer, proxy, section, self.window).await {
                Ok((mut figures, failed)) => {
                    if peer.kind == Kind::Relay {
                        relay = Some(figures.rate);
                    }
                    figures.ratio = relay.map(|relay| figures.rate / relay);
                    row.rounds.push(figures);
                    self.failed_requests += failed;
                }
                Err(error) => {
                    complain(&format!("{} {}: {error:#}", section.key, row.who));
                    self.failed_requests += 1;
                }
            }
        }
    }

    fn conclude(&self, elapsed: Duration) -> Result<()> {
        let seconds = elapsed.as_secs();
        say(&format!(
            "\n{seconds} s; {} measured, {} skipped; {} failed requests",
            self.peers.len(),
            self.skipped.len(),
            self.failed_requests
        ));
        let ours = self.skipped.iter().find(|(kind, _)| *kind == Kind::Keybearer);
        ensure!(ours.is_none(), "keybearer was not measured");
        ensure!(!self.peers.is_empty(), "nothing was measured");
        Ok(())
    }
}

/// One proxy's turn: its figures, and how many requests failed.
#[expect(clippy::cast_precision_loss, reason = "counts of some 10^5 requests")]
async fn turn(peer: &Peer, proxy: &Running, section: &Section, window: Duration) -> Result<(Figures, usize)> {
    let load = peer.load(section, proxy.address)?;
    let snapshot = || Ok((proxy.process.cpu()?, proxy.process.rss()?));
    let (tally, before, after) = load.run(window, snapshot).await?;
    if let Some(first) = &tally.complaint {
        complain(&format!(
            "{} {}: {} failed requests, the first: {first}",
            section.key,
            peer.kind.name(),
            tally.errors
        ));
    }
    let requests = tally.latencies.len() as f64;
    ensure!(requests > 0.0, "no answer in {window:?}");
    let figures = Figures {
        rate: requests / tally.elapsed.as_secs_f64(),
        ratio: None,
        cpu_us: after.0.saturating_sub(before.0).as_secs_f64() * 1e6 / requests,
        p50_ms: tally.percentile(0.50),
        p99_ms: tally.percentile(0.99),
        rss_mb: after.1,
    };
    Ok((figures, tally.errors))
}
