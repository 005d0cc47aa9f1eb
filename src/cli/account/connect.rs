//! `keybearer account connect`: asks an account's owner, and waits for the answer.

use std::collections::BTreeMap;

use clap::Args;

use super::{pair, print::changed, which::Which};
use crate::{
    admin::{Asked, Command, Error, Reply, connector_to_connect},
    cli::{
        Failure,
        counter::{Counter, ruleset},
        output::{Out, list, say},
    },
    config::Config,
};

#[derive(Debug, Args)]
pub(super) struct Connect {
    #[command(flatten)]
    which: Which,
    /// What fills {name} in the connector's hosts and URLs, as in instance=na47
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
}

impl Connect {
    pub(super) async fn run(self, config: &Config, out: &mut Out) -> Result<(), Failure> {
        let account = self.which.key()?;
        let metadata = BTreeMap::from_iter(self.meta);
        // Before a vault is made for it; whoever does the work looks again.
        let rules = ruleset(config)?;
        connector_to_connect(&rules.catalog, &account.connector, &metadata).map_err(Error::from)?;
        let counter = Counter::asking(config, rules).await?;
        let connected = ask(&counter, Command::Connect { account, metadata }, out).await;
        counter.close().await;
        changed("connected", connected?, out)
    }
}

/// Tells what is asked, and waits until something has come of it.
async fn ask(counter: &Counter, command: Command, out: &mut Out) -> Result<Reply, Failure> {
    let mut reply = counter.ask(command).await?;
    if let Reply::Asked(asked) = &reply {
        tell(asked, out)?;
    }
    while let Reply::Asked(asked) = reply {
        reply = counter.ask(Command::Consent { id: asked.id }).await?;
    }
    Ok(reply)
}

fn tell(asked: &Asked, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(asked);
    }
    say(format!("asks for: {}", list(&asked.scopes)));
    say(format!("that is, at the provider: {}", list(&asked.provider_scopes)));
    say(format!("back to:  {}", asked.redirect_url));
    say(format!("Let the owner of {} open this before {:.0}:", asked.account, asked.until));
    out.line(&asked.url)
}
