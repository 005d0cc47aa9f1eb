//! The real app on free ports, before a real provider, with two tenants' accounts.
//!
//! When a stage is dropped it looks for the accounts' secrets in everything that the app wrote: audit log,
//! metrics, its whole data directory but the sealed store. A test that leaks fails, whatever it tests.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keybearer::{
    app::App,
    config::Config,
    id::{AccountKey, ConnectorName, Principal, TenantId},
    secret::Secret,
    vault::{Material, NewAccount},
};
use serde_json::Value;
use tempfile::TempDir;

use super::evidence;
use super::provider::{Credentials, Provider, Registries, Setup, Speaks, TestAuthority};

/// The provider's name, which only the proxy's own configuration knows an address of.
pub(crate) const HOST: &str = "api.crm.test";
/// A name of the same provider that no connector describes.
pub(crate) const OTHER: &str = "other.crm.test";

/// What each tenant's account of the connector `crm` holds.
pub(crate) const SECRETS: [(&str, &str); 2] =
    [("acme", "kb-canary-acme-4f1d9c7ab2"), ("globex", "kb-canary-globex-77ab03e9c1")];

/// The connector, roles and bindings that most tests need.
pub(crate) const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: ["api.crm.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  strip: {headers: [X-Crm-User], query: [key, token], form: [token]}
  scopes: {accounts:read: [], opportunities:write: [], records:delete: []}
  operations:
    - {name: account.read, request: ["GET /echo", "GET /anything", "HEAD /echo", "OPTIONS /echo"], scopes: [accounts:read]}
    - {name: opportunity.update, request: ["PATCH /echo", "POST /echo", "PUT /echo", "POST /anything"], scopes: [opportunities:write]}
    - {name: record.delete, request: "DELETE /echo", scopes: [records:delete]}
    - {name: file.upload, request: ["PUT /upload", "POST /upload"], scopes: [accounts:read], effect: read}
    - {name: file.read, request: ["GET /bytes/{n}", "GET /trailers", "GET /slow-head"], scopes: [accounts:read]}
    - {name: events, request: ["GET /stream/{n}", "GET /stream/{n}/paced", "GET /ws"], scopes: [accounts:read]}
    - {name: call, request: ["POST /echo.Echo/Unary", "POST /echo.Echo/Stream"], scopes: [accounts:read], effect: read}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: tenant, scopes: [accounts:read]}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: publisher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: tenant, scopes: [accounts:read, opportunities:write, records:delete]}]
  deny: [{connector: crm, operations: [record.delete]}]
"#;

/// How a stage is set. The default is [`POLICY`], an account for each tenant, and a provider of both protocols.
pub(crate) struct Staging {
    /// The files of the policy folder.
    pub(crate) policies: Vec<(&'static str, String)>,
    /// More of the configuration, as YAML.
    pub(crate) config: String,
    /// Left out, the provider's address is what `api.crm.test` resolves to.
    pub(crate) resolve: Vec<(String, SocketAddr)>,
    /// Loopback is allowed unless a test is about the address guard.
    pub(crate) allow_loopback: bool,
    pub(crate) speaks: Speaks,
    pub(crate) accounts: Vec<NewAccount>,
    /// More credentials that the provider takes: secret and tenant.
    pub(crate) credentials: Vec<(String, String)>,
    pub(crate) names: Vec<String>,
    /// What the provider serves besides, to anybody.
    pub(crate) registries: Registries,
    /// More files beside the configuration.
    pub(crate) files: Vec<(&'static str, &'static str)>,
    /// Whom the proxy checks providers by.
    pub(crate) authority: TestAuthority,
}

impl Default for Staging {
    fn default() -> Self {
        Self {
            policies: vec![("policy.yaml", POLICY.to_owned())],
            config: String::new(),
            resolve: Vec::new(),
            allow_loopback: true,
            speaks: Speaks::default(),
            accounts: SECRETS
                .iter()
                .map(|(tenant, secret)| account(tenant, "crm", Principal::Tenant, secret))
                .collect(),
            credentials: Vec::new(),
            names: vec![HOST.to_owned(), OTHER.to_owned()],
            registries: Registries::default(),
            files: Vec::new(),
            authority: TestAuthority::new(),
        }
    }
}

/// A static account.
pub(crate) fn account(tenant: &str, connector: &str, principal: Principal, secret: &str) -> NewAccount {
    let fields = [("token".to_owned(), Secret::new(secret.as_bytes().to_vec()))];
    NewAccount {
        key: AccountKey {
            tenant: TenantId::new(tenant).unwrap(),
            connector: ConnectorName::new(connector).unwrap(),
            principal,
        },
        material: Material::Static { fields: fields.into() },
        scopes: None,
        metadata: std::collections::BTreeMap::default(),
        authorization: None,
    }
}

/// A running app and its provider.
pub(crate) struct Stage {
    pub(crate) provider: Provider,
    pub(crate) authority: TestAuthority,
    app: Option<App>,
    dir: TempDir,
    secrets: Vec<String>,
}

impl Stage {
    /// The default stage.
    pub(crate) async fn open() -> Self {
        Self::set(Staging::default()).await
    }

    pub(crate) async fn set(staging: Staging) -> Self {
        evidence::keep_logs();
        keybearer::tls::init_crypto();
        let dir = tempfile::tempdir().unwrap();
        let authority = &staging.authority;
        let mut table: Vec<(String, String)> =
            SECRETS.iter().map(|(tenant, secret)| ((*secret).to_owned(), (*tenant).to_owned())).collect();
        table.extend(staging.credentials.clone());
        let setup = Setup {
            names: staging.names.clone(),
            credentials: table.into_iter().collect::<Credentials>(),
            speaks: staging.speaks,
            registries: staging.registries.clone(),
            ..Setup::default()
        };
        let provider = Provider::start(authority, setup).await;
        std::fs::write(dir.path().join("roots.pem"), authority.pem()).unwrap();
        std::fs::create_dir(dir.path().join("policies")).unwrap();
        for (file, text) in &staging.policies {
            std::fs::write(dir.path().join("policies").join(file), text).unwrap();
        }
        for (file, text) in &staging.files {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let file = dir.path().join("keybearer.yaml");
        std::fs::write(&file, configuration(&staging, provider.address())).unwrap();
        let app = App::start(Config::load(Some(&file)).unwrap()).await.unwrap();
        let mut secrets = Vec::new();
        for new in staging.accounts {
            #[expect(clippy::disallowed_methods, reason = "what is looked for has to be known")]
            secrets.extend(
                new.material.fields().values().map(|s| String::from_utf8(s.expose().to_vec()).unwrap()),
            );
            app.vault.add(new).await.unwrap();
        }
        std::fs::write(dir.path().join("ca.pem"), &app.ca_pem).unwrap();
        Self { provider, authority: staging.authority, app: Some(app), dir, secrets }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// Where agents connect.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.app().proxy
    }

    /// The proxy as a URL, with `tenant/role` as its user name.
    pub(crate) fn proxy_url(&self, tenant: &str, role: &str) -> String {
        format!("http://{tenant}%2F{role}:x@{}", self.proxy())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The proxy's CA alone.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The provider's own CA.
    pub(crate) fn roots_file(&self) -> PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// Rewrites a policy file.
    pub(crate) fn write_policy(&self, file: &str, text: &str) {
        let path = self.dir.path().join("policies").join(file);
        let aside = self.dir.path().join("aside.yaml");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(aside, path).unwrap();
    }

    /// The audit log's events so far, oldest first.
    pub(crate) async fn events(&self) -> Vec<Value> {
        self.app().flush().await.unwrap();
        let text = std::fs::read_to_string(self.dir.path().join("data/audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The actions among the events.
    pub(crate) async fn actions(&self) -> Vec<Value> {
        self.events().await.into_iter().filter(|event| event["kind"] == "action").collect()
    }

    /// The last action.
    pub(crate) async fn last_action(&self) -> Value {
        self.actions().await.pop().expect("an action was recorded")
    }

    /// The event of an action whose answer has arrived. It is emitted when the answer's last byte has left, which
    /// may be a moment after the agent had it.
    pub(crate) async fn action(&self, id: &str) -> Value {
        let found = async {
            loop {
                if let Some(event) = self.actions().await.into_iter().find(|event| event["id"] == id) {
                    return event;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("the action is recorded")
    }

    /// Stops the app, lets the test change what lies in its folder, and starts it again.
    pub(crate) async fn restart(&mut self, between: impl FnOnce(&Path)) {
        self.app.take().unwrap().stop().await;
        between(self.dir.path());
        let config = Config::load(Some(&self.dir.path().join("keybearer.yaml"))).unwrap();
        self.app = Some(App::start(config).await.unwrap());
    }

    /// Stops the app as SIGTERM would. Returns how many tasks had to be cut off.
    pub(crate) async fn stop(mut self) -> usize {
        self.app.take().unwrap().stop().await
    }
}

fn configuration(staging: &Staging, provider: SocketAddr) -> String {
    let mut text = String::from("listen: {proxy: 127.0.0.1:0, admin: 127.0.0.1:0}\ndata_dir: ./data\n");
    text.push_str("policies: [./policies]\negress:\n  roots: {file: roots.pem}\n");
    if staging.allow_loopback {
        text.push_str("  allow_addresses: [127.0.0.0/8, \"::1/128\"]\n");
    }
    text.push_str("  resolve:\n");
    for name in &staging.names {
        if !staging.resolve.iter().any(|(other, _)| other == name) {
            writeln!(text, "    {name}: \"{provider}\"").unwrap();
        }
    }
    for (name, address) in &staging.resolve {
        writeln!(text, "    {name}: \"{address}\"").unwrap();
    }
    text.push_str(&staging.config);
    text
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(app) = self.app.take() {
            evidence::keep("metrics", &app.metrics().unwrap());
        } // dropping the app writes the audit log out
        let log = self.dir.path().join("data/audit.jsonl");
        evidence::keep("audit", &std::fs::read(log).unwrap_or_default());
        for file in written(&self.dir.path().join("data")) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            for secret in &self.secrets {
                for spelling in spellings(secret) {
                    let found = memchr::memmem::find(&bytes, spelling.as_bytes());
                    assert!(found.is_none(), "a secret stands in {}", file.display());
                }
            }
        }
    }
}

/// A secret raw, in base64 at each alignment, in hex, and percent-encoded.
pub(crate) fn spellings(secret: &str) -> Vec<String> {
    use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
    let mut all = vec![secret.to_owned()];
    for skip in 0..3 {
        let encoded = BASE64_STANDARD_NO_PAD.encode(&secret.as_bytes()[skip..]);
        all.push(encoded[..encoded.len() - 2].to_owned());
    }
    let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    all.push(hex.to_ascii_uppercase());
    all.push(hex);
    all.push(percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string());
    all
}

/// Every file below a folder.
fn written(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(written(&path));
        } else {
            files.push(path);
        }
    }
    files
}
