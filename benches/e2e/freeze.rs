//! From an operator's freeze at one replica to the first refusal at another, over PostgreSQL.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ::keybearer::{
    admin::{Client, Command},
    drain::Drain,
    id::AccountKey,
};
use anyhow::{Context as _, Result, bail};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    peers::{Site, free_address, keybearer},
    process::Process,
    report::{grid, percentile, say, show},
    sections::H1_HOST,
    support::postgres::Postgres,
    wire::{self, Buffer},
};

/// How often it is frozen.
const ROUNDS: usize = 200;
/// A freeze that is not known by then is none.
const LIMIT: Duration = Duration::from_secs(10);
/// Where Debian's package has the server's programs.
const INITDB: &str = "/usr/lib/postgresql/15/bin/initdb";

/// Runs it and prints; an error where a freeze did not arrive at all.
pub(crate) async fn run(program: &Path, site: &Site) -> Result<()> {
    if !Path::new(INITDB).exists() {
        say("\nskipped: freeze: no PostgreSQL (Debian package postgresql-15; benches/setup.sh installs it)");
        return Ok(());
    }
    say("\nfrom a freeze at one replica to the first refusal at the other, PostgreSQL [freeze]");
    let server = tokio::task::spawn_blocking(|| Postgres::start("", &[])).await?;
    let url = server.database().await;
    let dir = site.dir.join("freeze");
    let vault = format!("{{backend: postgres, url: '{url}', key: {{file: {}}}}}", dir.join("key").display());
    let (one, other) =
        (Replica::new(site, &dir.join("one"), &vault)?, Replica::new(site, &dir.join("other"), &vault)?);
    keybearer::command_line(program, &one.config, &["vault", "init"], "")?;
    keybearer::add_account(program, &one.config)?;
    let _running = [one.start(program, site).await?, other.start(program, site).await?];
    let rounds = rounds(&one, &other).await?;
    print(&rounds);
    Ok(())
}

fn print(rounds: &[Round]) {
    let mut table = grid(&["", "p50 ms", "p99 ms", "longest ms"]);
    let mut row = |what: &str, times: Vec<f64>| {
        let mut times = times;
        times.sort_unstable_by(f64::total_cmp);
        let at = |share| show(percentile(&times, share));
        table.add_row([what.to_owned(), at(0.5), at(0.99), at(1.0)]);
    };
    row("from the command to its answer", rounds.iter().map(|round| round.answered).collect());
    row("from the command to the first refusal", rounds.iter().map(|round| round.refused).collect());
    say(&table.to_string());
    say(&format!("{} rounds", rounds.len()));
}

/// One freeze, in milliseconds from the command.
struct Round {
    answered: f64,
    refused: f64,
}

async fn rounds(one: &Replica, other: &Replica) -> Result<Vec<Round>> {
    let drain = Drain::default();
    let desk = Client::find(&one.dir.join("data/admin.sock"), &drain).await?.context("no admin socket")?;
    let account: AccountKey = "acme/bench/role:bench".parse()?;
    let mut agent = Agent::new(other.address);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        agent.until(200).await?;
        let begun = Instant::now();
        let freeze = Command::Freeze { account: account.clone(), by: "ops".to_owned() };
        let (answered, refused) =
            tokio::join!(async { desk.execute(&freeze).await.map(|_| begun.elapsed()) }, async {
                agent.until(403).await.map(|()| begun.elapsed())
            },);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        rounds.push(Round { answered: milliseconds(answered?), refused: milliseconds(refused?) });
        desk.execute(&Command::Unfreeze { account: account.clone() }).await?;
    }
    Ok(rounds)
}

/// A proxy of its own folder over the common vault.
struct Replica {
    dir: PathBuf,
    config: PathBuf,
    address: SocketAddr,
}

impl Replica {
    fn new(site: &Site, dir: &Path, vault: &str) -> Result<Self> {
        fs::create_dir_all(dir.join("policies"))?;
        fs::create_dir_all(dir.join("data"))?;
        fs::write(dir.join("policies/bench.yaml"), keybearer::POLICY)?;
        let address = free_address()?;
        let config = keybearer::configuration(site, dir, address, vault)?;
        Ok(Self { dir: dir.to_owned(), config, address })
    }

    async fn start(&self, program: &Path, site: &Site) -> Result<Process> {
        let is_ready = async || TcpStream::connect(self.address).await.is_ok();
        Ok(keybearer::start(program, site.cores, &["proxy"], &self.config, is_ready).await?.0)
    }
}

/// Who asks again as soon as it is answered.
struct Agent {
    proxy: SocketAddr,
    open: Option<(TcpStream, Buffer)>,
}

impl Agent {
    const fn new(proxy: SocketAddr) -> Self {
        Self { proxy, open: None }
    }

    /// Asks until it is answered so. A freeze breaks off what is under way, and its connection with it.
    async fn until(&mut self, expected: u16) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if self.ask().await.is_ok_and(|status| status == expected) {
                return Ok(());
            }
        }
        bail!("not answered {expected} within {LIMIT:?}")
    }

    async fn ask(&mut self) -> Result<u16> {
        let (mut stream, mut buffer) = match self.open.take() {
            Some(open) => open,
            None => (TcpStream::connect(self.proxy).await?, Buffer::new()),
        };
        stream.set_nodelay(true)?;
        let request = format!(
            "GET http://{H1_HOST}/v1/items/1k HTTP/1.1\r\nhost: {H1_HOST}\r\nagent-identity: tenant=\"acme\", role=\"bench\"\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let head = buffer.head(&mut stream).await?.context("the proxy hung up")?;
        let (status, length) = (wire::status(head)?, wire::content_length(head)?);
        buffer.skip(&mut stream, length).await?;
        self.open = Some((stream, buffer));
        Ok(status)
    }
}
