//! Every shipped connector, and every value of a dialect's axes, through the product's code against a provider that
//! takes nothing else: consent, code, refresh, a dead grant, a wrong secret, revocation.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use keybearer::{
    cause::Cause,
    dial::{AddressGuard, Dialer},
    drain::Drain,
    host::Host,
    oauth::{
        App, AppFault, Ask, Callback, ClientAuth, Failure, Hint, Provider, RawAnswer, Reach, Rotates,
        SigningKey, TokenEndpoint, Tokens, Transport,
    },
    ruleset::Ruleset,
    secret::Secret,
    tls::{Alpn, upstream_config},
};
use rcgen::KeyPair;

use crate::support::{
    direct::Direct,
    issuer::{
        CLIENT, CLIENT_SECRET, Cause as Ended, ClientAuth as Proof, Expiry, Issuer, REDIRECT, RevokedBy,
        Told, Worth,
    },
    provider::TestAuthority,
};

mod faults;
mod grants;
mod table;

use table::Row;

/// The provider's scopes that are asked for.
const SCOPES: [&str; 2] = ["read", "write"];

/// What an account's metadata fills into URLs.
fn metadata(name: &str) -> Option<&'static str> {
    match name {
        "instance" => Some("na47"),
        "subdomain" | "shop" => Some("acme"),
        _ => None,
    }
}

/// The product's code before one strict provider.
struct Ground {
    name: &'static str,
    authority: TestAuthority,
    issuer: Issuer,
    provider: Arc<Provider>,
    app: Arc<App>,
    endpoint: TokenEndpoint,
}

impl Ground {
    async fn new(row: Row) -> Self {
        keybearer::tls::init_crypto();
        let authority = TestAuthority::new();
        let provider = provider(&row);
        let issuer = Issuer::start(&authority, row.profile).await;
        let app = Arc::new(app(&issuer));
        let address = issuer.address().to_string().try_into().unwrap();
        let names = issuer.profile().hosts.iter().map(|host| (Host::parse(host).unwrap(), address));
        let guard = AddressGuard::new(&["127.0.0.0/8".parse().unwrap()]);
        let limit = Duration::from_mins(1);
        let dialer = Dialer::new(names.collect(), guard, limit);
        let transport =
            Transport::new(dialer, Arc::new(upstream_config(&authority.roots(), Alpn::H1)), limit);
        let endpoint = TokenEndpoint::new(&transport, &provider, &app, &metadata).unwrap();
        Self { name: row.name, authority, issuer, provider, app, endpoint }
    }

    /// A person consents, and the code is exchanged.
    async fn connect(&self) -> Tokens {
        let scopes = SCOPES.map(str::to_owned);
        let ask = Ask { scopes: &scopes, claims: None };
        let (url, pending) = self.provider.consent(&self.app, REDIRECT, ask, &metadata).unwrap();
        let (host, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
        let request = Request::get(format!("/{path}")).body(Body::empty()).unwrap();
        let answer = self.direct(host).await.send(request).await.unwrap();
        let location = answer.headers().get(header::LOCATION).cloned();
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        let location = location.unwrap_or_else(|| panic!("{}: {url}: {said:?}", self.name));
        let (_, query) = location.to_str().unwrap().split_once('?').unwrap();
        let consented = pending.answered(Callback::parse(query).unwrap()).unwrap();
        let raw = consented.exchange(&self.endpoint).await.unwrap();
        self.read(&raw).unwrap_or_else(|failure| panic!("{}: {failure}", self.name))
    }

    async fn refresh(&self, token: &Secret) -> Result<Tokens, Failure> {
        let mut scopes = SCOPES.map(str::to_owned).to_vec();
        scopes.extend(self.provider.dialect.offline_scopes.clone());
        let raw = self.endpoint.refresh(token, &scopes).await?;
        self.read(&raw)
    }

    /// As the vault's quarantine would give it back.
    fn read(&self, raw: &RawAnswer) -> Result<Tokens, Failure> {
        RawAnswer::from_secret(&raw.to_secret()).unwrap().read(&self.provider.dialect)
    }

    async fn direct(&self, host: &str) -> Direct {
        Direct::connect(self.issuer.address(), &self.authority, host, &["http/1.1"]).await.unwrap()
    }

    /// What the provider's API thinks of an access token.
    async fn worth(&self, access: &Secret) -> Worth {
        let token = plain(access);
        let request = Request::get("/me")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header("x-shopify-access-token", token);
        let mut direct = self.direct(self.issuer.profile().hosts[0]).await;
        direct.send(request.body(Body::empty()).unwrap()).await.unwrap();
        self.issuer.calls().pop().unwrap().worth
    }
}

/// The connector's provider, read as the proxy reads it.
fn provider(row: &Row) -> Arc<Provider> {
    let dir = tempfile::tempdir().unwrap();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/connectors");
    let (path, name) = match row.auth {
        None => (shipped.join(format!("{}.yaml", row.name)), row.name),
        Some(auth) => {
            let file = dir.path().join("connector.yaml");
            let text = format!(
                "apiVersion: keybearer.dev/v1\nkind: Connector\nmetadata: {{name: it}}\nspec:\n  \
                 hosts: [\"{{instance}}.a.test\", \"{{subdomain}}.b.test\", \"{{shop}}.c.test\"]\n  \
                 auth: {auth}\n  inject: [{{header: Authorization, value: \"Bearer {{token}}\"}}]\n"
            );
            std::fs::write(&file, text).unwrap();
            (file, "it")
        }
    };
    let ruleset =
        Ruleset::load(&[path]).unwrap_or_else(|error| panic!("{}: {:?}", row.name, error.findings()));
    ruleset.catalog.connector(name).unwrap().auth.provider.clone().unwrap()
}

/// The app that the issuer knows, with what it proves itself by.
fn app(issuer: &Issuer) -> App {
    let auth = match issuer.profile().client_auth {
        Proof::Assertion => {
            let key = KeyPair::generate().unwrap();
            issuer.key(CLIENT, &key.public_key_pem());
            let pem = Secret::new(key.serialize_pem().into_bytes());
            ClientAuth::PrivateKey(SigningKey::from_pem(&pem, None).unwrap())
        }
        Proof::Public => ClientAuth::None,
        _ => ClientAuth::Secret(Secret::new(CLIENT_SECRET.as_bytes().to_vec())),
    };
    App { client_id: CLIENT.to_owned(), auth, redirect_url: Some(REDIRECT.to_owned()) }
}

#[expect(clippy::disallowed_methods, reason = "it is shown to the provider that sold it")]
fn plain(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

fn rows() -> impl Iterator<Item = Row> {
    table::connectors().into_iter().chain(table::values())
}

/// Checks every row, and names all that fail.
async fn every<F: Future<Output = ()> + Send + 'static>(check: impl Fn(Row) -> F) {
    let drain = Drain::default();
    let checks: Vec<_> = rows().map(|row| (row.name, drain.spawn(check(row)))).collect();
    let mut failed = Vec::new();
    for (name, check) in checks {
        failed.extend(check.await.is_err().then_some(name));
    }
    assert_eq!(failed, Vec::<&str>::new(), "each says above what it is about");
}

fn live(generation: usize) -> Worth {
    Worth::Live { account: "alice".to_owned(), generation }
}

#[tokio::test]
async fn a_code_and_a_refresh_buy_tokens_that_work() {
    every(|row| async move {
        let ground = Ground::new(row).await;
        let name = ground.name;
        let first = ground.connect().await;
        assert_eq!(ground.worth(&first.access).await, live(0), "{name}");
        let refresh = first.refresh.clone().unwrap_or_else(|| panic!("{name}: no refresh token"));
        let second = ground.refresh(&refresh).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(ground.worth(&second.access).await, live(1), "{name}");
        match (ground.provider.dialect.rotation.rotates, &second.refresh) {
            (Rotates::Always, next) => assert_ne!(next.as_ref(), Some(&refresh), "{name}: it was spent"),
            (Rotates::Never, next) => assert_eq!(*next, None, "{name}: it stays"),
            (Rotates::AppSetting, _) => {}
        }
        let third = ground.refresh(second.refresh.as_ref().unwrap_or(&refresh)).await;
        assert!(third.is_ok(), "{name}: {third:?}");
        assert_eq!(ground.issuer.presented("alice"), [1, 1], "{name}");
    })
    .await;
}

#[tokio::test]
async fn what_an_answer_tells_is_known() {
    every(|row| async move {
        let ground = Ground::new(row).await;
        let (name, profile) = (ground.name, ground.issuer.profile());
        let first = ground.connect().await;
        let second = ground.refresh(first.refresh.as_ref().unwrap()).await.unwrap();
        for tokens in [first, second] {
            let life = tokens.expires.map(|at| (at - Timestamp::now()).total(jiff::Unit::Second).unwrap());
            match profile.expiry {
                Expiry::Untold if profile.access_form == crate::support::issuer::AccessForm::Opaque => {
                    let lifetime = ground.provider.dialect.lifetime.map(|span| span.0.as_secs_f64());
                    assert_eq!(life.map(|_| ()), lifetime.map(|_| ()), "{name}");
                }
                #[expect(clippy::cast_precision_loss, reason = "a year has few seconds")]
                _ => {
                    let off = life.unwrap_or(f64::NAN) - profile.access_seconds as f64;
                    assert!(off.abs() < 60.0, "{name}: {off} s off");
                }
            }
            if profile.told_scopes != Told::Untold {
                let told = tokens.scopes.unwrap_or_else(|| panic!("{name}: no scopes"));
                assert!(SCOPES.iter().all(|scope| told.iter().any(|one| one == scope)), "{name}: {told:?}");
            }
            let ends = tokens.refresh.is_some().then_some(profile.refresh_expiry).flatten();
            assert_eq!(tokens.refresh_expires.is_some(), ends.is_some(), "{name}");
            let host = tokens.host.unwrap().map(|target| target.host.to_string());
            assert_eq!(host.is_some(), ground.provider.dialect.host_from.is_some(), "{name}: {host:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_grant_is_told_from_an_app_that_is_refused() {
    every(|row| async move {
        let ground = Ground::new(row).await;
        let name = ground.name;
        let refresh = ground.connect().await.refresh.unwrap();
        if matches!(ground.app.auth, ClientAuth::Secret(_)) {
            ground.issuer.secret(CLIENT, "another");
            let failure = ground.refresh(&refresh).await.unwrap_err();
            assert_eq!(failure, Failure::App(AppFault::Credentials), "{name}");
            ground.issuer.secret(CLIENT, CLIENT_SECRET);
        }
        ground.issuer.end("alice", Ended::Revoked);
        let failure = ground.refresh(&refresh).await.unwrap_err();
        assert_eq!(failure, Failure::Definitive(Cause::Revoked), "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_revocation_ends_what_the_dialect_says_it_ends() {
    every(|row| async move {
        let ground = Ground::new(row).await;
        let (name, dialect) = (ground.name, &ground.provider.dialect);
        let tokens = ground.connect().await;
        let refresh = tokens.refresh.clone().unwrap();
        let by_refresh = matches!(ground.issuer.profile().revocation.by, RevokedBy::Rfc7009(_));
        let (token, hint) = if by_refresh && dialect.revocation_reach != Reach::Token {
            (&refresh, Hint::RefreshToken)
        } else {
            (&tokens.access, Hint::AccessToken)
        };
        let done =
            ground.endpoint.revoke(token, hint).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(done, ground.provider.revoke_url.is_some(), "{name}");
        let worth = ground.worth(&tokens.access).await;
        let lives_on = !done || dialect.revocation_reach == Reach::RefreshToken;
        assert_eq!(worth == live(0), lives_on, "{name}: {worth:?}");
    })
    .await;
}

#[tokio::test]
async fn introspection_tells_what_an_answer_did_not() {
    let ground = Ground::new(table::connectors().pop().unwrap()).await;
    let tokens = ground.connect().await;
    let told = ground.endpoint.introspect(&tokens.access).await.unwrap();
    let life = (told.expires.unwrap() - Timestamp::now()).total(jiff::Unit::Second).unwrap();
    assert!(told.active && (7100.0..=7200.0).contains(&life), "{life}");
    ground.issuer.end("alice", Ended::Revoked);
    assert!(!ground.endpoint.introspect(&tokens.access).await.unwrap().active);
}
