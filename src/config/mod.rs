//! The configuration: the sum of the modules' own sections.
//!
//! `keybearer.yaml` is read first, then `KEYBEARER_*` variables override it key by key
//! (`KEYBEARER_LISTEN__PROXY=127.0.0.1:8080`). Relative paths are relative to the file, or to the working
//! directory where there is no file.

mod environment;
mod paths;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    admin, admission, audit, broker, credential,
    document::{self, Finding},
    identity, oauth, proxy, regular, ruleset, telemetry, tls, vault,
};

/// The file's name in the working directory and in the XDG configuration directory.
pub const FILE: &str = "keybearer.yaml";
/// Far more than people write there, in bytes.
const LARGEST: u64 = 4 << 20;

/// Everything that can be configured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the proxy listens.
    pub listen: Listen,
    /// Where the vault, the CA, the audit log and the admin socket are; `$XDG_DATA_HOME/keybearer` if left out.
    pub data_dir: PathBuf,
    /// Who asks.
    pub identity: identity::Config,
    /// Folders, files and signed bundles with roles, connectors and bindings; `./policies` if left out.
    pub policies: Vec<ruleset::Origin>,
    /// Where requests may go.
    pub egress: proxy::Egress,
    /// The apps that providers know us by.
    pub oauth: oauth::Config,
    /// Keeping tokens alive.
    pub refresh: credential::Config,
    /// Accounts at rest.
    pub vault: vault::Config,
    /// What happened.
    pub audit: audit::Config,
    /// Bounds.
    pub limits: proxy::Limits,
    /// The proxy's own certificate authority.
    pub ca: tls::CaConfig,
    /// The admin API.
    pub admin: admin::Config,
    /// What identity providers may tell of users.
    pub lifecycle: admin::LifecycleConfig,
    /// What sidecars ask that hold no key.
    pub broker: broker::Config,
    /// What is injected into pods.
    pub webhook: admission::Config,
    /// Logs and metrics.
    pub telemetry: telemetry::Config,
    /// The variables that `{env: NAME}` names and secrets were read from. What we start must not inherit them.
    #[serde(skip)]
    pub secret_variables: Vec<String>,
}

/// The `listen:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Where agents connect.
    pub proxy: SocketAddr,
    /// Where connections are redirected to by `keybearer redirect install`; left out, nowhere. 127.0.0.1
    /// stands for `::1`, too, since each IP version is redirected to its own loopback address.
    pub transparent: Option<SocketAddr>,
    /// Metrics and health.
    pub admin: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { proxy: loopback(7080), transparent: None, admin: loopback(7090) }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error(transparent)]
    File(#[from] Finding),
    /// A variable is not what it should be.
    #[error("{variables}: {text}")]
    Environment {
        /// The variables that were looked at.
        variables: String,
        /// What is wrong.
        text: String,
    },
    /// Values that do not go together, and what to write instead.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// Reads the configuration: `explicit`, or `./keybearer.yaml`, or the one in the XDG configuration
    /// directory, or none; then the environment over it.
    ///
    /// # Errors
    /// [`Error`], with the place and what to do.
    pub fn load(explicit: Option<&Path>) -> Result<Self, Error> {
        let file = explicit.map(Path::to_path_buf).or_else(paths::found);
        let text = file.as_deref().map(read).transpose()?.unwrap_or_default();
        let from_file: Self = parse(&text, file.as_deref())?;
        let mut config = environment::over(from_file, &text)?;
        environment::read_secrets(&mut config);
        let base = file.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new(""));
        config.checked()?.placed(base)
    }

    /// A vault key from the environment variable of this name, which may not be set.
    #[must_use]
    pub fn vault_key_of(variable: &str) -> vault::KeySource {
        environment::read_key(variable)
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    fn checked(self) -> Result<Self, Error> {
        let listeners =
            [("listen.proxy", Some(self.listen.proxy)), ("listen.transparent", self.listen.transparent)];
        for (key, address) in listeners {
            let outside = address.filter(|address| !address.ip().is_loopback());
            if let Some(address) = outside.filter(|_| self.identity.mode == identity::Mode::Open) {
                return Err(Error::Invalid(format!(
                    "identity.mode is open, which believes everyone, but {key} is {address}; listen on 127.0.0.1, or set identity.mode to signed"
                )));
            }
        }
        if self.limits.header_bytes < 8192 {
            return Err(Error::Invalid("limits.header_bytes must be at least 8192".to_owned()));
        }
        Ok(self)
    }
}

fn read(path: &Path) -> Result<String, Error> {
    // Of whatever kind, because a shell may hand it over as a pipe.
    let file = std::fs::File::open(path).and_then(|file| regular::bounded_text(file, LARGEST));
    file.map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

fn parse<T: serde::de::DeserializeOwned + Default>(text: &str, path: Option<&Path>) -> Result<T, Error> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let (position, says) = document::told(&error);
        Finding::at(path.unwrap_or_else(|| Path::new(FILE)), text, position, says).into()
    })
}
