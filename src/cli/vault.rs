//! `keybearer vault`: accounts at rest.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Failure, Global,
    counter::{Counter, Vaultless, no_rules, open_vault},
    output::{Out, counted, list, say},
    service::Service,
};
use crate::{
    admin::{Client, Command, KeyText, Reply, VaultOverview},
    app::BrokerApp,
    config::Config,
    drain::Drain,
    vault::{self, KeySource},
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
    /// Seal the vault with another key, while everything goes on
    ///
    /// Accounts are not touched: they lie under a data key for each tenant, and only these are sealed anew, all in one
    /// step. The vault opens with the old key before that, and with the new one after it. Once more does nothing.
    #[command(after_help = "Examples:
  keybearer vault rotate-key --to-file new.key
  keybearer vault rotate-key --to-env NEW_VAULT_KEY
  keybearer vault rotate-key      # to vault.next_key of the configuration")]
    RotateKey {
        #[command(flatten)]
        to: To,
    },
    /// Serve the vault to sidecars that hold no key: the broker
    ///
    /// Sidecars with `vault.backend: broker` ask it over TLS for one account's live credential at a time, and prove
    /// themselves by a Kubernetes service-account token or a JWT-SVID. It keeps the tokens alive, and serves metrics,
    /// health and the pages for consents as a proxy does; it proxies nothing. Runs until it is told to stop (SIGTERM,
    /// SIGINT). Its listener is `broker:` of the configuration.
    #[command(after_help = "Example:
  keybearer vault serve --config /etc/keybearer/broker.yaml")]
    Serve {
        #[command(flatten)]
        service: Service,
    },
}

#[derive(Debug, Args)]
struct To {
    /// The file with the new key; made where there is none
    #[arg(long, value_name = "FILE", conflicts_with = "to_env")]
    to_file: Option<PathBuf>,
    /// The environment variable with the new key
    #[arg(long, value_name = "NAME")]
    to_env: Option<String>,
}

impl To {
    /// Where the new key is.
    fn source(self, config: &Config) -> Result<KeySource, Failure> {
        let named = self.to_file.map(KeySource::File);
        let named = named.or_else(|| self.to_env.as_deref().map(Config::vault_key_of));
        named
            .or_else(|| config.vault.next_key.clone())
            .ok_or_else(|| Failure::usage("which key? name it with --to-file, --to-env or `vault.next_key:`"))
    }
}

impl Vault {
    pub(super) async fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let config = global.load()?;
        match self.verb {
            Verb::Init => init(&config, out).await,
            Verb::Status => {
                let counter = Counter::open(&config, no_rules).await?;
                print(&counter.execute(Command::VaultStatus).await?, out)
            }
            Verb::RotateKey { to } => {
                let to = to.source(&config)?;
                rotate_key(config, to, out).await
            }
            Verb::Serve { service } => Box::pin(serve(config, service)).await,
        }
    }
}

async fn rotate_key(mut config: Config, to: KeySource, out: &mut Out) -> Result<(), Failure> {
    let (key, is_new) = to.text_or_new().map_err(|error| Failure::new(format!("the new key: {error}")))?;
    if let (KeySource::File(path), true) = (&to, is_new) {
        say(format!("made the key {}: keep a copy of it elsewhere", path.display()));
    }
    let is_next = config.vault.next_key.as_ref() == Some(&to);
    // A rotation that was killed may have been done: then the vault opens with the new key.
    config.vault.next_key = Some(to);
    let counter = Counter::open(&config, no_rules).await?;
    let reply = counter.execute(Command::RotateKey { key: KeyText(key) }).await?;
    if let Reply::KeyRotated(done) = &reply {
        let until = if is_next { "" } else { " before the next start" };
        say(format!("the vault is sealed with the key {} now: name it in `vault.key:`{until}", done.to));
    }
    print(&reply, out)
}

async fn serve(mut config: Config, service: Service) -> Result<(), Failure> {
    let stop = service.begin(&mut config.telemetry)?;
    let app = Box::pin(BrokerApp::start(config)).await?;
    say(greeting(&app).await?);
    stop.then(app.stop()).await
}

/// One line, which scripts wait for.
async fn greeting(app: &BrokerApp) -> Result<String, Failure> {
    let summary = app.rules.current().summary().clone();
    let accounts: usize = app.vault.status().await?.accounts.values().sum();
    Ok(format!(
        "keybearer {}: sidecars at https://{}, admin at http://{}; {}, {}, {}",
        env!("CARGO_PKG_VERSION"),
        app.broker,
        app.admin,
        counted(summary.connectors, "connector"),
        counted(summary.roles, "role"),
        counted(accounts, "account"),
    ))
}

async fn init(config: &Config, out: &mut Out) -> Result<(), Failure> {
    if let Some(broker) = config.vault.at_broker()? {
        return Err(vault::Error::AtBroker(broker.name()).into());
    }
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
        Reply::KeyRotated(done) if !out.is_json() => out.pairs([
            ("before", done.from.clone()),
            ("key", done.to.clone()),
            ("tenants", done.tenants.to_string()),
            ("do not open", list(done.unopened.iter().map(ToString::to_string))),
        ]),
        Reply::KeyRotated(done) => out.json(done),
        other => out.json(other),
    }
}

/// Where the accounts lie, as one word and a name.
fn place(overview: &VaultOverview) -> (&'static str, String) {
    match (&overview.dir, &overview.database) {
        (_, Some(name)) => ("database", name.clone()),
        (dir, None) => ("directory", dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default()),
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
        place(overview),
        ("key", overview.key_fingerprint.clone()),
        ("tenants", overview.tenants.to_string()),
        ("accounts", if accounts.is_empty() { "none".to_owned() } else { accounts.join("\n") }),
        ("do not open", overview.unreadable.join("\n")),
    ]
}
