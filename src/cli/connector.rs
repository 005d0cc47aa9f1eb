//! `keybearer connector`: what the policy files describe.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Global,
    counter::ruleset,
    output::{Out, list, say},
};
use crate::{
    admin,
    catalog::{AuthType, Catalog, Connector as Described, Injection, Operation},
    document::did_you_mean,
    host::HostPattern,
    id::{ConnectorName, Scope},
};

/// Look at the connectors of the policy files
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  keybearer connector list"
)]
pub(super) struct Connector {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the connectors
    #[command(after_help = "Example:
  keybearer connector list --output json")]
    List,
    /// Show one connector: hosts, what an account needs, scopes, operations
    #[command(after_help = "Example:
  keybearer connector show github")]
    Show {
        /// Which one
        name: ConnectorName,
    },
}

impl Connector {
    pub(super) fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let rules = ruleset(&global.load()?)?;
        match self.verb {
            Verb::List => print_all(rules.catalog.connectors().map(AsRef::as_ref).collect(), out),
            Verb::Show { name } => match rules.catalog.connector(name.as_str()) {
                Some(connector) => print_one(connector, out),
                None => Err(unknown(name, &rules.catalog).into()),
            },
        }
    }
}

fn unknown(name: ConnectorName, catalog: &Catalog) -> admin::Error {
    let guess = did_you_mean(name.as_str(), catalog.connectors().map(|other| other.name.as_str()));
    admin::Misfit::Connector { name, guess }.into()
}

fn print_all(connectors: Vec<&Described>, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&connectors.into_iter().map(summary).collect::<Vec<_>>());
    }
    if connectors.is_empty() {
        say("the policy files describe no connectors");
        return Ok(());
    }
    let row = |connector: &Described| {
        [
            connector.name.to_string(),
            in_short(&connector.hosts),
            auth(connector),
            connector.scopes.len().to_string(),
            connector.operations.len().to_string(),
        ]
    };
    out.table(["CONNECTOR", "HOSTS", "AUTH", "SCOPES", "OPERATIONS"], connectors.into_iter().map(row))
}

fn print_one(connector: &Described, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&whole(connector));
    }
    let open: Vec<_> = admin::needed(connector).map(|name| format!("--meta {name}=...")).collect();
    out.pairs([
        ("connector", connector.name.to_string()),
        ("hosts", list(&connector.hosts)),
        ("also at", format!("http://{}.connector.internal/", connector.name)),
        ("auth", auth(connector)),
        ("an account has", list(&connector.auth.fields)),
        ("and needs", open.join(" ")),
        ("injected into", list(connector.inject.iter().map(place))),
        ("scopes", list(connector.scopes.keys().map(Scope::as_str))),
    ])?;
    out.line("")?;
    let row = |operation: &Operation| {
        [
            operation.name.to_string(),
            operation.effect.as_str().to_owned(),
            list(operation.scopes.iter()),
            requests(operation).join("\n"),
        ]
    };
    out.table(["OPERATION", "EFFECT", "SCOPES", "REQUEST"], connector.operations.iter().map(|o| row(o)))
}

fn summary(connector: &Described) -> Value {
    json!({
        "name": connector.name,
        "hosts": connector.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "auth": auth(connector),
        "scopes": connector.scopes.len(),
        "operations": connector.operations.len(),
    })
}

fn whole(connector: &Described) -> Value {
    let operations = connector.operations.iter().map(|operation| {
        json!({
            "name": operation.name,
            "effect": operation.effect,
            "scopes": &*operation.scopes,
            "requests": requests(operation),
        })
    });
    json!({
        "name": connector.name,
        "hosts": connector.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "cleartext": connector.cleartext,
        "auth": auth(connector),
        "fields": connector.auth.fields,
        "metadata": connector.placeholders().collect::<Vec<_>>(),
        "injected_into": connector.inject.iter().map(place).collect::<Vec<_>>(),
        "scopes": connector.scopes,
        "operations": operations.collect::<Vec<_>>(),
    })
}

/// The first two, which tell what it is: a table has to fit a terminal.
fn in_short(hosts: &[HostPattern]) -> String {
    match hosts {
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second} and {} more", rest.len())
        }
        hosts => list(hosts),
    }
}

/// As the file writes it.
fn auth(connector: &Described) -> String {
    let kind: AuthType = connector.auth.kind;
    serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
}

fn place(injection: &Injection) -> String {
    match injection {
        Injection::Header(name, _) => format!("header {name}"),
        Injection::Query(name, _) => format!("query parameter {name}"),
    }
}

fn requests(operation: &Operation) -> Vec<String> {
    operation.requests.iter().map(|line| format!("{} {}", line.method, line.template)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hosts_are_told_in_short() {
        let hosts = |count: usize| -> Vec<HostPattern> {
            (0..count).map(|n| HostPattern::parse(&format!("h{n}.example")).unwrap()).collect()
        };
        assert_eq!(in_short(&hosts(1)), "h0.example");
        assert_eq!(in_short(&hosts(2)), "h0.example, h1.example");
        assert_eq!(in_short(&hosts(5)), "h0.example, h1.example and 3 more");
    }
}
