//! A sidecar's resolver, and brokers at two addresses of one name.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::broker::Broker;
use crate::{
    catalog::{Catalog, Connector, ConnectorSpec},
    credential::{
        Credential, Error, Resolver, Survey,
        remote::{
            Metrics, Parts, Remote,
            link::{Network, Stream},
        },
        wire::{Line, Problem},
    },
    drain::Drain,
    fetch::Url,
    host::Host,
    id::{AccountKey, Scope, Subject},
    policy::{Op, Permit, Policy, Question, RoleSpec},
    tls::{self, Authority, Downstream, Leaves, Roots},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
/// What these sidecars are configured with.
pub(super) const OFFLINE_USE: Duration = MINUTE;
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Pipes to brokers.
struct Pipes(Vec<(SocketAddr, Broker)>);

#[async_trait]
impl Network for Pipes {
    async fn addresses(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        assert_eq!((host.to_string().as_str(), port), ("broker.test", 7443));
        Ok(self.0.iter().map(|(address, _)| *address).collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let (_, broker) = self.0.iter().find(|(known, _)| *known == address).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        if broker.accept(theirs) { Ok(Box::new(ours)) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }
}

pub(super) struct World {
    pub(super) brokers: [Broker; 2],
    pub(super) remote: Remote,
    pub(super) resolver: Resolver,
    pub(super) connector: Arc<Connector>,
    pub(super) registry: Registry,
    pub(super) token_file: PathBuf,
    policy: Policy,
    told: AtomicU32,
    _dir: TempDir,
}

pub(super) fn key() -> AccountKey {
    "acme/crm/tenant".parse().unwrap()
}

/// What a broker answers of an account that has this token, or what has become of it since.
pub(super) fn live(token: &str, generation: u64) -> Value {
    let now = Timestamp::now();
    json!({
        "account": "acme/crm/tenant",
        "generation": generation,
        "standing": "live",
        "now": now,
        "obtained": now - SignedDuration::from_mins(5),
        "until": now + SignedDuration::from_hours(1),
        "metadata": {"instance": "na47"},
        "fields": {"token": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, token)},
    })
}

pub(super) fn problem(problem: &Problem) -> Value {
    serde_json::to_value(problem).unwrap()
}

/// The token that the credential puts into requests.
pub(super) fn token(credential: &Credential) -> String {
    let mut headers = http::HeaderMap::new();
    assert_eq!(credential.inject(&mut headers, None), None);
    headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

impl World {
    /// Two brokers, of which the second is away.
    pub(super) fn new() -> Self {
        Self::with(|authority| Roots::Pem(authority.pem().to_owned()))
    }

    pub(super) fn with(roots: impl FnOnce(&Authority) -> Roots) -> Self {
        tls::init_crypto();
        let (registry, drain) = (Registry::new(), Drain::default());
        let authority = Arc::new(Authority::open(None).unwrap());
        let leaves = Leaves::new(Arc::clone(&authority), 8, &tls::Metrics::register(&registry).unwrap());
        let tls = Downstream::new(Arc::new(leaves)).unwrap().config_for(&Host::parse("broker.test").unwrap());
        let brokers = [(); 2].map(|()| Broker::new(Arc::clone(&tls), &drain));
        brokers[1].book().is_away = true;
        brokers[0].book().accounts.insert(key(), live("kb-canary-1", 1));
        let pipes = ["192.0.2.1:7443", "192.0.2.2:7443"].map(|address| address.parse().unwrap());
        let pipes = Pipes(pipes.into_iter().zip(brokers.iter().cloned()).collect());
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        fs::write(&token_file, "kb-canary-workload").unwrap();
        let parts = Parts {
            url: Url::parse("https://broker.test:7443").unwrap(),
            roots: roots(&authority),
            token_file: token_file.clone(),
            timeout: TIMEOUT,
            patience: PATIENCE,
            offline_use: OFFLINE_USE,
            metrics: Metrics::register(&registry).unwrap(),
            drain,
        };
        let remote = Remote::over(Box::new(pipes), parts).unwrap();
        let resolver = Resolver::remote(remote.clone());
        let (connector, policy) = (connector(), policy());
        let told = AtomicU32::new(0);
        Self { brokers, remote, resolver, connector, registry, token_file, policy, told, _dir: dir }
    }

    /// A world whose sidecar follows the first broker.
    pub(super) async fn followed() -> Self {
        let world = Self::new();
        world.remote.follow(&world.resolver);
        world.taken(0).await;
        world
    }

    /// Waits until the sidecar has read all that this broker has told.
    pub(super) async fn taken(&self, broker: usize) {
        let revision = format!("r{}", self.told.fetch_add(1, Ordering::Relaxed));
        let mut revisions = self.remote.revisions();
        let taken = revisions.wait_for(|known| known.as_deref() == Some(&*revision));
        tokio::pin!(taken);
        loop {
            // Who connects only now has not been told.
            self.brokers[broker].tell(&Line::PolicyRevision(revision.clone()));
            tokio::select! {
                known = &mut taken => return drop(known.unwrap()),
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    }

    pub(super) fn permit(&self) -> Permit {
        let scopes: Arc<[Scope]> = Arc::new(["deals:read".parse().unwrap()]);
        let name = "deal.list".parse().unwrap();
        let op = Op { name: &name, effect: crate::id::Effect::Read, scopes: &scopes };
        let (tenant, role) = ("acme".parse().unwrap(), "writer".parse().unwrap());
        let subject = Subject { tenant, role, user: None };
        let question = Question { subject: &subject, connector: &self.connector.name, operation: Some(op) };
        self.policy.decide(question).unwrap()
    }

    /// What a request gets.
    pub(super) async fn ask(&self) -> Result<Arc<Credential>, Error> {
        self.resolver.resolve(&self.permit(), &self.connector, None).await
    }

    /// The token that a request gets.
    pub(super) async fn token(&self) -> String {
        token(&self.ask().await.unwrap())
    }

    /// Why a request gets none.
    pub(super) async fn refusal(&self) -> String {
        self.ask().await.map(drop).unwrap_err().to_string()
    }

    pub(super) async fn look(&self) -> Result<Arc<Credential>, Arc<Error>> {
        Survey::new(&self.resolver).look(&self.permit(), &self.connector, None).await
    }

    /// Lets the first broker say something else of the account from now on.
    pub(super) fn says(&self, said: Value) {
        self.brokers[0].book().accounts.insert(key(), said);
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().any(|known| known == line)
    }
}

fn connector() -> Arc<Connector> {
    let spec = json!({
        "hosts": ["api.crm.test", "{instance}.crm.test"],
        "auth": {"type": "oauth2", "token_url": "https://login.crm.test/token"},
        "inject": [{"header": "Authorization", "value": "Bearer {token}"}],
        "scopes": {"deals:read": ["read"]},
        "operations": [{"name": "deal.list", "request": "GET /deals", "scopes": ["deals:read"]}],
    });
    let spec: ConnectorSpec = serde_json::from_value(spec).unwrap();
    Arc::clone(Catalog::compile(vec![("crm".parse().unwrap(), spec)]).unwrap().connector("crm").unwrap())
}

fn policy() -> Policy {
    let grants = json!([{"connector": "crm", "as": "tenant", "scopes": ["deals:read"]}]);
    let role: RoleSpec = serde_json::from_value(json!({"tenants": ["*"], "grants": grants})).unwrap();
    Policy::compile(vec![("writer".parse().unwrap(), role)]).unwrap()
}
