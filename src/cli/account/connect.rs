//! `keybearer account connect`: asks an account's owner, and waits for the answer.

use std::collections::BTreeMap;

use clap::Args;

use super::{pair, print::changed, which::Which};
use crate::{
    admin::{Asked, Command, Error, Listed, Reply, connector_to_connect},
    cli::{
        Failure,
        counter::{Counter, ruleset},
        output::{Out, list, say},
        stop::Stop,
    },
    config::Config,
    id::ActionId,
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
        let mut stop = Stop::listen()?;
        let rules = || {
            let rules = ruleset(config)?;
            connector_to_connect(&rules.catalog, &account.connector, &metadata).map_err(Error::from)?;
            Ok(rules)
        };
        let counter = Counter::asking(config, rules).await?;
        let connected = ask(&counter, Command::Connect { account, metadata }, &mut stop, out).await;
        counter.close().await;
        connected
    }
}

/// Tells what is asked, and waits until something has come of it, or nobody wants to know any more.
async fn ask(counter: &Counter, command: Command, stop: &mut Stop, out: &mut Out) -> Result<(), Failure> {
    let asked = match counter.ask(command).await? {
        Reply::Asked(asked) => asked,
        other => return changed("connected", other, out),
    };
    tell(&asked, out)?;
    let reply = tokio::select! {
        reply = outcome(counter, asked.id) => reply,
        () = stop.told() => tokio::select! {
            reply = withdrawn(counter, asked.id) => reply,
            () = stop.told() => Err(Failure::new("stopped, and the question may still be open")),
        },
    };
    connected(&asked, reply?, out)
}

async fn outcome(counter: &Counter, id: ActionId) -> Result<Reply, Failure> {
    loop {
        match counter.ask(Command::Consent { id }).await? {
            Reply::Asked(_) => {}
            reply => return Ok(reply),
        }
    }
}

/// Takes the question back, unless somebody is answering it.
async fn withdrawn(counter: &Counter, id: ActionId) -> Result<Reply, Failure> {
    loop {
        match counter.ask(Command::Withdraw { id }).await? {
            Reply::Asked(_) => {}
            Reply::Withdrawn(_) => {
                return Err(Failure::new(
                    "stopped: nothing was connected, and the URL is of no use any more",
                ));
            }
            reply => return Ok(reply),
        }
    }
}

fn tell(asked: &Asked, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json_line(asked);
    }
    say(format!("asks for: {}", list(&asked.scopes)));
    say(format!("that is, at the provider: {}", list(&asked.provider_scopes)));
    say(format!("back to:  {}", asked.redirect_url));
    say(format!("Let the owner of {} open this before {:.0}:", asked.account, asked.until));
    out.line(&asked.url)
}

fn connected(asked: &Asked, reply: Reply, out: &mut Out) -> Result<(), Failure> {
    let Reply::Account(account) = reply else { return changed("connected", reply, out) };
    notes(asked, &account);
    if out.is_json() { out.json_line(&account) } else { changed("connected", Reply::Account(account), out) }
}

/// What the person should know, although it is done.
fn notes(asked: &Asked, account: &Listed) {
    let missing: Vec<_> = match &account.scopes {
        Some(granted) => asked.scopes.difference(granted).collect(),
        None => Vec::new(),
    };
    if !missing.is_empty() {
        say(format!("note: not granted: {}; agents are refused what needs it", list(missing)));
    }
    if let (Some(by), None) = (&account.frozen_by, &account.hold) {
        say(format!("note: it is frozen by {by}, and stays so until it is unfrozen"));
    }
}
