//! What runs until it is told to stop.

use clap::Args;

use super::{Failure, process::open_many_files, stop::Stop};
use crate::telemetry;

/// What every service is told.
#[derive(Debug, Args)]
pub(super) struct Service {
    /// What is logged, instead of `telemetry.level`
    #[arg(long, value_name = "LEVEL", env = "KEYBEARER_LOG")]
    log: Option<String>,
}

impl Service {
    /// Makes this process one that serves: it logs, may open many files, and is ended by nothing but [`Stop`]. To be
    /// called before anything starts.
    pub(super) fn begin(self, telemetry: &mut telemetry::Config) -> Result<Stop, Failure> {
        open_many_files();
        if let Some(level) = self.log {
            telemetry.level = level;
        }
        telemetry::init(telemetry).map_err(Failure::new)?;
        Stop::listen()
    }
}
