//! `keybearer audit`: what happened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{
    Failure, Global,
    failure::NOT_INTACT,
    output::{Out, counted, or_dash, say},
};
use crate::{
    audit::{self, Decision, Event, Extent, Filter, Kind, Recorded, Report, Tail},
    id::{ActionId, ChainId, ConnectorName, OperationName, RoleName, TenantId, UserId},
};

/// Read and verify the audit log
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  keybearer audit tail -f
  keybearer audit verify"
)]
pub(super) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the last events, and with -f those that come
    #[command(after_help = "Examples:
  keybearer audit tail -n 50
  keybearer audit tail -f --output json")]
    Tail {
        /// Go on as events come
        #[arg(short, long)]
        follow: bool,
        /// How many
        #[arg(short = 'n', long = "lines", value_name = "COUNT", default_value_t = 20)]
        lines: usize,
    },
    /// Show the last events that fit, oldest first
    #[command(after_help = "Examples:
  keybearer audit query --tenant acme --decision deny --since 24h
  keybearer audit query --kind account --output json")]
    Query(Query),
    /// Verify that no line was removed, changed or moved; exit status 3 if one was
    #[command(after_help = "Examples:
  keybearer audit verify
  keybearer audit verify --excerpt some-lines.jsonl")]
    Verify {
        /// Files to verify [default: the whole log of the configuration]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The files are a part of a log: its beginning and end may be missing
        #[arg(long, requires = "files")]
        excerpt: bool,
    },
}

#[derive(Debug, Args)]
struct Query {
    /// action, account, policy or system
    #[arg(long, value_parser = word::<Kind>)]
    kind: Option<Kind>,
    /// Of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
    /// By this role
    #[arg(long, value_name = "ROLE")]
    role: Option<RoleName>,
    /// For this end user
    #[arg(long, value_name = "USER")]
    user: Option<UserId>,
    /// On this external system
    #[arg(long, value_name = "CONNECTOR")]
    connector: Option<ConnectorName>,
    /// Of this operation
    #[arg(long, value_name = "OPERATION")]
    operation: Option<OperationName>,
    /// allow, deny or `would_deny`
    #[arg(long, value_parser = word::<Decision>)]
    decision: Option<Decision>,
    /// With this refusal code, as in `insufficient_scope`
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// Of this agent run
    #[arg(long, value_name = "CHAIN")]
    chain: Option<ChainId>,
    /// The action with this id, as in the header Keybearer-Action
    #[arg(long, value_name = "ID", value_parser = word::<ActionId>)]
    id: Option<ActionId>,
    /// Not before: a time as in 2026-01-31T12:00:00Z, or how long ago as in 24h
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before, likewise
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<Timestamp>,
    /// At most so many, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
}

/// A word as the files spell it.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = || "write a time as in 2026-01-31T12:00:00Z, or how long ago as in 24h".to_owned();
    let ago: Duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

impl Audit {
    pub(super) async fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        match self.verb {
            Verb::Verify { files, excerpt } if !files.is_empty() => {
                let extent = if excerpt { Extent::Excerpt } else { Extent::Whole };
                report(&audit::verify(&files, extent)?, out)
            }
            Verb::Verify { .. } => {
                let log = log(global)?;
                report(&audit::verify_log(&log)?, out)
            }
            Verb::Query(query) => query.run(&log(global)?, out),
            Verb::Tail { follow: false, lines } => {
                let events = Tail::open(&log(global)?, lines)?.read()?;
                print(&events, out)
            }
            Verb::Tail { follow: true, lines } => {
                let config = global.load()?;
                follow(&config.audit.path(&config.data_dir), lines, out).await
            }
        }
    }
}

/// The log of the configuration, of which something must be there.
fn log(global: &Global) -> Result<PathBuf, Failure> {
    let config = global.load()?;
    let path = config.audit.path(&config.data_dir);
    if audit::is_there(&path)? {
        return Ok(path);
    }
    let failure = Failure::new(format!("there is no audit log at {}", path.display()));
    Err(failure.hint("it is made when the proxy first starts; is this its configuration?"))
}

impl Query {
    fn run(self, log: &Path, out: &mut Out) -> Result<(), Failure> {
        let filter = Filter {
            kind: self.kind,
            tenant: self.tenant,
            role: self.role,
            user: self.user,
            connector: self.connector,
            operation: self.operation,
            decision: self.decision,
            error: self.error,
            chain: self.chain,
            id: self.id,
            since: self.since,
            until: self.until,
        };
        let found = audit::query(log, &filter, self.limit)?;
        if found.unreadable > 0 {
            say(format!("warning: {} lines are no events: run `keybearer audit verify`", found.unreadable));
        }
        print(&found.events, out)
    }
}

/// Shows what came, then what comes, until it is interrupted or nobody reads any more.
async fn follow(log: &Path, lines: usize, out: &mut Out) -> Result<(), Failure> {
    let mut tail = Tail::open(log, lines)?;
    while !out.is_closed() {
        for recorded in tail.next().await? {
            if out.is_json() { out.line(&recorded.line)? } else { out.line(row(&recorded).join("  "))? }
        }
        out.finish()?;
    }
    Ok(())
}

/// JSON is the lines as they stand in the file: they can be verified.
fn print(events: &[Recorded], out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return events.iter().try_for_each(|recorded| out.line(&recorded.line));
    }
    if events.is_empty() {
        say("no events");
        return Ok(());
    }
    let header = ["TIME", "SEQ", "WHO", "WHAT", "OUTCOME", "STATUS", "MS"];
    out.table(header, events.iter().map(row))
}

fn row(recorded: &Recorded) -> [String; 7] {
    let event = &recorded.event;
    [
        or_dash(event.time.map(|time| format!("{time:.3}"))),
        recorded.seq.to_string(),
        who(event),
        what(event),
        outcome(event),
        or_dash(event.status),
        or_dash(event.ms.map(|took| format!("{:.1}", took.total.as_secs_f64() * 1000.0))),
    ]
}

/// `acme/researcher/alice`.
fn who(event: &Event) -> String {
    let tenant = event.tenant.as_ref().map(TenantId::as_str);
    let parts = [tenant, event.role.as_ref().map(RoleName::as_str), event.user.as_ref().map(UserId::as_str)];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    or_dash((!parts.is_empty()).then(|| parts.join("/")))
}

/// `github issue.list`, `GET api.github.com/user`, `account.added acme/github/tenant`.
fn what(event: &Event) -> String {
    if let Some(happened) = &event.event {
        let about = event.account.as_deref().or(event.detail.as_deref()).unwrap_or_default();
        return format!("{happened} {about}").trim_end().to_owned();
    }
    if let (Some(connector), Some(operation)) = (&event.connector, &event.operation) {
        return format!("{connector} {operation}");
    }
    let method = event.method.as_ref().map_or("", |method| method.as_str());
    let host = event.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let path = event.path.as_ref().and_then(|path| path.canonical.as_deref()).unwrap_or_default();
    format!("{method} {host}{path}").trim().to_owned()
}

/// `deny insufficient_scope`.
fn outcome(event: &Event) -> String {
    let decision = event.decision.map(Decision::as_str);
    let parts: Vec<_> = [decision, event.error.as_deref()].into_iter().flatten().collect();
    or_dash((!parts.is_empty()).then(|| parts.join(" ")))
}

fn report(report: &Report, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        out.json(&serde_json::json!({"intact": report.is_intact(), "report": report}))?;
    } else {
        report.notes.iter().for_each(|note| say(format!("note: {note}")));
        report.faults.iter().try_for_each(|fault| out.line(fault.to_string()))?;
        out.line(verdict(report))?;
    }
    if report.is_intact() { Ok(()) } else { Err(Failure::silent(NOT_INTACT)) }
}

fn verdict(report: &Report) -> String {
    let verdict = match report.faults.len() {
        0 => "intact".to_owned(),
        1 => "not intact, 1 fault".to_owned(),
        faults => format!("not intact, {faults} faults"),
    };
    let seqs = report.seqs.map_or_else(String::new, |(first, last)| format!(", seq {first} to {last}"));
    format!("{verdict}: {} lines in {}{seqs}", report.lines, counted(report.files, "file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_how_long_ago() {
        assert_eq!(moment("1970-01-01T00:00:00Z"), Ok(Timestamp::UNIX_EPOCH));
        assert!(moment("24h").unwrap() < Timestamp::now());
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn words_are_those_of_the_files() {
        assert_eq!(word::<Decision>("would_deny"), Ok(Decision::WouldDeny));
        assert!(word::<Kind>("actions").unwrap_err().contains("expected one of"));
    }
}
