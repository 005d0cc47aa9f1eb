//! `keybearer account`: connected accounts.

mod connect;
mod print;
mod which;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use self::{
    print::{changed, print},
    which::{Meant, Which, WhichOrAll},
};
use super::{
    Failure, Global,
    counter::{Counter, no_rules, ruleset},
    input,
    output::{Out, counted, say},
};
use crate::{
    admin::{self, Command, Error, Form, Reply, Secrets},
    catalog::AuthType,
    config::Config,
    id::{AccountKey, ConnectorName, Scope, TenantId},
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
  keybearer account add acme/datadog/tenant < keys.json  # {\"api_key\": ..., \"app_key\": ...}
  keybearer account add acme/crm/tenant < client.json  # {\"client_id\": ..., \"client_secret\": ...}
  keybearer account add acme/ghapp/tenant --no-secret --meta installation=1234")]
    Add(Add),
    /// Connect an account by its owner's consent at the provider (OAuth)
    ///
    /// Prints the address to open, which asks for what the roles' grants need and nothing else, and waits until the
    /// consent is given, declined or 10 minutes old; Ctrl-C takes the question back. An account that is there is
    /// connected anew, by the same owner only. Without a running proxy, this serves the callback on listen.admin
    /// meanwhile. JSON is two lines: the question with its url, then the account.
    #[command(after_help = "Examples:
  keybearer account connect --tenant acme --connector gmail --user alice --role writer
  keybearer account connect acme/salesforce/role:researcher --meta instance=na47 --output json")]
    Connect(connect::Connect),
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
    ///
    /// Not an account whose owner consented to it: that is connected anew with `keybearer account connect`.
    #[command(after_help = "Example:
  keybearer account rotate acme/github/role:researcher < token.txt")]
    Rotate {
        #[command(flatten)]
        which: Which,
        /// Read the secret from this file instead of standard input
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        /// Read no secret: tokens are minted with the app of oauth.apps, or with a token file
        #[arg(long, conflicts_with = "from_file")]
        no_secret: bool,
    },
    /// Forbid the use of an account until it is unfrozen, and end its open streams
    ///
    /// With --all, everything of a tenant, or of one of its users in whatever role: also what is added or connected
    /// later, until it is unfrozen with --all.
    #[command(after_help = "Examples:
  keybearer account freeze acme/github/role:researcher --by alice@ops
  keybearer account freeze --tenant acme --user bob --all
  keybearer account freeze --tenant acme --all")]
    Freeze {
        #[command(flatten)]
        which: WhichOrAll,
        /// Who does it, for the agents and the audit log to read [default: the user who runs this]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Allow the use of a frozen account
    ///
    /// With --all, lifts a freeze that was made with --all; accounts that were frozen one by one stay frozen, and so does
    /// what an identity provider froze.
    #[command(after_help = "Examples:
  keybearer account unfreeze acme/github/role:researcher
  keybearer account unfreeze --tenant acme --user bob --all
  keybearer account unfreeze --tenant acme --user bob --all --force")]
    Unfreeze {
        #[command(flatten)]
        which: WhichOrAll,
        /// With --all: also lift what an identity provider froze (over SCIM, or by a security event)
        #[arg(long)]
        force: bool,
    },
    /// Take an account's secret away and keep the rest; the provider is not told
    ///
    /// With --all, the secrets of all accounts that a tenant, or one of its users, has now. Those that are added later
    /// are not affected: freeze as well to keep them out.
    #[command(after_help = "Examples:
  keybearer account revoke acme/github/role:researcher
  keybearer account revoke --tenant acme --user bob --all")]
    Revoke {
        #[command(flatten)]
        which: WhichOrAll,
    },
    /// List what is frozen as a whole: tenants and users, by whom and since when
    #[command(after_help = "Examples:
  keybearer account holds
  keybearer account holds --tenant acme --output json")]
    Holds {
        /// Only this tenant's
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
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
    /// Read no secret: tokens are minted with the app of oauth.apps, or with a token file that --meta names
    #[arg(long, conflicts_with = "from_file")]
    no_secret: bool,
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
            Verb::Connect(connect) => connect.run(&config, out).await,
            Verb::List { tenant, connector } => {
                let reply = ask(&config, Command::List { tenant }).await?;
                print(&narrowed(reply, connector.as_ref()), out)
            }
            Verb::Show { which } => print(&ask(&config, Command::Show { account: which.key()? }).await?, out),
            Verb::Rotate { which, from_file, no_secret } => {
                rotate(which.key()?, from_file.as_deref(), no_secret, &config, out).await
            }
            Verb::Freeze { which, by } => freeze(which.meant()?, by.unwrap_or_else(user), &config, out).await,
            Verb::Unfreeze { which, force } => unfreeze(which.meant()?, force, &config, out).await,
            Verb::Revoke { which } => revoke(which.meant()?, &config, out).await,
            Verb::Holds { tenant } => print(&ask(&config, Command::Holds { tenant }).await?, out),
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
        let rules = || rules_for(config, &account, scopes.as_ref(), Some(&metadata));
        let counter = Counter::open_or_init(config, rules).await?;
        let form = form(&counter, &account, scopes.clone(), Some(metadata.clone())).await?;
        let secrets = secrets(&account, &form, self.from_file.as_deref(), self.no_secret)?;
        let reply = counter.execute(Command::Add { account, secrets, scopes, metadata }).await?;
        changed("added", reply, out)?;
        if form.kind == AuthType::Oauth2 {
            say(
                "note: it will be used as it is, until it expires; `keybearer account connect` obtains tokens that are refreshed",
            );
        }
        Ok(())
    }
}

async fn rotate(
    account: AccountKey,
    from_file: Option<&Path>,
    no_secret: bool,
    config: &Config,
    out: &mut Out,
) -> Result<(), Failure> {
    let counter = Counter::open(config, || rules_for(config, &account, None, None)).await?;
    let form = form(&counter, &account, None, None).await?;
    let secrets = secrets(&account, &form, from_file, no_secret)?;
    changed("rotated", counter.execute(Command::Rotate { account, secrets }).await?, out)
}

/// The rules of this machine, if the account fits them.
fn rules_for(
    config: &Config,
    account: &AccountKey,
    scopes: Option<&BTreeSet<Scope>>,
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<Ruleset, Failure> {
    let rules = ruleset(config)?;
    admin::form(&rules.catalog, &account.connector, scopes, metadata).map_err(Error::from)?;
    Ok(rules)
}

/// What is to be given for the account, before a secret is asked for; whoever does the work looks again.
async fn form(
    counter: &Counter,
    account: &AccountKey,
    scopes: Option<BTreeSet<Scope>>,
    metadata: Option<BTreeMap<String, String>>,
) -> Result<Form, Failure> {
    let command = Command::Form { connector: account.connector.clone(), scopes, metadata };
    match counter.ask(command).await? {
        Reply::Form(form) => Ok(form),
        _ => Err(Failure::new("the proxy did not say what is to be given: is it of another version?")),
    }
}

/// What the account is to hold: nothing, or what somebody writes.
fn secrets(
    account: &AccountKey,
    form: &Form,
    from_file: Option<&Path>,
    no_secret: bool,
) -> Result<Secrets, Failure> {
    match no_secret {
        false => input::secrets(account, form, from_file),
        true if form.may_mint => Ok(Secrets([].into())),
        true => Err(Failure::usage(format!(
            "--no-secret is for accounts whose tokens are minted; {} wants a secret on standard input",
            form.connector
        ))),
    }
}

async fn freeze(meant: Meant, by: String, config: &Config, out: &mut Out) -> Result<(), Failure> {
    match meant {
        Meant::One(account) => changed("frozen", ask(config, Command::Freeze { account, by }).await?, out),
        Meant::All(whose) => {
            let reply = ask(config, Command::FreezeAll { whose: whose.clone(), by }).await?;
            changed(&format!("frozen: {whose}, all accounts"), reply, out)
        }
    }
}

async fn unfreeze(meant: Meant, force: bool, config: &Config, out: &mut Out) -> Result<(), Failure> {
    match meant {
        Meant::One(_) if force => Err(Failure::usage("--force is for --all: what is frozen as a whole")),
        Meant::One(account) => changed("unfrozen", ask(config, Command::Unfreeze { account }).await?, out),
        Meant::All(whose) => {
            let reply = ask(config, Command::UnfreezeAll { whose: whose.clone(), force }).await?;
            let done = match &reply {
                Reply::Holds(left) if !left.is_empty() => {
                    format!("{whose} stays frozen by others (see --force)")
                }
                _ => format!("unfrozen: {whose}, but for accounts that were frozen one by one"),
            };
            changed(&done, reply, out)
        }
    }
}

async fn revoke(meant: Meant, config: &Config, out: &mut Out) -> Result<(), Failure> {
    const ELSEWHERE: &str = "revoked here; revoke it at the provider too:";
    match meant {
        Meant::One(account) => changed(ELSEWHERE, ask(config, Command::Revoke { account }).await?, out),
        Meant::All(whose) => {
            let reply = ask(config, Command::RevokeAll { whose: whose.clone() }).await?;
            if let (Reply::Accounts(accounts), false) = (&reply, out.is_json()) {
                for account in accounts {
                    say(format!("{ELSEWHERE} {}", account.account));
                }
                say(format!("revoked {} of {whose}", counted(accounts.len(), "account")));
                return Ok(());
            }
            print(&reply, out)
        }
    }
}

async fn ask(config: &Config, command: Command) -> Result<Reply, Failure> {
    Counter::open(config, no_rules).await?.execute(command).await
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
