//! Sidecars that hold no key: they have their credentials from a broker, and prove themselves by a token of their pod's.

use std::{fs, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;

use super::{Config, server::Error};
use crate::{
    fetch::Url,
    tls::{self, Roots, certificate_pem},
};

/// A sidecar is given the roots in a variable, and the system bounds those; a CA takes a kilobyte or two.
const LARGEST_ROOTS: usize = 32 << 10;

/// `webhook.broker`: where sidecars have their credentials from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Its address, `https://`.
    pub url: String,
    /// Whom the sidecars' tokens are for.
    #[serde(default = "audience")]
    pub audience: String,
    /// The CA of its certificate, PEM, where that is not one that systems trust. The webhook reads it for each pod.
    #[serde(default)]
    pub roots_file: Option<PathBuf>,
    /// The certificates of that file, PEM, and nothing else that may be in it; read by [`start`](super::start).
    #[serde(skip)]
    pub roots: Option<String>,
}

fn audience() -> String {
    "keybearer".to_owned()
}

impl Broker {
    fn check(&self) -> Result<(), Error> {
        let is_https = Url::parse(&self.url).is_ok_and(|url| !url.is_cleartext());
        if is_https { Ok(()) } else { Err(Error::BrokerUrl(self.url.clone())) }
    }

    fn read(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.roots_file else { return Ok(None) };
        Roots::File(path.clone()).load()?;
        let pem = fs::read(path).map_err(|source| tls::Error::Read { path: path.clone(), source })?;
        let certificates = CertificateDer::pem_slice_iter(&pem).flatten();
        let roots: String = certificates.map(|certificate| certificate_pem(&certificate)).collect();
        if roots.len() > LARGEST_ROOTS {
            return Err(Error::BrokerRoots(path.clone()));
        }
        Ok(Some(roots))
    }
}

/// The settings, with what files hold by now.
pub(super) struct Settings(ArcSwap<Config>);

impl Settings {
    /// # Errors
    /// Where the broker's address is none, or its CA cannot be read.
    pub(super) fn open(mut config: Config) -> Result<Self, Error> {
        if let Some(broker) = &mut config.broker {
            broker.check()?;
            broker.roots = broker.read()?;
        }
        Ok(Self(ArcSwap::from_pointee(config)))
    }

    /// Where the broker's CA cannot be read any more, it stays what it was.
    pub(super) fn current(&self) -> Arc<Config> {
        let config = self.0.load_full();
        let Some(broker) = &config.broker else { return config };
        match broker.read() {
            Ok(roots) if roots == broker.roots => config,
            Ok(roots) => {
                let broker = Some(Broker { roots, ..broker.clone() });
                let fresh = Arc::new(Config { broker, ..Config::clone(&config) });
                self.0.store(Arc::clone(&fresh));
                fresh
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the broker's last CA stays in use");
                config
            }
        }
    }
}
