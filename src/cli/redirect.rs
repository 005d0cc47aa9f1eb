//! `keybearer redirect`: the system's rules for transparent mode.

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Failure, Global,
    failure::FAILED,
    output::{Out, list},
};
use crate::redirect::{self, Plan, Tool, Udp};

/// The user of the container image.
const IMAGE_UID: u32 = 65532;
/// Where `listen.transparent` is if it is said nowhere.
const PORT: u16 = 7081;

/// Redirect connections of programs that know of no proxy (transparent mode)
///
/// The rules are those of the network namespace in which this runs: in a pod, of the pod. They need `CAP_NET_ADMIN`,
/// and nft or iptables on the PATH.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  keybearer redirect install --proxy-uid 65532"
)]
pub(super) struct Redirect {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Redirect all TCP to the proxy, and reject HTTP/3, over IPv4 and IPv6; DNS is left alone
    ///
    /// What an earlier call installed is replaced, in one step.
    #[command(after_help = "Examples:
  keybearer redirect install
  keybearer redirect install --exclude-network 10.96.0.0/12 --exclude-port 5432
  keybearer redirect install --dry-run")]
    Install {
        #[command(flatten)]
        wanted: Wanted,
        #[command(flatten)]
        how: How,
        /// Print what would be run, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove the rules
    #[command(after_help = "Example:
  keybearer redirect remove")]
    Remove {
        #[command(flatten)]
        how: How,
        /// Print what would be run, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare the rules that are installed with those that `install` would install with the same options
    ///
    /// The exit status is 1 where they differ.
    #[command(after_help = "Example:
  keybearer redirect check --proxy-uid 65532")]
    Check {
        #[command(flatten)]
        wanted: Wanted,
        #[command(flatten)]
        how: How,
    },
}

/// What is redirected, and what is not.
#[derive(Debug, Args)]
struct Wanted {
    /// The user that the proxy runs as, whose connections are its own: as a number [repeatable]
    #[arg(long, value_name = "UID", default_values_t = [IMAGE_UID])]
    proxy_uid: Vec<u32>,
    /// The port of `listen.transparent` [default: that of the configuration, or 7081]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    to_port: Option<u16>,
    /// Leave another user's connections alone: they go past the proxy [repeatable]
    #[arg(long, value_name = "UID")]
    exclude_uid: Vec<u32>,
    /// Leave a TCP port alone [repeatable]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    exclude_port: Vec<u16>,
    /// Leave a network alone, such as `10.96.0.0/12` or `fd00::/8` [repeatable]
    #[arg(long, value_name = "CIDR", value_parser = network)]
    exclude_network: Vec<IpNet>,
    /// Reject all UDP but DNS, and every other protocol but TCP and ICMP; not HTTP/3 only
    #[arg(long)]
    reject_udp: bool,
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    text.parse().map_err(|_| "write a network as 10.96.0.0/12, one address as 10.96.0.7/32")
}

/// With what.
#[derive(Debug, Args)]
struct How {
    /// The tool that changes the rules [default: nft where it is, otherwise iptables]
    #[arg(long, value_enum, value_name = "TOOL")]
    with: Option<With>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum With {
    /// One table for IPv4 and IPv6
    Nft,
    /// iptables-restore and ip6tables-restore
    Iptables,
}

impl How {
    fn tool(&self) -> Option<Tool> {
        self.with.map(|with| match with {
            With::Nft => Tool::Nft,
            With::Iptables => Tool::Iptables,
        })
    }
}

impl Wanted {
    fn plan(self, global: &Global) -> Result<Plan, Failure> {
        let port = match self.to_port {
            Some(port) => port,
            None => global.load()?.listen.transparent.map_or(PORT, |address| address.port()),
        };
        if port == 0 {
            return Err(Failure::usage("listen.transparent has no port; name one with --to-port"));
        }
        let mut uids = self.proxy_uid;
        uids.extend(self.exclude_uid);
        Ok(Plan {
            port,
            uids: distinct(uids),
            ports: distinct(self.exclude_port),
            networks: distinct(self.exclude_network.iter().map(IpNet::trunc).collect()),
            udp: if self.reject_udp { Udp::All } else { Udp::Quic },
        })
    }
}

/// In order, each once.
fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    items.into_iter().fold(Vec::new(), |mut seen, item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
        seen
    })
}

impl Redirect {
    pub(super) async fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        match self.verb {
            Verb::Install { wanted, how, dry_run: true } => {
                print(&redirect::installation(&wanted.plan(global)?, how.tool().unwrap_or(Tool::Nft)), out)
            }
            Verb::Install { wanted, how, dry_run: false } => {
                install(&wanted.plan(global)?, how.tool(), out).await
            }
            Verb::Remove { how, dry_run: true } => {
                print(&redirect::removal(how.tool().unwrap_or(Tool::Nft)), out)
            }
            Verb::Remove { how, dry_run: false } => remove(how.tool(), out).await,
            Verb::Check { wanted, how } => check(&wanted.plan(global)?, how.tool(), out).await,
        }
    }
}

async fn install(plan: &Plan, with: Option<Tool>, out: &mut Out) -> Result<(), Failure> {
    let tool = redirect::install(plan, with).await?;
    if out.is_json() {
        return out.json(
            &json!({"tool": tool.as_str(), "port": plan.port, "uids": plan.uids, "rules": redirect::words(plan)}),
        );
    }
    out.line(format!(
        "TCP is redirected to port {} with {tool}, but for that of uid {}",
        plan.port,
        list(&plan.uids)
    ))
}

async fn remove(with: Option<Tool>, out: &mut Out) -> Result<(), Failure> {
    let tools: Vec<&str> = redirect::remove(with).await?.into_iter().map(Tool::as_str).collect();
    if out.is_json() {
        return out.json(&json!({"tools": tools}));
    }
    out.line(format!("nothing is redirected any more ({})", list(tools)))
}

async fn check(plan: &Plan, with: Option<Tool>, out: &mut Out) -> Result<(), Failure> {
    let state = redirect::check(plan, with).await?;
    let is_right = state.wrong.is_empty();
    if out.is_json() {
        out.json(&json!({"tool": state.tool.as_str(), "ok": is_right, "wrong": state.wrong}))?;
    } else if is_right {
        out.line(format!("all rules are there ({})", state.tool))?;
    } else {
        for difference in &state.wrong {
            out.line(difference)?;
        }
    }
    if is_right { Ok(()) } else { Err(Failure::silent(FAILED)) }
}

/// Prints what would be run: for nft the text alone, so that it can be piped to one elsewhere.
fn print(runs: &[redirect::Run], out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        let run = |run: &redirect::Run| -> Value {
            json!({"program": run.program, "arguments": run.arguments, "input": run.input})
        };
        return out.json(&runs.iter().map(run).collect::<Vec<_>>());
    }
    for run in runs {
        out.line(format!("# {} {}", run.program, run.arguments.join(" ")))?;
        out.text(&run.input)?;
    }
    Ok(())
}
