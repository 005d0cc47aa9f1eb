//! A vault in memory, a strict provider that does what a test tells it, and an engine between the two.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    catalog::{Catalog, Connector, ConnectorSpec},
    credential::{
        Ask, Clock, Config, Credential, Engine, Error, Exchange, Local, Metrics, Parts, Resolver, Server,
        Token, Trouble,
    },
    drain::Drain,
    host::Host,
    id::{AccountKey, Scope, Subject},
    oauth::{self, Apps, Failure, Hint, Introspection, NotSent, RawAnswer},
    path::CanonicalPath,
    policy::{Op, Permit, Policy, Question, RoleSpec},
    secret::Secret,
    vault::{Access, Account, Faults, Grant, GrantState, Material, NewAccount, Vault},
};

pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// What the provider does with one request instead of what it would.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Answers this, and does nothing.
    Says(u16, Value),
    /// Answers 429 or 503 with `Retry-After`.
    Later(u16, u64),
    /// Answers as ever, with these members besides.
    With(Value),
    /// Answers as ever, in a form that nobody described.
    Odd,
    /// Does it, and the answer is lost on its way.
    Lost,
    /// Cannot be reached.
    Away,
    /// Answers as ever, after so long.
    After(Duration),
}

/// A provider with single-use refresh tokens: one that was spent ends the whole grant, unless it is within its grace.
#[derive(Debug)]
pub(super) struct Book {
    /// How often tokens were given.
    pub(super) count: u32,
    pub(super) rotates: bool,
    pub(super) grace: Duration,
    pub(super) is_dead: bool,
    pub(super) spent: Option<Instant>,
    pub(super) replies: VecDeque<Reply>,
    /// What was said where no reply is left.
    pub(super) always: Option<Reply>,
    /// Every refresh token that was sent, and when.
    pub(super) posts: Vec<(String, Instant)>,
    pub(super) revoked: Vec<String>,
    /// Everything that was minted or asked for: for which client, for which scopes, and when.
    pub(super) mints: Vec<(String, String, Instant)>,
    pub(super) introspected: Option<i64>,
    pub(super) life: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) clock: Clock,
}

impl Provider {
    pub(super) fn new(clock: Clock) -> Self {
        let book = Book {
            count: 0,
            rotates: true,
            grace: Duration::ZERO,
            is_dead: false,
            spent: None,
            replies: VecDeque::new(),
            always: None,
            posts: Vec::new(),
            revoked: Vec::new(),
            mints: Vec::new(),
            introspected: None,
            life: 3600,
        };
        Self { book: Arc::new(Mutex::new(book)), clock }
    }

    pub(super) fn will(&self, reply: Reply) {
        self.book.lock().unwrap().replies.push_back(reply);
    }

    pub(super) fn always(&self, reply: Reply) {
        self.book.lock().unwrap().always = Some(reply);
    }

    pub(super) fn posts(&self) -> usize {
        self.book.lock().unwrap().posts.len()
    }

    pub(super) fn mints(&self) -> usize {
        self.book.lock().unwrap().mints.len()
    }

    /// What the last token was asked for.
    pub(super) fn minted_for(&self) -> String {
        self.book.lock().unwrap().mints.last().unwrap().1.clone()
    }

    fn answer(&self, status: u16, body: &Value, retry_after: Option<u64>) -> RawAnswer {
        self.answer_to("refresh", status, body, retry_after)
    }

    fn answer_to(&self, grant: &str, status: u16, body: &Value, retry_after: Option<u64>) -> RawAnswer {
        let received = self.clock.now();
        let head = json!({"grant": grant, "status": status, "received": received, "date": null,
            "retry_after_seconds": retry_after});
        RawAnswer::from_secret(&secret(&format!("{head}\n{body}"))).unwrap()
    }
}

impl Book {
    /// What a strict provider makes of a refresh token.
    fn exchange(&mut self, token: &str) -> (u16, Value) {
        let newest = format!("refresh-{}", if self.rotates { self.count } else { 0 });
        let before = format!("refresh-{}", self.count.saturating_sub(1));
        let in_grace =
            self.spent.is_some_and(|spent| spent.elapsed() < self.grace) && token == before && !self.is_dead;
        if !in_grace && (token != newest || self.is_dead) {
            self.is_dead = true;
            return (400, json!({"error": "invalid_grant"}));
        }
        self.count += 1;
        self.spent = Some(Instant::now());
        let mut body =
            json!({"access_token": format!("access-token-{}", self.count), "token_type": "Bearer"});
        if self.rotates {
            body["refresh_token"] = json!(format!("refresh-{}", self.count));
        }
        if self.life > 0 {
            body["expires_in"] = json!(self.life);
        }
        (200, body)
    }
}

#[async_trait]
impl Exchange for Provider {
    async fn refresh(
        &self,
        _server: Server<'_>,
        token: &Secret,
        _scopes: &[String],
    ) -> Result<RawAnswer, Failure> {
        #[expect(clippy::disallowed_methods, reason = "this is the provider")]
        let token = String::from_utf8(token.expose().to_vec()).unwrap();
        let reply = {
            let mut book = self.book.lock().unwrap();
            book.posts.push((token.clone(), Instant::now()));
            book.replies.pop_front().or_else(|| book.always.clone())
        };
        match reply {
            None => {
                let (status, body) = self.book.lock().unwrap().exchange(&token);
                Ok(self.answer(status, &body, None))
            }
            Some(Reply::Says(status, body)) => Ok(self.answer(status, &body, None)),
            Some(Reply::Later(status, seconds)) => Ok(self.answer(status, &json!({}), Some(seconds))),
            Some(Reply::With(more)) => {
                let (status, mut body) = self.book.lock().unwrap().exchange(&token);
                for (name, value) in more.as_object().unwrap() {
                    body[name] = value.clone();
                }
                Ok(self.answer(status, &body, None))
            }
            Some(Reply::Odd) => {
                let (status, mut body) = self.book.lock().unwrap().exchange(&token);
                body["token"] = body["access_token"].take();
                Ok(self.answer(status, &body, None))
            }
            Some(Reply::Lost) => {
                self.book.lock().unwrap().exchange(&token);
                Err(Failure::Ambiguous)
            }
            Some(Reply::Away) => Err(Failure::NotSent(NotSent::Connect)),
            Some(Reply::After(wait)) => {
                tokio::time::sleep(wait).await;
                let (status, body) = self.book.lock().unwrap().exchange(&token);
                Ok(self.answer(status, &body, None))
            }
        }
    }

    async fn mint(&self, server: Server<'_>, ask: &Ask) -> Result<Token, Failure> {
        let (grant, scopes) = match ask {
            Ask::Installation(narrowed) => {
                let permissions = narrowed.permissions.iter().map(|(name, level)| format!("{name}:{level}"));
                ("installation", permissions.collect())
            }
            Ask::ClientCredentials { scopes } | Ask::JwtBearer { scopes, .. } => ("mint", scopes.clone()),
            Ask::TokenExchange(_) | Ask::WebIdentity(_) => ("mint", Vec::new()),
        };
        let client = server.app.client_id.clone();
        let reply = {
            let mut book = self.book.lock().unwrap();
            book.mints.push((client.clone(), scopes.join(" "), Instant::now()));
            book.replies.pop_front().or_else(|| book.always.clone())
        };
        if let Some(Reply::After(wait)) = reply {
            tokio::time::sleep(wait).await;
        }
        let mut body = {
            let mut book = self.book.lock().unwrap();
            book.count += 1;
            json!({"access_token": format!("{client}-{}", book.count), "expires_in": book.life})
        };
        let answer = match reply {
            None | Some(Reply::After(_)) => self.answer_to(grant, 200, &body, None),
            Some(Reply::Says(status, body)) => self.answer_to(grant, status, &body, None),
            Some(Reply::Later(status, seconds)) => self.answer_to(grant, status, &json!({}), Some(seconds)),
            Some(Reply::With(more)) => {
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                self.answer_to(grant, 200, &body, None)
            }
            Some(Reply::Odd) => self.answer_to(grant, 200, &json!({"token": "of-no-use"}), None),
            Some(Reply::Lost) => return Err(Failure::Ambiguous),
            Some(Reply::Away) => return Err(Failure::NotSent(NotSent::Connect)),
        };
        answer.read(&server.provider.dialect).map(Token::from)
    }

    async fn introspect(&self, _server: Server<'_>, _token: &Secret) -> Result<Introspection, Failure> {
        let seconds = self.book.lock().unwrap().introspected.ok_or(Failure::Ambiguous)?;
        let expires = Some(self.clock.now() + SignedDuration::from_secs(seconds));
        Ok(Introspection { active: true, expires, scopes: None, subject: None })
    }

    async fn revoke(&self, _server: Server<'_>, token: &Secret, _hint: Hint) -> Result<bool, Failure> {
        #[expect(clippy::disallowed_methods, reason = "this is the provider")]
        let token = String::from_utf8(token.expose().to_vec()).unwrap();
        self.book.lock().unwrap().revoked.push(token);
        Ok(true)
    }
}

/// Everything around one account.
pub(super) struct World {
    pub(super) vault: Vault,
    pub(super) provider: Provider,
    pub(super) engine: Engine,
    pub(super) resolver: Resolver,
    pub(super) clock: Clock,
    pub(super) connector: Arc<Mutex<Arc<Connector>>>,
    pub(super) registry: Registry,
    pub(super) drain: Drain,
    /// What the roles' grants need of the account.
    pub(super) needs: Arc<Mutex<BTreeSet<Scope>>>,
    policy: Arc<Policy>,
}

/// A calendar that goes as tokio's clock does.
pub(super) fn clock() -> Clock {
    let (calendar, begun) = (Timestamp::now(), Instant::now());
    Clock::new(move || calendar + SignedDuration::try_from(begun.elapsed()).unwrap())
}

pub(super) fn connector(dialect: &Value) -> Arc<Connector> {
    let spec = json!({
        "hosts": ["api.crm.test", "{instance}.crm.test"],
        "auth": {"type": "oauth2", "token_url": "https://login.crm.test/token", "dialect": dialect},
        "inject": [{"header": "Authorization", "value": "Bearer {token}"}],
        "scopes": {"deals:read": ["read"], "deals:write": ["read", "write"]},
        "operations": [{"name": "deal.read", "request": "GET /deals", "scopes": ["deals:read"]},
                       {"name": "deal.write", "request": "POST /deals", "scopes": ["deals:write"]}],
    });
    let spec: ConnectorSpec = serde_json::from_value(spec).unwrap();
    let catalog = Catalog::compile(vec![("crm".parse().unwrap(), spec)]).unwrap();
    Arc::clone(catalog.connector("crm").unwrap())
}

/// A connector whose tokens are minted.
pub(super) fn minting(kind: &str) -> Arc<Connector> {
    let scopes = match kind {
        "github_app" => json!({"deals:read": ["deals:read"], "deals:write": ["deals:read", "deals:write"]}),
        _ => json!({"deals:read": ["read"], "deals:write": ["read", "write"]}),
    };
    let spec = json!({
        "hosts": ["api.crm.test"],
        "auth": {"type": kind, "token_url": "https://login.crm.test/token"},
        "inject": [{"header": "Authorization", "value": "Bearer {token}"}],
        "scopes": scopes,
        "operations": [{"name": "deal.read", "request": "GET /deals", "scopes": ["deals:read"]}],
    });
    let catalog = vec![("crm".parse().unwrap(), serde_json::from_value(spec).unwrap())];
    Arc::clone(Catalog::compile(catalog).unwrap().connector("crm").unwrap())
}

/// An account that is a client of its own.
pub(super) fn client(key: AccountKey, client: &str) -> NewAccount {
    let fields = [("client_id", client), ("client_secret", "kb-canary-client")];
    NewAccount {
        key,
        material: Material::Seed {
            fields: fields.map(|(name, text)| (name.to_owned(), secret(text))).into(),
        },
        scopes: None,
        metadata: BTreeMap::new(),
        authorization: Some("added-1".to_owned()),
    }
}

pub(super) fn rotating() -> Value {
    json!({"rotation": {"rotates": "always"}})
}

pub(super) fn key() -> AccountKey {
    "acme/crm/tenant".parse().unwrap()
}

/// An account that was connected just now, with tokens number 0.
pub(super) fn connected(clock: &Clock, key: AccountKey, life: Duration) -> NewAccount {
    let now = clock.now();
    let expires = Some(now + SignedDuration::try_from(life).unwrap());
    NewAccount {
        key,
        material: Material::Oauth(Box::new(Grant {
            access: Some(Access { token: secret("access-token-0"), expires, obtained: now }),
            refresh: Some(secret("refresh-0")),
            refresh_expires: None,
            deadline: None,
            subject: Some("alice".to_owned()),
            provider_scopes: vec!["read".to_owned(), "write".to_owned()],
            used: None,
            state: GrantState::Fresh,
        })),
        scopes: Some(["deals:read".parse().unwrap(), "deals:write".parse().unwrap()].into()),
        metadata: BTreeMap::from([("instance".to_owned(), "acme".to_owned())]),
        authorization: Some("consent-1".to_owned()),
    }
}

impl World {
    /// One account whose token lives so long, and a provider that rotates.
    pub(super) async fn new(life: Duration) -> Self {
        Self::with(rotating(), life).await
    }

    pub(super) async fn with(dialect: Value, life: Duration) -> Self {
        let vault = Vault::in_memory(&Drain::default()).await.unwrap();
        let clock = clock();
        vault.add(connected(&clock, key(), life)).await.unwrap();
        Self::over(vault, Provider::new(clock.clone()), clock, connector(&dialect))
    }

    /// The same over a vault that fails when it is told to.
    pub(super) async fn faulty(life: Duration) -> (Self, Faults) {
        let ((vault, faults), clock) = (Vault::faulty(&Drain::default()).await, clock());
        vault.add(connected(&clock, key(), life)).await.unwrap();
        let provider = Provider::new(clock.clone());
        (Self::over(vault, provider, clock, connector(&rotating())), faults)
    }

    /// Accounts whose tokens are minted, each for an hour.
    pub(super) async fn minting(kind: &str, accounts: Vec<NewAccount>) -> Self {
        let vault = Vault::in_memory(&Drain::default()).await.unwrap();
        for account in accounts {
            vault.add(account).await.unwrap();
        }
        let clock = clock();
        let world = Self::over(vault, Provider::new(clock.clone()), clock, minting(kind));
        world.follow();
        world
    }

    pub(super) fn over(vault: Vault, provider: Provider, clock: Clock, connector: Arc<Connector>) -> Self {
        let (registry, drain) = (Registry::new(), Drain::default());
        let connector = Arc::new(Mutex::new(connector));
        let current = Arc::clone(&connector);
        let needs = Arc::new(Mutex::new(BTreeSet::from(["deals:read".parse().unwrap()])));
        let needed = Arc::clone(&needs);
        let apps = json!({"apps": {"crm": {"client_id": "kb-client"}}});
        let apps = Apps::load(&serde_json::from_value::<oauth::Config>(apps).unwrap()).unwrap();
        let engine = Engine::new(Parts {
            vault: vault.clone(),
            exchange: Arc::new(provider.clone()),
            apps,
            connectors: Arc::new(move |_| Some(Arc::clone(&current.lock().unwrap()))),
            needs: Arc::new(move |_, _| needed.lock().unwrap().clone()),
            clock: clock.clone(),
            config: Config::default(),
            metrics: Metrics::register(&registry).unwrap(),
            drain: drain.clone(),
            replica: "one".to_owned(),
        });
        let resolver = Resolver::local(Local::new(Arc::new(vault.clone())).refreshing(engine.clone()));
        let grants = json!([{"connector": "crm", "as": "tenant", "scopes": ["deals:read", "deals:write"]}]);
        let role: RoleSpec = serde_json::from_value(json!({"tenants": ["*"], "grants": grants})).unwrap();
        let policy = Arc::new(Policy::compile(vec![("writer".parse().unwrap(), role)]).unwrap());
        Self { vault, provider, engine, resolver, clock, connector, registry, drain, needs, policy }
    }

    pub(super) fn current(&self) -> Arc<Connector> {
        Arc::clone(&self.connector.lock().unwrap())
    }

    pub(super) fn permit_of(&self, tenant: &str, method: &http::Method) -> Permit {
        let connector = self.current();
        let path = CanonicalPath::parse("/deals").unwrap();
        let host = Host::parse("api.crm.test").unwrap();
        let spec_catalog = catalog_of(&connector);
        let located = spec_catalog.locate(&host, None).unwrap();
        let route = located.operation(method, &path, None).unwrap();
        let op = Op {
            name: &route.operation.name,
            effect: route.operation.effect,
            scopes: &route.operation.scopes,
        };
        let subject =
            Subject { tenant: tenant.parse().unwrap(), role: "writer".parse().unwrap(), user: None };
        self.policy
            .decide(Question { subject: &subject, connector: &connector.name, operation: Some(op) })
            .unwrap()
    }

    pub(super) fn permit(&self) -> Permit {
        self.permit_of("acme", &http::Method::GET)
    }

    /// What a request gets.
    pub(super) async fn ask(&self) -> Result<Arc<Credential>, Error> {
        self.resolver.resolve(&self.permit(), &self.current(), None).await
    }

    /// The token that a request of a tenant's gets.
    pub(super) async fn token_of(&self, tenant: &str) -> Result<String, Error> {
        let permit = self.permit_of(tenant, &http::Method::GET);
        Ok(token(&*self.resolver.resolve(&permit, &self.current(), None).await?))
    }

    /// The token that a request gets.
    pub(super) async fn token(&self) -> Result<String, Error> {
        Ok(token(&*self.ask().await?))
    }

    /// What a request gets that the provider refused with this credential.
    pub(super) async fn challenged(&self, refused: &Credential) -> Option<Arc<Credential>> {
        self.resolver.challenged(&self.permit(), &self.current(), None, refused).await
    }

    /// Why a request gets none.
    pub(super) async fn trouble(&self) -> Trouble {
        match self.token().await {
            Err(Error::NoToken { trouble, host }) => {
                assert_eq!(host, "login.crm.test");
                trouble
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn account(&self) -> Account {
        self.vault.account(&key()).await.unwrap().unwrap()
    }

    pub(super) async fn grant(&self) -> Grant {
        grant(&self.account().await)
    }

    /// What the resolver is told when the vault changes, as the app does.
    pub(super) fn follow(&self) {
        let (resolver, mut changes) = (self.resolver.clone(), self.vault.changes());
        self.drain.spawn(async move {
            while let Ok(change) = changes.recv().await {
                resolver.follow(&change).await;
            }
        });
    }

    /// Sets going what refreshes in the background.
    pub(super) fn schedule(&self) {
        self.drain.spawn(self.engine.clone().schedule());
    }

    /// What there is to tell, by event.
    pub(super) async fn told(&self) -> Vec<String> {
        let notes = self.vault.outbox(1000).await.unwrap();
        let events = notes
            .into_iter()
            .flat_map(|note| super::super::note::Note::events(&note.account, &note.text.unwrap()).unwrap());
        events
            .map(|event| match event.error {
                Some(cause) => format!("{} {cause}", event.event.unwrap()),
                None => event.event.unwrap().into_owned(),
            })
            .collect()
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap().contains(line)
    }
}

pub(super) fn grant(account: &Account) -> Grant {
    match &account.material {
        Material::Oauth(grant) => Grant::clone(grant),
        Material::Static { .. } | Material::Seed { .. } => panic!("not a grant"),
    }
}

pub(super) fn token(credential: &Credential) -> String {
    let mut headers = http::HeaderMap::new();
    let _ = credential.inject(&mut headers, None);
    headers[http::header::AUTHORIZATION].to_str().unwrap().trim_start_matches("Bearer ").to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside what a grant may have")]
pub(super) fn spent(text: &str) -> Option<Secret> {
    Some(secret(text))
}

fn catalog_of(_connector: &Connector) -> Catalog {
    let spec = json!({
        "hosts": ["api.crm.test"],
        "auth": {"type": "static"},
        "inject": [{"header": "Authorization", "value": "Bearer {token}"}],
        "scopes": {"deals:read": [], "deals:write": []},
        "operations": [{"name": "deal.read", "request": "GET /deals", "scopes": ["deals:read"]},
                       {"name": "deal.write", "request": "POST /deals", "scopes": ["deals:write"]}],
    });
    Catalog::compile(vec![("crm".parse().unwrap(), serde_json::from_value(spec).unwrap())]).unwrap()
}
