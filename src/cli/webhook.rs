//! `keybearer webhook`: the sidecar injector.

use clap::Args;

use super::{Failure, Global, output::say, service::Service};
use crate::{admission, drain::Drain};

/// Inject the sidecar into Kubernetes pods: a mutating admission webhook
///
/// Answers API servers at `POST /mutate` over TLS until it is told to stop (SIGTERM, SIGINT). What it injects is
/// `webhook:` of the configuration; its certificate is read again when the files change. It asks the cluster nothing
/// and needs no rights in it, unless it keeps a certificate of its own (`webhook.certificate: null`).
#[derive(Debug, Args)]
#[command(after_help = "Example:
  keybearer webhook --config /etc/keybearer/webhook.yaml")]
pub(super) struct Webhook {
    #[command(flatten)]
    service: Service,
}

impl Webhook {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut config = global.load()?;
        let stop = self.service.begin(&mut config.telemetry)?;
        let (drain, limit) = (Drain::default(), config.limits.drain);
        let address = admission::start(config.webhook, &drain).await?;
        say(format!("keybearer {}: API servers at https://{address}/mutate", env!("CARGO_PKG_VERSION")));
        stop.then(drain.finish(limit)).await
    }
}
