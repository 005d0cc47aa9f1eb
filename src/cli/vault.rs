//! `keybearer vault`: accounts at rest.

use clap::{Args, Subcommand};

use super::{
    Failure, Global,
    counter::{Counter, Vaultless, open_vault},
    output::{Out, list, say},
};
use crate::{
    admin::{Client, Command, Reply, VaultOverview},
    config::Config,
    drain::Drain,
    ruleset::Ruleset,
};

/// Make and look at the vault
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  keybearer vault status"
)]
pub(super) struct Vault {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the vault and its key where there are none; `account add` and `proxy` do so too
    #[command(after_help = "Example:
  keybearer vault init --config /etc/keybearer/keybearer.yaml")]
    Init,
    /// Show what is in the vault, in numbers, and what does not open
    #[command(after_help = "Example:
  keybearer vault status --output json")]
    Status,
}

impl Vault {
    pub(super) async fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let config = global.load()?;
        match self.verb {
            Verb::Init => init(&config, out).await,
            Verb::Status => {
                let counter = Counter::open(&config, Ruleset::default()).await?;
                print(&counter.execute(Command::VaultStatus).await?, out)
            }
        }
    }
}

async fn init(config: &Config, out: &mut Out) -> Result<(), Failure> {
    let drain = Drain::default();
    if let Some(proxy) = Client::find(&config.admin_socket(), &drain).await? {
        say("a proxy runs here: its vault is made");
        return print(&proxy.execute(&Command::VaultStatus).await?, out);
    }
    let vault = open_vault(config, Vaultless::Make, &drain).await?;
    let overview = vault.status().await?;
    print(&Reply::Vault(overview.into()), out)
}

fn print(reply: &Reply, out: &mut Out) -> Result<(), Failure> {
    match reply {
        Reply::Vault(overview) if !out.is_json() => out.pairs(details(overview)),
        Reply::Vault(overview) => out.json(overview),
        other => out.json(other),
    }
}

fn details(overview: &VaultOverview) -> [(&'static str, String); 6] {
    let counts = overview.accounts.iter().map(|(connector, by_status)| {
        let statuses = by_status.iter().map(|(status, count)| format!("{count} {status}"));
        format!("{connector}: {}", list(statuses))
    });
    let accounts: Vec<_> = counts.collect();
    [
        ("backend", overview.backend.clone()),
        ("directory", overview.dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default()),
        ("key", overview.key_fingerprint.clone()),
        ("tenants", overview.tenants.to_string()),
        ("accounts", if accounts.is_empty() { "none".to_owned() } else { accounts.join("\n") }),
        ("do not open", overview.unreadable.join("\n")),
    ]
}
