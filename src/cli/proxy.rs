//! `keybearer proxy`: the sidecar.

use clap::Args;

use super::{Failure, Global, output::say, served::Served, service::Service};
use crate::config::Config;

/// Run the proxy until it is told to stop (SIGTERM, SIGINT)
///
/// Open requests may finish within `limits.drain`; a second signal ends them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  keybearer proxy
  keybearer proxy --config /etc/keybearer/keybearer.yaml --log info,keybearer::proxy=debug")]
pub(super) struct Proxy {
    #[command(flatten)]
    service: Service,
}

impl Proxy {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut config = global.load()?;
        let stop = self.service.begin(&mut config.telemetry)?;

        let certificate = certificate(&config);
        let app = Served::start(config, "keybearer proxy").await?;
        say(app.greeting(&certificate).await?);
        stop.then(app.stop()).await
    }
}

fn certificate(config: &Config) -> String {
    match &config.ca.dir {
        Some(dir) if !config.ca.ephemeral => dir.join("ca.pem").display().to_string(),
        _ => "http://keybearer.internal/ca.pem".to_owned(),
    }
}
