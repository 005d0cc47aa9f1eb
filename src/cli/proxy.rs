//! `keybearer proxy`: the sidecar.

use clap::Args;

use super::{Failure, Global, output::say, process::open_many_files, served::Served, stop::Stop};
use crate::{config::Config, telemetry};

/// Run the proxy until it is told to stop (SIGTERM, SIGINT)
///
/// Open requests may finish within `limits.drain`; a second signal ends them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  keybearer proxy
  keybearer proxy --config /etc/keybearer/keybearer.yaml --log info,keybearer::proxy=debug")]
pub(super) struct Proxy {
    /// What is logged, instead of `telemetry.level`
    #[arg(long, value_name = "LEVEL", env = "KEYBEARER_LOG")]
    log: Option<String>,
}

impl Proxy {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        open_many_files();
        let mut config = global.load()?;
        config.telemetry.level = self.log.unwrap_or(config.telemetry.level);
        telemetry::init(&config.telemetry).map_err(Failure::new)?;
        let stop = Stop::listen()?; // before anything starts

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
