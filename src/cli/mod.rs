//! The command line: one file a verb.
//!
//! Data goes to standard output, talk to standard error. Exit status: 0 done, 1 failed, 2 usage, 3 the audit log is
//! not intact.

mod account;
mod audit;
mod ca;
mod connector;
mod counter;
mod demo;
mod failure;
mod input;
mod output;
mod policy;
mod private;
mod process;
mod proxy;
mod redirect;
mod run;
mod served;
mod service;
mod stop;
mod vault;
mod version;
mod webhook;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use self::process::main;
use self::{
    failure::Failure,
    output::{Format, Out},
};
use crate::config::Config;

/// A sidecar egress proxy that holds your agents' credentials, so that agent code never does
#[derive(Debug, Parser)]
#[command(
    name = "keybearer",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Example:
  keybearer account add --tenant acme --connector github --role researcher < token.txt
  keybearer proxy"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Configuration file [default: ./keybearer.yaml, then keybearer/keybearer.yaml in the XDG configuration
    /// directory, then built in]
    #[arg(long, global = true, value_name = "FILE", env = "KEYBEARER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Global {
    /// The configuration.
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.config.as_deref())?)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Proxy(proxy::Proxy),
    Run(run::Run),
    Account(account::Account),
    Policy(policy::Policy),
    Connector(connector::Connector),
    Audit(audit::Audit),
    Vault(vault::Vault),
    Ca(ca::Ca),
    Redirect(redirect::Redirect),
    Webhook(webhook::Webhook),
    Version(version::Version),
}

impl Verb {
    async fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Demo(verb) => verb.run(out).await,
            Self::Run(verb) => verb.run(global).await,
            Self::Proxy(verb) => verb.run(global).await,
            Self::Account(verb) => verb.run(global, out).await,
            Self::Policy(verb) => verb.run(global, out),
            Self::Connector(verb) => verb.run(global, out),
            Self::Audit(verb) => verb.run(global, out).await,
            Self::Vault(verb) => verb.run(global, out).await,
            Self::Ca(verb) => verb.run(global, out),
            Self::Redirect(verb) => verb.run(global, out).await,
            Self::Webhook(verb) => verb.run(global).await,
            Self::Version(verb) => verb.run(out),
        }
    }
}

/// Reads the arguments and does what they say.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(told) => {
            let _ = told.print(); // to nobody, where the pipe is closed
            return u8::try_from(told.exit_code())
                .map_or_else(|_| ExitCode::from(failure::USAGE), ExitCode::from);
        }
    };
    let mut out = Out::new(cli.global.output);
    let done = Box::pin(cli.verb.run(&cli.global, &mut out)).await;
    match done.and_then(|()| out.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// clap wraps at 100 columns, and what is wrapped cannot be copied.
    const WIDTH: usize = 98;

    /// Every command with its way to it, such as `account add`.
    fn commands(command: &clap::Command, way: &str, found: &mut Vec<(String, clap::Command)>) {
        found.push((way.to_owned(), command.clone()));
        for below in command.get_subcommands() {
            commands(below, format!("{way} {}", below.get_name()).trim(), found);
        }
    }

    fn all() -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        commands(&Cli::command(), "", &mut found);
        found
    }

    /// The lines of an example that run keybearer, without what a shell does for them.
    fn examples(command: &clap::Command) -> Vec<Vec<String>> {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.find("keybearer ").map(|at| line[at..].to_owned()));
        lines
            .map(|line| line.split([';', '|', '<', '>', '#']).next().unwrap_or_default().to_owned())
            .map(|line| line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect())
            .collect()
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_of_itself_that_parses() {
        for (way, command) in all() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.lines().all(|line| line.len() <= WIDTH), "an example of {way} would be wrapped");
            let examples = examples(&command);
            assert!(!examples.is_empty(), "keybearer {way} --help has no example");
            for words in &examples {
                let text = words.join(" ");
                assert!(text.starts_with(format!("keybearer {way}").trim()), "{way}: {text}");
                let parsed = Cli::try_parse_from(words);
                assert!(
                    parsed.is_ok(),
                    "{text}: {}",
                    parsed.err().map_or_else(String::new, |e| e.to_string())
                );
            }
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        for (way, command) in all() {
            assert!(command.get_about().is_some(), "{way}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{way} {}", argument.get_id());
            }
        }
    }
}
