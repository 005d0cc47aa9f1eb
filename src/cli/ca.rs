//! `keybearer ca`: the certificate that agents are to trust.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, Global, output::Out};
use crate::{
    config::Config,
    tls::{self, Authority, Bundle},
};

/// Show and export the proxy's own certificate authority
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  keybearer ca export > keybearer-ca.pem"
)]
pub(super) struct Ca {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show where the CA is, when it expires and its fingerprint
    #[command(after_help = "Example:
  keybearer ca show")]
    Show,
    /// Print the CA's certificate
    #[command(after_help = "Examples:
  keybearer ca export > keybearer-ca.pem
  keybearer ca export --bundle > bundle.pem; export SSL_CERT_FILE=$PWD/bundle.pem
  keybearer ca export --bundle --format pkcs12 > bundle.p12")]
    Export {
        /// With the system's roots, for clients that can name only one file
        #[arg(long)]
        bundle: bool,
        /// What it is written as; the password of the trust stores is `changeit`
        #[arg(long, value_name = "FORMAT", default_value = "pem")]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Text, which most programs read
    Pem,
    /// A trust store for Java 8u301 or later
    Pkcs12,
    /// A trust store for every Java
    Jks,
}

impl From<Format> for tls::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Pem => Self::Pem,
            Format::Pkcs12 => Self::Pkcs12,
            Format::Jks => Self::Jks,
        }
    }
}

impl Ca {
    /// Makes the CA where there is none yet: agents can be told to trust it before the first start.
    pub(super) fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let config = global.load()?;
        let dir = directory(&config)?;
        let authority = Authority::open(Some(&dir))?;
        match self.verb {
            Verb::Show => show(&authority, &dir, out),
            Verb::Export { bundle, format } => {
                let with = if bundle { Bundle::with_roots } else { Bundle::of_ca };
                out.bytes(&with(authority.pem()).in_format(format.into()))
            }
        }
    }
}

fn directory(config: &Config) -> Result<PathBuf, Failure> {
    match &config.ca.dir {
        Some(dir) if !config.ca.ephemeral => Ok(dir.clone()),
        _ => {
            let failure = Failure::new("ca.ephemeral is true: the CA is in the proxy's memory only");
            let url = format!("curl -x http://{} http://keybearer.internal/ca.pem", config.listen.proxy);
            Err(failure.hint(format!("while the proxy runs, fetch it with `{url}`")))
        }
    }
}

fn show(authority: &Authority, dir: &Path, out: &mut Out) -> Result<(), Failure> {
    let file = dir.join("ca.pem").display().to_string();
    let (expires, fingerprint) = (format!("{:.0}", authority.expires()), authority.fingerprint());
    if out.is_json() {
        return out
            .json(&serde_json::json!({"file": file, "expires": expires, "fingerprint_sha256": fingerprint}));
    }
    out.pairs([("file", file), ("expires", expires), ("fingerprint", fingerprint)])
}
