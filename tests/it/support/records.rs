//! The connector `records`, whose provider is the issuer: for tests of what becomes of its accounts' tokens.

use std::{path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};
use keybearer::{
    drain::Drain,
    id::{AccountKey, ConnectorName, Principal, TenantId},
    secret::Secret,
    vault::{
        Access, Backend, Claim, Config, DatabaseUrl, Grant, GrantState, KeySource, Material, NewAccount, Url,
        Vault,
    },
};

use super::{
    issuer::{CLIENT, CLIENT_SECRET, Issuer, Sold},
    provider::TestAuthority,
    stage::Staging,
};

/// What answers an agent with its account and the token's generation.
pub(crate) const URL: &str = "http://api.provider.test/me";

pub(crate) const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: records}
spec:
  hosts: ["api.provider.test"]
  auth:
    type: oauth2
    authorize_url: https://auth.provider.test/authorize
    token_url: https://auth.provider.test/token
    dialect: {rotation: {rotates: always, old_access_dies: true}}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {records:read: [read], records:write: [read]}
  operations:
    - {name: me, request: "GET /me", scopes: [records:read]}
    - {name: note.add, request: "POST /notes", scopes: [records:write]}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: records, as: tenant, scopes: [records:read, records:write]}]
"#;

/// The app that the issuer knows; its secret lies in `client.secret`.
pub(crate) const APP: (&str, &str) = ("client.secret", CLIENT_SECRET);

/// The configuration's part about it.
pub(crate) fn oauth() -> String {
    format!("oauth: {{apps: {{records: {{client_id: {CLIENT}, client_secret: {{file: {}}}}}}}}}\n", APP.0)
}

/// The vault's section for this database, with the key in a folder.
pub(crate) fn vault(url: &str, folder: &Path) -> String {
    let key = folder.join("key");
    format!("vault: {{backend: postgres, url: '{url}', key: {{file: {}}}, timeout: 1m}}\n", key.display())
}

/// The same vault without a proxy, made where there is none.
pub(crate) async fn open(url: &str, folder: &Path) -> Vault {
    keybearer::tls::init_crypto();
    let config = Config {
        backend: Backend::Postgres,
        url: Some(Url::Database(DatabaseUrl::parse(url).unwrap())),
        key: Some(KeySource::File(folder.join("key"))),
        timeout: Duration::from_mins(1),
        ..Config::default()
    };
    let claim = Claim { command: "a test".to_owned(), admin_socket: None };
    Vault::init(&config, folder, &claim, &Drain::default()).await.unwrap().0
}

/// A proxy in this process before the issuer.
pub(crate) fn staging(config: &str, issuer: &Issuer, authority: &TestAuthority) -> Staging {
    Staging {
        policies: vec![("policy.yaml", POLICY.to_owned())],
        config: format!("{}{config}", oauth()),
        resolve: issuer.profile().hosts.iter().map(|host| ((*host).to_owned(), issuer.address())).collect(),
        accounts: Vec::new(),
        files: vec![APP],
        authority: authority.clone(),
        ..Staging::default()
    }
}

pub(crate) fn key(tenant: &str) -> AccountKey {
    AccountKey {
        tenant: TenantId::new(tenant).unwrap(),
        connector: ConnectorName::new("records").unwrap(),
        principal: Principal::Tenant,
    }
}

/// An account whose access token is over.
pub(crate) fn expired(tenant: &str, sold: Sold) -> NewAccount {
    account(tenant, sold, -1)
}

/// An account whose access token was obtained two hours ago, and ends in so many.
pub(crate) fn account(tenant: &str, sold: Sold, hours: i64) -> NewAccount {
    let secret = |text: String| Secret::new(text.into_bytes());
    let after = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    let access = Access { token: secret(sold.access), expires: Some(after(hours)), obtained: after(-2) };
    NewAccount {
        key: key(tenant),
        material: Material::Oauth(Box::new(Grant {
            access: Some(access),
            refresh: sold.refresh.map(secret),
            refresh_expires: None,
            deadline: None,
            subject: None,
            provider_scopes: vec!["read".to_owned()],
            used: None,
            state: GrantState::Fresh,
        })),
        scopes: None,
        metadata: std::collections::BTreeMap::default(),
        authorization: None,
    }
}
