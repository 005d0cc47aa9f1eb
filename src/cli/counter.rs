//! Where commands about accounts go: to the proxy that runs, or to the vault itself if none does.

use std::time::Duration;

use super::{Failure, output::say};
use crate::{
    admin::{Client, Command, Desk, Reply, serve_callback},
    app::consents_alone,
    audit::{self, Audit},
    config::Config,
    credential::Resolver,
    drain::Drain,
    ruleset::{Origin, Rules, Ruleset},
    telemetry,
    vault::{self, Claim, Vault},
};

/// How long a vault may take to write out what it has.
const CLOSING: Duration = Duration::from_secs(10);

/// Whoever does the work.
pub(super) struct Counter {
    work: Work,
    drain: Drain,
}

/// What to do where there is no vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vaultless {
    Fail,
    Make,
}

/// Whether the command asks a person for a consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    People,
    Nobody,
}

/// Reads the rules of this machine, and says what does not fit them.
pub(super) trait ReadRules: FnOnce() -> Result<Ruleset, Failure> {}

impl<F: FnOnce() -> Result<Ruleset, Failure>> ReadRules for F {}

/// No rules, for what needs none.
#[expect(clippy::unnecessary_wraps, reason = "it stands where rules could be unreadable")]
pub(super) fn no_rules() -> Result<Ruleset, Failure> {
    Ok(Ruleset::default())
}

enum Work {
    Proxy(Client),
    Ourselves(Box<Desk>),
}

impl Counter {
    /// Finds the proxy, or opens the vault, which must be there. A proxy has rules of its own; what is changed without
    /// one must fit these, which are not read before they are needed.
    pub(super) async fn open(config: &Config, rules: impl ReadRules) -> Result<Self, Failure> {
        Self::with(config, rules, Vaultless::Fail, Asks::Nobody).await
    }

    /// Finds the proxy, or opens the vault, and makes it where there is none.
    pub(super) async fn open_or_init(config: &Config, rules: impl ReadRules) -> Result<Self, Failure> {
        Self::with(config, rules, Vaultless::Make, Asks::Nobody).await
    }

    /// Finds the proxy, or opens or makes the vault and serves the callback of consents itself.
    pub(super) async fn asking(config: &Config, rules: impl ReadRules) -> Result<Self, Failure> {
        Self::with(config, rules, Vaultless::Make, Asks::People).await
    }

    async fn with(
        config: &Config,
        rules: impl ReadRules,
        vaultless: Vaultless,
        asks: Asks,
    ) -> Result<Self, Failure> {
        if let Some(broker) = config.vault.at_broker()? {
            return Err(vault::Error::AtBroker(broker.name()).into());
        }
        let drain = Drain::default();
        if let Some(client) = Client::find(&config.admin_socket(), &drain).await? {
            return Ok(Self { work: Work::Proxy(client), drain });
        }
        let rules = rules()?; // before a vault is made for what does not fit them
        let asking = match asks {
            Asks::People => Some(consents_alone(config).await?),
            Asks::Nobody => None,
        };
        let vault = open_vault(config, vaultless, &drain).await?;
        let metrics = audit::Metrics::register(&telemetry::registry().map_err(Failure::new)?);
        let audit = Audit::open(&config.audit, &config.data_dir, &metrics.map_err(Failure::new)?)?;
        let resolver = Resolver::new(vault.clone().into());
        let (consents, listener) = asking.unzip();
        let desk = Desk::new(vault, audit, Rules::fixed(rules), resolver, consents, drain.clone());
        if let Some(listener) = listener {
            serve_callback(desk.clone(), listener, &drain);
        }
        Ok(Self { work: Work::Ourselves(Box::new(desk)), drain })
    }

    /// Has one command done, and closes.
    pub(super) async fn execute(self, command: Command) -> Result<Reply, Failure> {
        let reply = self.ask(command).await;
        self.close().await;
        reply
    }

    /// Has one command of several done.
    pub(super) async fn ask(&self, command: Command) -> Result<Reply, Failure> {
        Ok(match &self.work {
            Work::Proxy(client) => client.execute(&command).await,
            Work::Ourselves(desk) => desk.execute(command).await,
        }?)
    }

    /// Lets what has begun be finished.
    pub(super) async fn close(self) {
        drop(self.work);
        self.drain.finish(CLOSING).await;
    }
}

/// Opens the vault as this process, and says what had to be made.
pub(super) async fn open_vault(
    config: &Config,
    vaultless: Vaultless,
    drain: &Drain,
) -> Result<Vault, Failure> {
    let claim = claim();
    if vaultless == Vaultless::Fail {
        return Ok(Vault::open(&config.vault, &config.data_dir, &claim, drain).await?);
    }
    let (vault, made) = Vault::init(&config.vault, &config.data_dir, &claim, drain).await?;
    if made.store {
        let place = vault.place().map_or_else(|| "memory".to_owned(), ToString::to_string);
        say(format!("made a vault in {place}"));
    }
    if let Some(file) = config.vault.key_file(&config.data_dir).filter(|_| made.key) {
        let file = file.display();
        say(format!(
            "made its key {file}: keep a copy of it elsewhere, without it nothing in the vault can be opened"
        ));
    }
    Ok(vault)
}

/// What others are told who find the directory taken. Without arguments, which name tenants.
fn claim() -> Claim {
    Claim { command: "a keybearer command".to_owned(), admin_socket: None }
}

/// Where the policy is, if it is here.
pub(super) fn policies(config: &Config) -> Result<&[Origin], Failure> {
    match config.vault.at_broker()? {
        Some(broker) if config.policies.is_empty() => {
            Err(Failure::new(format!("the policy is at the broker {}: run this there", broker.name())))
        }
        _ => Ok(&config.policies),
    }
}

/// The policy files, with what to do where there are none.
pub(super) fn ruleset(config: &Config) -> Result<Ruleset, Failure> {
    match policies(config)?.iter().flat_map(Origin::paths).find(|path| !path.exists()) {
        None => Ok(Ruleset::load(&config.policies)?),
        Some(path) => {
            let failure = Failure::new(format!("there is no policy at {}", path.display()));
            Err(failure.hint("name its files with `policies:` in keybearer.yaml, or with --config FILE"))
        }
    }
}
