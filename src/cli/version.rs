//! `keybearer version`.

use clap::Args;

use super::{Failure, output::Out};

/// Show which keybearer this is
#[derive(Debug, Args)]
#[command(after_help = "Example:
  keybearer version --output json")]
pub(super) struct Version {}

impl Version {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        let Self {} = self;
        let version = env!("CARGO_PKG_VERSION");
        if out.is_json() {
            return out.json(&serde_json::json!({"name": "keybearer", "version": version}));
        }
        out.line(format!("keybearer {version}"))
    }
}
