//! The load generator: clients that ask, wait for the answer, check it, and ask again.

mod connection;
mod pace;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use rustls::ClientConfig;
use tokio::task::JoinSet;

use self::{connection::Connection, pace::Pace};
use crate::sections::{Item, Way};

/// Every client must have had its first answer within this.
const WARM_UP: Duration = Duration::from_secs(8);
/// All clients are warm; caches, pools and the CPU's clock get this much more.
const SETTLE: Duration = Duration::from_millis(200);
/// A client that fails so often in one measurement gives up.
const PATIENCE: usize = 20;

/// What every client of one measurement does.
pub(crate) struct Load {
    pub(crate) way: Way,
    pub(crate) clients: usize,
    /// [`Section::pace`](crate::sections::Section::pace)
    pub(crate) pace: Option<u32>,
    pub(crate) item: Item,
    pub(crate) proxy: SocketAddr,
    /// The agent's `Authorization`: right for a relay, wrong (to be replaced) for an interceptor.
    pub(crate) token: &'static str,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Load {
    /// One answer on a connection of its own: whether the proxy does its work at all.
    pub(crate) async fn probe(&self) -> Result<()> {
        let request = Request::new(self)?;
        let once = async { Connection::open(self).await?.exchange(&request).await };
        tokio::time::timeout(Duration::from_secs(5), once).await.context("no answer within 5 s")?
    }

    /// Lets all clients run: warms up, calls `snapshot` at both ends of `window`, stops them.
    pub(crate) async fn run<T>(
        self: &Arc<Self>,
        window: Duration,
        snapshot: impl Fn() -> Result<T>,
    ) -> Result<(Tally, T, T)> {
        let phase = Arc::new(Phase::default());
        let request = Arc::new(Request::new(self)?);
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let pace = Pace::of(self, number);
            clients.spawn(client(Arc::clone(self), Arc::clone(&request), Arc::clone(&phase), pace));
        }
        let warm = phase.all_warm(self.clients).await;
        let before = snapshot()?;
        let start = Instant::now();
        if warm {
            phase.enter(MEASURE);
            tokio::time::sleep(window).await;
        }
        phase.enter(STOP);
        let elapsed = start.elapsed();
        let after = snapshot()?;
        let mut tally = gather(clients).await;
        tally.elapsed = elapsed;
        if warm {
            return Ok((tally, before, after));
        }
        let why = tally.complaint.unwrap_or_else(|| "no error".to_owned());
        let answered = phase.warm.load(Ordering::Relaxed);
        Err(anyhow!("{answered} of {} clients had an answer within {WARM_UP:?}: {why}", self.clients))
    }
}

/// Connections that have had one answer each, and then say nothing.
pub(crate) struct Held(Vec<Connection>);

impl Held {
    /// Opens so many, one after the other.
    pub(crate) async fn open(load: &Load, count: usize) -> Result<Self> {
        let request = Request::new(load)?;
        let mut held = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let mut connection = Connection::open(load).await?;
            connection.exchange(&request).await?;
            held.0.push(connection);
        }
        Ok(held)
    }
}

/// A request, ready to send.
struct Request {
    h1: Bytes,
    h2: http::Request<()>,
    length: usize,
}

impl Request {
    /// The same headers for every proxy; the agent says who it is, and sends an `Authorization`.
    fn new(load: &Load) -> Result<Self> {
        let (host, path) = (load.way.host(), load.item.path());
        let headers = [
            ("user-agent", "keybearer-bench".to_owned()),
            ("accept", "*/*".to_owned()),
            ("agent-identity", r#"tenant="acme", role="bench""#.to_owned()),
            ("authorization", format!("Bearer {}", load.token)),
        ];
        let target = if load.way == Way::Absolute { format!("http://{host}{path}") } else { path.clone() };
        let mut h1 = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n");
        let mut h2 = http::Request::get(format!("https://{host}{path}"));
        for (name, value) in headers {
            h1.extend([name, ": ", &value, "\r\n"]);
            h2 = h2.header(name, value);
        }
        h1.push_str("\r\n");
        Ok(Self { h1: Bytes::from(h1), h2: h2.body(())?, length: load.item.length() })
    }
}

/// What the clients saw while it counted.
#[derive(Default)]
pub(crate) struct Tally {
    /// One entry an answer, microseconds, sorted.
    pub(crate) latencies: Vec<u32>,
    pub(crate) errors: usize,
    /// The first error.
    pub(crate) complaint: Option<String>,
    pub(crate) elapsed: Duration,
}

impl Tally {
    /// The latency that a share of `share` (0 to 1) of the answers did not exceed, milliseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into some 10^5 latencies"
    )]
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |microseconds| f64::from(*microseconds) / 1e3)
    }

    fn error(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.complaint.get_or_insert_with(|| format!("{error:#}"));
    }
}

// The phases; before them, 0, the clients warm up.
const MEASURE: u8 = 1;
const STOP: u8 = 2;

#[derive(Default)]
struct Phase {
    now: AtomicU8,
    warm: AtomicUsize,
}

impl Phase {
    fn enter(&self, phase: u8) {
        self.now.store(phase, Ordering::Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.now.load(Ordering::Relaxed) == phase
    }

    async fn all_warm(&self, clients: usize) -> bool {
        let until = Instant::now() + WARM_UP;
        while self.warm.load(Ordering::Relaxed) < clients {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(SETTLE).await;
        true
    }
}

async fn client(load: Arc<Load>, request: Arc<Request>, phase: Arc<Phase>, mut pace: Pace) -> Tally {
    let mut tally = Tally::default();
    let mut kept = None;
    let mut warm = false;
    while !phase.is(STOP) && tally.errors < PATIENCE {
        let start = pace.turn().await;
        match ask(&load, &request, &mut kept).await {
            Ok(()) if phase.is(MEASURE) => {
                tally.latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(()) if !warm => {
                phase.warm.fetch_add(1, Ordering::Relaxed);
                pace.forget_missed();
                warm = true;
            }
            Ok(()) => {}
            Err(error) => {
                kept = None;
                tally.error(&error);
                tokio::task::yield_now().await;
            }
        }
    }
    tally
}

/// One request on the connection that is kept, or on a new one.
async fn ask(load: &Load, request: &Request, kept: &mut Option<Connection>) -> Result<()> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(load).await?,
    };
    connection.exchange(request).await?;
    if load.way == Way::TunnelEach {
        return connection.close().await;
    }
    *kept = Some(connection);
    Ok(())
}

/// Clients that are stuck are left behind after three seconds, and counted as errors.
async fn gather(mut clients: JoinSet<Tally>) -> Tally {
    let mut sum = Tally::default();
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    while let Ok(Some(ended)) = tokio::time::timeout_at(until, clients.join_next()).await {
        let tally = ended.unwrap_or_default();
        sum.latencies.extend(tally.latencies);
        sum.errors += tally.errors;
        sum.complaint = sum.complaint.or(tally.complaint);
    }
    if !clients.is_empty() {
        sum.errors += clients.len();
        sum.complaint
            .get_or_insert_with(|| "clients still waited for an answer 3 s after the end".to_owned());
    }
    sum.latencies.sort_unstable();
    sum
}
