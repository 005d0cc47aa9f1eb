//! Every value of every axis of the dialect (D1–D18), against a token endpoint over TLS that tells what it was asked.

mod answers;
mod apps;
mod connectors;
mod consent;
mod refusals;
mod requests;
mod server;
mod wire;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use self::server::{Asked, Server, json};
use super::{
    App, ClientAuth, Dialect, Failure, Grant, Provider, RawAnswer, SigningKey, TokenEndpoint, Tokens,
    Transport, transport::Received,
};
use crate::{
    dial::{AddressGuard, Dialer},
    host::Host,
    secret::Secret,
    tls::{Alpn, upstream_config},
};

/// By our clock.
const NOW: &str = "2026-11-21T12:00:00Z";
const SECRET: &str = "s3cret/+ %";
const TOKENS: &str =
    r#"{"access_token":"at-1","token_type":"bearer","expires_in":3600,"refresh_token":"rt-2"}"#;

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn dialect(yaml: &str) -> Dialect {
    serde_saphyr::from_str(&format!("{{{yaml}}}")).unwrap()
}

fn scopes(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// A key as an operator has one.
fn rsa_key() -> Secret {
    static PEM: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem()
    });
    secret(&PEM)
}

/// A provider at `https://idp.test`, our app there, and an account.
struct Stage {
    server: Server,
    provider: Provider,
    app: App,
    metadata: BTreeMap<&'static str, &'static str>,
    limit: Duration,
    clock: Timestamp,
}

impl Stage {
    /// A provider that speaks this dialect and answers every request alike.
    async fn new(yaml: &str, answer: &str) -> Self {
        let provider = Provider {
            token_url: Some("https://idp.test/token".to_owned().try_into().unwrap()),
            revoke_url: Some("https://idp.test/revoke".to_owned().try_into().unwrap()),
            dialect: dialect(yaml),
            ..Provider::default()
        };
        let app = App {
            client_id: "app:1".to_owned(),
            auth: ClientAuth::Secret(secret(SECRET)),
            redirect_url: Some("https://keybearer.test/connect/callback".to_owned()),
        };
        let (metadata, limit) = (BTreeMap::from([("tenant", "contoso")]), Duration::from_secs(20));
        Self { server: Server::answering(answer).await, provider, app, metadata, limit, clock: now() }
    }

    fn with_key(mut self) -> Self {
        self.app.auth =
            ClientAuth::PrivateKey(SigningKey::from_pem(&rsa_key(), Some("k1".to_owned())).unwrap());
        self
    }

    fn with_token_url(mut self, url: &str) -> Self {
        self.provider.token_url = Some(url.to_owned().try_into().unwrap());
        self
    }

    fn transport(&self, allowed: &[&str]) -> Transport {
        let address = format!("127.0.0.1:{}", self.server.port).try_into().unwrap();
        let guard = AddressGuard::new(&allowed.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>());
        let names = ["idp.test", "acme.idp.test"].map(|name| (Host::parse(name).unwrap(), address));
        let dialer = Dialer::new(names.into(), guard, Duration::from_secs(20));
        let tls = Arc::new(upstream_config(&self.server.roots, Alpn::H1));
        let clock = self.clock;
        Transport::new(dialer, tls, self.limit).with_clock(Arc::new(move || clock))
    }

    fn endpoint(self) -> (Server, TokenEndpoint) {
        let transport = self.transport(&["127.0.0.0/8"]);
        let metadata = self.metadata;
        let values = move |name: &str| metadata.get(name).copied();
        let endpoint =
            TokenEndpoint::new(&transport, &Arc::new(self.provider), &Arc::new(self.app), &values).unwrap();
        (self.server, endpoint)
    }

    async fn code(self) -> (Asked, Result<Tokens, Failure>) {
        let (server, endpoint) = self.endpoint();
        let verifier = secret("verifier");
        let redirect = "https://keybearer.test/connect/callback";
        let raw = endpoint.exchange_code(&secret("code 1"), Some(&verifier), redirect).await.unwrap();
        (server.one().await, raw.read(&endpoint.provider().dialect))
    }

    async fn refresh(self) -> (Asked, Result<Tokens, Failure>) {
        let (server, endpoint) = self.endpoint();
        let raw = endpoint.refresh(&secret("rt-1"), &scopes(&["a", "b"])).await.unwrap();
        (server.one().await, raw.read(&endpoint.provider().dialect))
    }
}

/// An answer without a wire.
fn raw(grant: Grant, status: u16, headers: &[(&'static str, &str)], body: &str) -> RawAnswer {
    let headers = headers.iter().map(|(name, value)| {
        (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
    });
    let body = body.as_bytes().to_vec().into();
    RawAnswer::new(grant, Received { status, headers: headers.collect(), body, at: now() })
}

/// What a 200 to a code means in this dialect.
fn read(yaml: &str, body: &str) -> Result<Tokens, Failure> {
    raw(Grant::Code, 200, &[], body).read(&dialect(yaml))
}

/// How long an access token lives, in seconds.
fn life(tokens: &Tokens) -> Option<i64> {
    tokens.expires.map(|end| end.duration_since(now()).as_secs())
}
