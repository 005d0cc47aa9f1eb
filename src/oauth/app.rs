//! The apps that a provider knows us by: client id, and a secret or a key.

use std::{collections::BTreeMap, fs::File, io, path::PathBuf, sync::Arc};

use serde::Deserialize;

use super::key::SigningKey;
use crate::{
    id::{ConnectorName, TenantId},
    regular,
    secret::Secret,
};

/// No secret or key file is longer.
const LONGEST: u64 = 64 * 1024;

/// The `oauth:` section of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where providers send people back to, as it was registered with them: the callback's public URL.
    pub redirect_url: Option<String>,
    /// The apps, by `connector` or `connector/tenant`; a tenant's own wins.
    pub apps: BTreeMap<String, AppConfig>,
}

/// One app of [`Config::apps`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// What the provider calls the app.
    pub client_id: String,
    /// Its secret; without one and without a key it is a public client.
    #[serde(default)]
    pub client_secret: Option<SecretSource>,
    /// Its private key in PEM: RSA, P-256 or Ed25519.
    #[serde(default)]
    pub private_key: Option<SecretSource>,
    /// The key's name at the provider (`kid`).
    #[serde(default)]
    pub key_id: Option<String>,
}

impl AppConfig {
    /// Where its secrets are, for `config` to resolve.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut SecretSource> {
        [&mut self.client_secret, &mut self.private_key].into_iter().flatten()
    }
}

/// Where a secret is: `{file: ...}` or `{env: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// A file. A relative path is the caller's to resolve.
    File(PathBuf),
    /// The name of an environment variable. `config` reads it and puts a [`SecretSource::Value`] here; one that is
    /// still here when the apps are loaded was not set.
    Env(String),
    /// The secret itself.
    #[serde(skip)]
    Value(Secret),
}

/// An app of ours at a provider.
#[derive(Debug)]
pub struct App {
    /// What the provider calls it.
    pub client_id: String,
    /// How it proves that it is.
    pub auth: ClientAuth,
    /// Where providers send people back to: [`Config::redirect_url`].
    pub redirect_url: Option<String>,
}

/// How an app proves that it is the one.
#[derive(Debug)]
pub enum ClientAuth {
    /// By a secret that both know; where it goes is the dialect's.
    Secret(Secret),
    /// By signing (RFC 7523 §2.2).
    PrivateKey(SigningKey),
    /// Not at all: a public client.
    None,
}

/// Why the section cannot be used. Each says what to write instead; none holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key of `apps` that names neither a connector nor one and a tenant.
    #[error("oauth.apps: `{0}` is neither `connector` nor `connector/tenant`")]
    Key(String),
    /// Both a secret and a key, one of which would never be used.
    #[error("oauth.apps.{0} has client_secret and private_key: leave one of them out")]
    Two(String),
    /// No client id.
    #[error("oauth.apps.{0}: client_id is empty")]
    NoClientId(String),
    /// The redirect URL is no absolute one.
    #[error(
        "oauth.redirect_url is no https:// URL (http:// only for a loopback address), or has a #fragment"
    )]
    Redirect,
    /// A file could not be read.
    #[error("oauth.apps.{app}: cannot read {}", path.display())]
    Read {
        /// Which app.
        app: String,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A variable that is not set.
    #[error("oauth.apps.{app}: the environment variable {variable} is not set")]
    NotSet {
        /// Which app.
        app: String,
        /// Its name.
        variable: String,
    },
    /// A secret that no header and no form can carry.
    #[error("oauth.apps.{0}: the secret is empty, or has a line break in it")]
    Secret(String),
    /// A key that cannot sign.
    #[error("oauth.apps.{0}: private_key is no RSA, P-256 or Ed25519 key in PEM")]
    PrivateKey(String),
}

/// Every app, ready to be used.
#[derive(Debug, Clone, Default)]
pub struct Apps {
    redirect_url: Option<String>,
    of_connector: BTreeMap<ConnectorName, Arc<App>>,
    of_tenant: BTreeMap<(TenantId, ConnectorName), Arc<App>>,
}

impl Apps {
    /// Reads the section's secrets.
    ///
    /// # Errors
    /// [`ConfigError`], with what to write instead.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        if config.redirect_url.as_deref().is_some_and(|url| !is_redirect(url)) {
            return Err(ConfigError::Redirect);
        }
        let mut apps = Self { redirect_url: config.redirect_url.clone(), ..Self::default() };
        for (key, config) in &config.apps {
            let app = Arc::new(App { redirect_url: apps.redirect_url.clone(), ..App::load(key, config)? });
            let unknown = |_| ConfigError::Key(key.clone());
            match key.split_once('/') {
                None => apps.of_connector.insert(ConnectorName::new(key).map_err(unknown)?, app),
                Some((connector, tenant)) => {
                    let connector = ConnectorName::new(connector).map_err(unknown)?;
                    apps.of_tenant.insert((TenantId::new(tenant).map_err(unknown)?, connector), app)
                }
            };
        }
        Ok(apps)
    }

    /// The app for a tenant's accounts of a connector: the tenant's own, or the connector's.
    #[must_use]
    pub fn of(&self, connector: &ConnectorName, tenant: &TenantId) -> Option<&Arc<App>> {
        let own = self.of_tenant.get(&(tenant.clone(), connector.clone()));
        own.or_else(|| self.of_connector.get(connector))
    }

    /// Where providers send people back to.
    #[must_use]
    pub fn redirect_url(&self) -> Option<&str> {
        self.redirect_url.as_deref()
    }
}

impl App {
    /// No app at all, for grants that need none: an assertion says who asks (RFC 7523 §3.1).
    #[must_use]
    pub const fn anonymous() -> Self {
        Self { client_id: String::new(), auth: ClientAuth::None, redirect_url: None }
    }

    fn load(name: &str, config: &AppConfig) -> Result<Self, ConfigError> {
        if config.client_id.trim().is_empty() {
            return Err(ConfigError::NoClientId(name.to_owned()));
        }
        let auth = match (&config.client_secret, &config.private_key) {
            (Some(_), Some(_)) => return Err(ConfigError::Two(name.to_owned())),
            (Some(source), None) => ClientAuth::Secret(source.load_line(name)?),
            (None, Some(source)) => {
                let key = SigningKey::from_pem(&source.load(name)?, config.key_id.clone());
                ClientAuth::PrivateKey(key.ok_or_else(|| ConfigError::PrivateKey(name.to_owned()))?)
            }
            (None, None) => ClientAuth::None,
        };
        Ok(Self { client_id: config.client_id.clone(), auth, redirect_url: None })
    }
}

impl SecretSource {
    fn load(&self, app: &str) -> Result<Secret, ConfigError> {
        match self {
            Self::File(path) => read(path).map_err(|source| ConfigError::Read {
                app: app.to_owned(),
                path: path.clone(),
                source,
            }),
            Self::Env(variable) => {
                Err(ConfigError::NotSet { app: app.to_owned(), variable: variable.clone() })
            }
            Self::Value(secret) => Ok(secret.clone()),
        }
    }

    /// A secret of one line; the line break at its end is the editor's.
    fn load_line(&self, app: &str) -> Result<Secret, ConfigError> {
        let secret = self.load(app)?;
        #[expect(clippy::disallowed_methods, reason = "checked once, before it is sent to a token endpoint")]
        let text = secret.expose().trim_ascii_end();
        if text.is_empty() || text.iter().any(u8::is_ascii_control) {
            return Err(ConfigError::Secret(app.to_owned()));
        }
        Ok(Secret::new(text.to_vec()))
    }
}

fn read(path: &PathBuf) -> io::Result<Secret> {
    regular::bounded(File::open(path)?, LONGEST).map(Secret::new)
}

fn is_redirect(text: &str) -> bool {
    let Ok(url) = oauth2::url::Url::parse(text) else { return false };
    let loopback = match url.host() {
        Some(oauth2::url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(oauth2::url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(oauth2::url::Host::Domain(name)) => name == "localhost",
        None => return false,
    };
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    scheme && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
}
