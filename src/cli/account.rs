//! `keybearer account`: connected accounts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use clap::{Args, Subcommand};

use super::{
    Failure, Global,
    counter::{Counter, ruleset},
    input,
    output::{Out, list, or_dash, say},
};
use crate::{
    admin::{Command, Error, Listed, Reply, connector_for, connector_of},
    catalog::AuthType,
    config::Config,
    id::{AccountKey, ConnectorName, Principal, RoleName, Scope, TenantId, UserId},
    ruleset::Ruleset,
};

/// Connect accounts, and take them back
///
/// An account is one principal's credential for one connector in one tenant. A running proxy is told over its admin
/// socket; without one, the vault is opened here.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  keybearer account add --tenant acme --connector github --role researcher < token.txt
  keybearer account list --tenant acme
  keybearer account freeze acme/github/role:researcher"
)]
pub(super) struct Account {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add an account, with the secret from standard input or a file
    #[command(after_help = "Examples:
  keybearer account add --tenant acme --connector github --role researcher < token.txt
  keybearer account add acme/github/role:writer --scopes issues:read,issues:write < token.txt
  keybearer account add acme/salesforce/user:alice/writer --meta instance=na47 --from-file t.txt
  keybearer account add acme/datadog/tenant < keys.json     # {\"api_key\": ..., \"app_key\": ...}")]
    Add(Add),
    /// List accounts, with status, scopes, expiry and the end of each secret
    #[command(after_help = "Examples:
  keybearer account list
  keybearer account list --tenant acme --output json")]
    List {
        /// Only this tenant's
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
        /// Only this connector's
        #[arg(long, value_name = "CONNECTOR")]
        connector: Option<ConnectorName>,
    },
    /// Show one account
    #[command(after_help = "Examples:
  keybearer account show acme/github/role:researcher
  keybearer account show --tenant acme --connector github --role researcher")]
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Give an account another secret; a revoked one is active again
    #[command(after_help = "Example:
  keybearer account rotate acme/github/role:researcher < token.txt")]
    Rotate {
        #[command(flatten)]
        which: Which,
        /// Read the secret from this file instead of standard input
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Forbid the use of an account until it is unfrozen, and end its open streams
    #[command(after_help = "Example:
  keybearer account freeze acme/github/role:researcher --by alice@ops")]
    Freeze {
        #[command(flatten)]
        which: Which,
        /// Who does it, for the agents and the audit log to read [default: the user who runs this]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Allow the use of a frozen account
    #[command(after_help = "Example:
  keybearer account unfreeze acme/github/role:researcher")]
    Unfreeze {
        #[command(flatten)]
        which: Which,
    },
    /// Take an account's secret away and keep the rest; the provider is not told
    #[command(after_help = "Example:
  keybearer account revoke acme/github/role:researcher")]
    Revoke {
        #[command(flatten)]
        which: Which,
    },
    /// Remove an account
    #[command(after_help = "Example:
  keybearer account remove acme/github/role:researcher")]
    Remove {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct Add {
    #[command(flatten)]
    which: Which,
    /// What the provider lets this account do, in our scopes [default: not known, the provider decides]
    #[arg(long, value_name = "SCOPE,...", value_delimiter = ',')]
    scopes: Option<Vec<Scope>>,
    /// What fills {name} in the connector's hosts, as in instance=na47
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// Read the secret from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

/// Which account is meant: by its name, or by its parts.
#[derive(Debug, Args)]
struct Which {
    /// The account as `account list` names it, as in acme/github/role:researcher
    #[arg(required_unless_present = "tenant", conflicts_with_all = ["tenant", "connector", "role", "user", "tenant_wide", "developer"])]
    account: Option<AccountKey>,
    /// Whose account it is
    #[arg(long, value_name = "TENANT", requires = "connector")]
    tenant: Option<TenantId>,
    /// For which external system
    #[arg(long, value_name = "CONNECTOR", requires = "tenant")]
    connector: Option<ConnectorName>,
    /// The account of this role, or with --user, of the user in this role
    #[arg(long, value_name = "ROLE", requires = "tenant", conflicts_with_all = ["tenant_wide", "developer"])]
    role: Option<RoleName>,
    /// The account of this end user
    #[arg(long, value_name = "USER", requires = "role")]
    user: Option<UserId>,
    /// The account of the tenant as a whole
    #[arg(long, requires = "tenant", conflicts_with = "developer")]
    tenant_wide: bool,
    /// The account of the one who runs the agents
    #[arg(long, requires = "tenant")]
    developer: bool,
}

impl Which {
    fn key(self) -> Result<AccountKey, Failure> {
        if let Some(key) = self.account {
            return Ok(key);
        }
        let principal = match (self.user, self.role) {
            (Some(user), Some(role)) => Principal::User { user, role },
            (None, Some(role)) => Principal::Role(role),
            _ if self.tenant_wide => Principal::Tenant,
            _ if self.developer => Principal::Developer,
            _ => {
                let failure = Failure::usage("whose account is it?");
                return Err(failure.hint("add --role R, --user U --role R, --tenant-wide or --developer"));
            }
        };
        match (self.tenant, self.connector) {
            (Some(tenant), Some(connector)) => Ok(AccountKey { tenant, connector, principal }),
            _ => Err(Failure::usage("name the account, or its --tenant and --connector")),
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write NAME=VALUE, as in instance=na47".to_owned()),
    }
}

impl Account {
    pub(super) async fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let config = global.load()?;
        match self.verb {
            Verb::Add(add) => add.run(&config, out).await,
            Verb::List { tenant, connector } => {
                let reply = ask(&config, Command::List { tenant }).await?;
                print(&narrowed(reply, connector.as_ref()), out)
            }
            Verb::Show { which } => print(&ask(&config, Command::Show { account: which.key()? }).await?, out),
            Verb::Rotate { which, from_file } => rotate(which.key()?, from_file, &config, out).await,
            Verb::Freeze { which, by } => {
                let command = Command::Freeze { account: which.key()?, by: by.unwrap_or_else(user) };
                changed("frozen", ask(&config, command).await?, out)
            }
            Verb::Unfreeze { which } => {
                let command = Command::Unfreeze { account: which.key()? };
                changed("unfrozen", ask(&config, command).await?, out)
            }
            Verb::Revoke { which } => {
                let command = Command::Revoke { account: which.key()? };
                changed("revoked here; revoke it at the provider too:", ask(&config, command).await?, out)
            }
            Verb::Remove { which } => {
                let command = Command::Remove { account: which.key()? };
                changed("removed", ask(&config, command).await?, out)
            }
        }
    }
}

impl Add {
    async fn run(self, config: &Config, out: &mut Out) -> Result<(), Failure> {
        let account = self.which.key()?;
        let scopes = self.scopes.map(BTreeSet::from_iter);
        let metadata = BTreeMap::from_iter(self.meta);
        // Before a secret is asked for; whoever does the work looks again.
        let rules = ruleset(config)?;
        let connector = connector_for(&rules.catalog, &account.connector, scopes.as_ref(), &metadata);
        let connector = Arc::clone(connector.map_err(Error::from)?);
        let counter = Counter::open_or_init(config, rules).await?;
        let secrets = input::secrets(&account, &connector, self.from_file.as_deref())?;
        let reply = counter.execute(Command::Add { account, secrets, scopes, metadata }).await?;
        changed("added", reply, out)?;
        if connector.auth.kind != AuthType::Static {
            say("note: it will be used as it is, until it expires: tokens are not refreshed yet");
        }
        Ok(())
    }
}

async fn rotate(
    account: AccountKey,
    from_file: Option<PathBuf>,
    config: &Config,
    out: &mut Out,
) -> Result<(), Failure> {
    let rules = ruleset(config)?;
    let connector = Arc::clone(connector_of(&rules.catalog, &account.connector).map_err(Error::from)?);
    let counter = Counter::open(config, rules).await?;
    let secrets = input::secrets(&account, &connector, from_file.as_deref())?;
    changed("rotated", counter.execute(Command::Rotate { account, secrets }).await?, out)
}

async fn ask(config: &Config, command: Command) -> Result<Reply, Failure> {
    Counter::open(config, Ruleset::default()).await?.execute(command).await
}

/// The name of the user who runs this, or the number where it has none.
fn user() -> String {
    let id = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(id).ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| format!("user {id}"))
}

fn narrowed(reply: Reply, connector: Option<&ConnectorName>) -> Reply {
    match (reply, connector) {
        (Reply::Accounts(mut accounts), Some(connector)) => {
            accounts.retain(|account| account.connector == *connector);
            Reply::Accounts(accounts)
        }
        (reply, _) => reply,
    }
}

/// A change is told to the person; its outcome is data only for programs.
fn changed(done: &str, reply: Reply, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return print(&reply, out);
    }
    match reply {
        Reply::Account(account) => {
            say(format!("{done} {} (generation {})", account.account, account.generation));
        }
        Reply::Removed(account) => say(format!("{done} {account}")),
        other => print(&other, out)?,
    }
    Ok(())
}

fn print(reply: &Reply, out: &mut Out) -> Result<(), Failure> {
    match reply {
        Reply::Accounts(accounts) if out.is_json() => out.json(accounts),
        Reply::Account(account) if out.is_json() => out.json(account),
        Reply::Removed(account) if out.is_json() => {
            out.json(&serde_json::json!({"removed": account.to_string()}))
        }
        Reply::Accounts(accounts) if accounts.is_empty() => {
            say("no accounts");
            Ok(())
        }
        Reply::Accounts(accounts) => {
            let header = ["ACCOUNT", "STATUS", "SCOPES", "EXPIRES", "SECRET"];
            out.table(header, accounts.iter().map(row))
        }
        Reply::Account(account) => out.pairs(details(account)),
        other => out.json(other),
    }
}

fn row(account: &Listed) -> [String; 5] {
    [
        account.account.to_string(),
        account.status.clone(),
        or_dash(account.scopes.as_ref().map(list)),
        or_dash(account.expires),
        or_dash((!account.fields.is_empty()).then(|| secrets(account))),
    ]
}

/// `…cdef`, or `api_key …cdef, app_key …0123` where there are several.
fn secrets(account: &Listed) -> String {
    match account.fields.len() {
        1 => list(account.fields.values()),
        _ => list(account.fields.iter().map(|(name, masked)| format!("{name} {masked}"))),
    }
}

fn details(account: &Listed) -> [(&'static str, String); 11] {
    let status = match &account.frozen_by {
        Some(by) => format!("{} by {by}", account.status),
        None => account.status.clone(),
    };
    let masked = account.fields.iter().map(|(name, masked)| format!("{name} {masked}"));
    [
        ("account", account.account.to_string()),
        ("tenant", account.tenant.to_string()),
        ("connector", account.connector.to_string()),
        ("principal", account.principal.clone()),
        ("status", status),
        ("scopes", or_dash(account.scopes.as_ref().map(list))),
        ("expires", or_dash(account.expires)),
        ("secret", or_dash((!account.fields.is_empty()).then(|| list(masked)))),
        ("metadata", list(account.metadata.iter().map(|(name, value)| format!("{name}={value}")))),
        (
            "changed",
            format!(
                "{:.0}, generation {}, added {:.0}",
                account.updated, account.generation, account.created
            ),
        ),
        ("authorization", or_dash(account.authorization.as_ref())),
    ]
}
