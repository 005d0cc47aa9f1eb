//! Ten thousand accounts whose tokens end together: what the token endpoint sees of it, what requests feel of it, and
//! what an account costs in memory.
//!
//! The vault is filled beforehand. Everything then goes through the program: each account is used once, and requests
//! are paced over all of them, before, while and after the tokens fall due.

mod figures;
mod filling;
mod riders;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use keybearer::id::{AccountKey, ConnectorName, Principal, RoleName, TenantId, UserId};

use self::{
    figures::{Figures, Memory},
    riders::Ride,
};
use crate::{
    peers::{self, free_address},
    process::{Cores, Process},
    report::say,
    support::{
        issuer::{CLIENT, CLIENT_SECRET, Ended, Issuer, Profile},
        provider::TestAuthority,
    },
};

const TENANTS: usize = 100;
/// In each tenant.
const USERS: usize = 100;
const ACCOUNTS: usize = TENANTS * USERS;
/// Of the one app (`refresh.per_second`). Refreshes ahead of the end have four fifths of it.
const PER_SECOND: usize = 500;
/// How long the first tokens live from before the vault is filled, besides three times what that takes. They fall due 30 to 45 s
/// before their end.
const LIFE: Duration = Duration::from_mins(1);
/// So many accounts are written first, to see what that takes.
const SAMPLE: usize = 500;
/// Requests go on for so long when all is refreshed.
const CALM: Duration = Duration::from_secs(8);
/// The herd is given up that has not been refreshed so long after the first tokens' end.
const LIMIT: Duration = Duration::from_mins(2);

const POLICY: &str = r#"apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: herd}
spec:
  hosts: [api.provider.test]
  auth:
    type: oauth2
    token_url: "https://auth.provider.test/token"
    dialect: {rotation: {rotates: always}}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {"items:read": [read]}
  operations:
    - {name: item.get, request: "GET /v1/items/{id}", scopes: ["items:read"]}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: bench}
spec:
  tenants: ["*"]
  grants:
    - {connector: herd, as: user, scopes: ["items:read"]}
"#;

/// Runs it and prints; an error where a token was spent twice, or a request refused whose token lived.
pub(crate) async fn run(program: &Path, cores: Option<Cores>, dir: &Path) -> Result<()> {
    say(&format!(
        "\n{ACCOUNTS} accounts of {TENANTS} tenants whose tokens end together, one app, {PER_SECOND} refreshes a second [herd]"
    ));
    let authority = TestAuthority::new();
    // Threads of its own: handshakes with the token endpoint must not keep the clients' clock waiting.
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = elsewhere.spawn(async move {
        let issuer = Issuer::start(&authority, Profile::default()).await;
        (issuer, authority)
    });
    let (issuer, authority) = begun.await?;
    let site = Site { program, cores, dir, issuer: &issuer, authority: &authority };
    let measured = site.measure().await;
    let faults = issuer.pardon();
    drop(issuer);
    elsewhere.shutdown_background();
    let figures = measured?;
    figures.say();
    ensure!(
        faults.is_empty(),
        "the token endpoint forgives no {:?} and {} more",
        faults[0],
        faults.len() - 1
    );
    figures.check()
}

/// The account of a number: its name, and who asks for it.
fn account(number: usize) -> (AccountKey, String) {
    let (tenant, user) = (format!("t{}", number % TENANTS), format!("u{}", number / TENANTS));
    let key = AccountKey {
        tenant: TenantId::new(&tenant).expect("a name"),
        connector: ConnectorName::new("herd").expect("a name"),
        principal: Principal::User {
            user: UserId::new(&user).expect("a name"),
            role: RoleName::new("bench").expect("a name"),
        },
    };
    (key, format!("tenant=\"{tenant}\", role=\"bench\", user=\"{user}\""))
}

/// Everything around the proxy.
struct Site<'a> {
    program: &'a Path,
    cores: Option<Cores>,
    dir: &'a Path,
    issuer: &'a Issuer,
    authority: &'a TestAuthority,
}

impl Site<'_> {
    async fn measure(&self) -> Result<Figures> {
        let mut memory = Memory::default();
        let (empty, _) = self.start("empty", 0, LIFE).await?;
        memory.add("no account", 0, empty.rss()?);
        drop(empty);

        let begun = Instant::now();
        filling::fill(self.issuer, &self.dir.join("sample"), SAMPLE, LIFE).await?;
        // To write them all, to use each once, and as much again for what else goes on.
        let life = LIFE + begun.elapsed() * u32::try_from(3 * ACCOUNTS / SAMPLE)?;
        let lives_until = Timestamp::now() + life;
        let (proxy, address) = self.start("full", ACCOUNTS, life).await?;
        tokio::time::sleep(Duration::from_millis(500)).await; // they are read and planned in the background
        memory.add("all in the vault", ACCOUNTS, proxy.rss()?);
        riders::once(address, 0..TENANTS).await?;
        memory.add("one of each tenant used", TENANTS, proxy.rss()?);
        let first_use = Instant::now();
        riders::once(address, TENANTS..ACCOUNTS).await?;
        let first_use = first_use.elapsed();
        memory.add("all used", ACCOUNTS - TENANTS, proxy.rss()?);

        let is_over = || self.issuer.posts().len() >= ACCOUNTS;
        let left = Duration::try_from(lives_until.duration_since(Timestamp::now())).unwrap_or_default();
        let ride = Ride::over(address, is_over, left + LIMIT, CALM).await;
        memory.add("all refreshed", ACCOUNTS, proxy.rss()?);
        let posts = self.issuer.posts().into_iter().map(|post| post.at).collect();
        Ok(Figures { posts, refreshed: self.refreshed(), ride, memory, first_use, lives_until })
    }

    /// How many accounts have new tokens.
    fn refreshed(&self) -> usize {
        self.issuer.posts().iter().filter(|post| matches!(post.ended, Ended::Sold(_))).count()
    }

    /// Starts the proxy in a folder of its own with so many accounts, whose tokens live so long; returns when it takes
    /// connections.
    async fn start(&self, name: &str, accounts: usize, life: Duration) -> Result<(Process, SocketAddr)> {
        let dir = self.dir.join(name);
        let (config, address) = self.configure(&dir)?;
        let begun = Instant::now();
        filling::fill(self.issuer, &dir.join("data"), accounts, life).await?;
        if accounts > 0 {
            say(&format!("{accounts} accounts written in {:.1} s", begun.elapsed().as_secs_f64()));
        }
        let is_ready = async || tokio::net::TcpStream::connect(address).await.is_ok();
        let (process, _) =
            peers::keybearer::start(self.program, self.cores, &["proxy"], &config, is_ready).await?;
        Ok((process, address))
    }

    fn configure(&self, dir: &Path) -> Result<(PathBuf, SocketAddr)> {
        fs::create_dir_all(dir.join("policies"))?;
        fs::write(dir.join("policies/herd.yaml"), POLICY)?;
        fs::write(dir.join("roots.pem"), self.authority.pem())?;
        private(&dir.join("app.secret"), CLIENT_SECRET)?;
        let (address, admin, provider) = (free_address()?, free_address()?, self.issuer.address());
        let text = format!(
            r#"listen: {{proxy: "{address}", admin: "{admin}"}}
data_dir: data
identity: {{mode: open}}
policies: [policies]
egress:
  allow_addresses: ["127.0.0.0/8"]
  resolve: {{auth.provider.test: "{provider}", api.provider.test: "{provider}"}}
  roots: {{file: roots.pem}}
oauth: {{apps: {{herd: {{client_id: {CLIENT}, client_secret: {{file: app.secret}}}}}}}}
refresh: {{per_second: {PER_SECOND}}}
ca: {{dir: ca}}
"#
        );
        let path = dir.join("keybearer.yaml");
        fs::write(&path, text)?;
        Ok((path, address))
    }
}

/// Writes a file that only we may read.
fn private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(|| path.display().to_string())
}
