//! Certificates on both sides: the CA and the leaves shown to agents, the roots that providers are checked by.
//!
//! [`Authority`] signs, [`Leaves`] keeps one leaf a name, [`Downstream`] serves them to agents;
//! [`Roots`] and [`upstream_config`] verify providers; [`Bundle`] is what agents are told to trust.

mod authority;
mod bundle;
mod downstream;
mod leaves;
mod roots;
mod served;
mod stored;
mod upstream;

use std::{cmp::Reverse, io, path::PathBuf};

use rustls::{CipherSuite, SupportedCipherSuite};
use serde::Deserialize;

pub use self::{
    authority::Authority,
    bundle::{Bundle, Format, STORE_PASSWORD, certificate_pem},
    downstream::Downstream,
    leaves::{Leaves, Metrics},
    roots::Roots,
    served::{Served, server_config},
    upstream::{Alpn, upstream_config},
};

/// The `ca:` section of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaConfig {
    /// Where `ca.pem` and `ca.key` lie; `ca` in the data directory if left out.
    pub dir: Option<PathBuf>,
    /// Keeps the CA in memory only: a new one at every start.
    pub ephemeral: bool,
    /// A file that the proxy writes at its start: the system's roots and the CA, for agents to trust, PEM; and beside it
    /// the same as trust stores for Java, `.p12` and `.jks`. No key is in them.
    pub bundle: Option<PathBuf>,
}

/// Makes aws-lc-rs the provider of every TLS configuration of this process. Called first thing in `main`.
///
/// AES-128-GCM is preferred to AES-256-GCM. Both are as strong as anybody needs; but the former's handshake is hashed
/// with SHA-256, for which processors have instructions, and the latter's with SHA-384, for which they have none:
/// a tenth of what a new connection costs. A provider that is installed already stays.
pub fn init_crypto() {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let is_aes_128 = |suite: &SupportedCipherSuite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    let version = |suite: &SupportedCipherSuite| suite.version().version;
    provider.cipher_suites.sort_by_key(|suite| (Reverse(u16::from(version(suite))), !is_aes_128(suite)));
    let _already = provider.install_default();
}

/// Why there is no CA, no leaf or no trust.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is there but cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or its directory cannot be made.
    #[error("cannot write {path}; make its directory writable, or set ca.ephemeral: true")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner may read or write the CA's key.
    #[error("{path} has mode {mode:04o}, so others can use the CA's key; run `chmod 600 {path}`")]
    LooseKey {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// `ca.pem` without `ca.key`. A new key would silently break every agent that trusts the old one.
    #[error(
        "{key} is missing beside {pem}; restore it, or remove {pem} to have a new CA made, which agents must then be given"
    )]
    KeyMissing {
        /// The certificate that is there.
        pem: PathBuf,
        /// The key that is not.
        key: PathBuf,
    },
    /// A file that should hold a CA's key or certificate does not.
    #[error(
        "{path} {reason}; restore it, or remove it and its pair to have a new CA made, which agents must then be given"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A server's certificate cannot be used.
    #[error("{path} {reason}; it must be a PEM chain, beside the key of its first certificate")]
    Served {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The trust bundle cannot be written.
    #[error("cannot write {path} (ca.bundle); make its directory writable")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The trust bundle's name is that of another format.
    #[error("ca.bundle is {0}, but that name is the trust store's beside it; name the PEM file bundle.pem")]
    BundleName(PathBuf),
    /// The CA's own life is over.
    #[error(
        "the CA expired on {0}; remove ca.pem and ca.key to have a new CA made, which agents must then be given"
    )]
    Expired(jiff::Timestamp),
    /// Making a key or certificate failed.
    #[error("cannot make a certificate")]
    Mint(#[from] rcgen::Error),
    /// TLS does not take what was made.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// A roots file that cannot be read.
    #[error("cannot read {path}, which `roots: {{file: ...}}` names")]
    RootsFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A roots file without any certificate, or with a broken one.
    #[error("{path} {reason}; roots need a PEM file of CA certificates")]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The same, written into the configuration.
    #[error("roots: {{pem: ...}} {0}; write the PEM text of CA certificates")]
    RootsText(&'static str),
    /// The system's roots are there but none can be read.
    #[error(
        "no root certificate of this system can be read ({0}); mend SSL_CERT_FILE or SSL_CERT_DIR, install ca-certificates, or set egress.roots: webpki"
    )]
    SystemRoots(String),
}
