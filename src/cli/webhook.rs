//! `keybearer webhook`: the sidecar injector.

use clap::Args;

use super::{Failure, Global, output::say, process::open_many_files, stop::Stop};
use crate::{admission, drain::Drain, telemetry};

/// Inject the sidecar into Kubernetes pods: a mutating admission webhook
///
/// Answers API servers at `POST /mutate` over TLS until it is told to stop (SIGTERM, SIGINT). What it injects is
/// `webhook:` of the configuration; its certificate is read again when the files change. It asks the cluster nothing
/// and needs no rights in it, unless it keeps a certificate of its own (`webhook.certificate: null`).
#[derive(Debug, Args)]
#[command(after_help = "Example:
  keybearer webhook --config /etc/keybearer/webhook.yaml")]
pub(super) struct Webhook {
    /// What is logged, instead of `telemetry.level`
    #[arg(long, value_name = "LEVEL", env = "KEYBEARER_LOG")]
    log: Option<String>,
}

impl Webhook {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        open_many_files();
        let mut config = global.load()?;
        config.telemetry.level = self.log.unwrap_or(config.telemetry.level);
        telemetry::init(&config.telemetry).map_err(Failure::new)?;
        let mut stop = Stop::listen()?;
        let (drain, limit) = (Drain::default(), config.limits.drain);
        let address = admission::start(config.webhook, &drain).await?;
        say(format!("keybearer {}: API servers at https://{address}/mutate", env!("CARGO_PKG_VERSION")));
        stop.told().await;
        drain.finish(limit).await;
        Ok(())
    }
}
