//! `keybearer policy`: what the policy files say.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;

use super::{
    Failure, Global,
    counter::ruleset,
    failure::FAILED,
    output::{Out, counted, list, or_dash},
};
use crate::{
    id::{RoleName, Scope, Subject, TenantId, UserId},
    ruleset::{self, Decision, Explanation},
};

/// Check the policy files, and ask what they decide
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  keybearer policy check ./policies"
)]
pub(super) struct Policy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read policy files as the proxy would, and say all that is wrong with them
    #[command(after_help = "Examples:
  keybearer policy check
  keybearer policy check ./policies --output json")]
    Check {
        /// Files and folders [default: `policies` of the configuration]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Show what would be decided for a request, by which rule, and why
    #[command(after_help = "Example:
  keybearer policy explain --tenant acme --role researcher GET https://api.github.com/user")]
    Explain(Explain),
}

#[derive(Debug, Args)]
struct Explain {
    /// Whose agent asks
    #[arg(long, value_name = "TENANT")]
    tenant: TenantId,
    /// In which role
    #[arg(long, value_name = "ROLE")]
    role: RoleName,
    /// For which end user
    #[arg(long, value_name = "USER")]
    user: Option<UserId>,
    /// The HTTP method
    method: Method,
    /// The URL
    url: String,
}

impl Policy {
    pub(super) fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        match self.verb {
            Verb::Check { paths } if paths.is_empty() => check(&global.load()?.policies, out),
            Verb::Check { paths } => check(&paths, out),
            Verb::Explain(explain) => explain.run(global, out),
        }
    }
}

fn check(paths: &[PathBuf], out: &mut Out) -> Result<(), Failure> {
    match ruleset::check(paths) {
        Ok(summary) if out.is_json() => out.json(&summary),
        Ok(summary) => out.line(format!(
            "ok: {}: {}, {}, {} with {} (revision {})",
            counted(summary.files, "file"),
            counted(summary.roles, "role"),
            counted(summary.bindings, "binding"),
            counted(summary.connectors, "connector"),
            counted(summary.operations, "operation"),
            summary.revision
        )),
        Err(error) if out.is_json() => {
            out.json(&error)?;
            Err(Failure::silent(FAILED))
        }
        Err(error) => Err(error.into()),
    }
}

impl Explain {
    fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let rules = ruleset(&global.load()?)?;
        let subject = Subject { tenant: self.tenant, role: self.role, user: self.user };
        let told = rules.explain(&subject, &self.method, &self.url);
        if out.is_json() { out.json(&told) } else { out.pairs(details(&told)) }
    }
}

fn details(told: &Explanation) -> [(&'static str, String); 11] {
    let decision = match told.decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
        Decision::WouldDeny => "would deny (the role is in observe mode, so it passes)",
    };
    let rule = match (&told.rule, &told.rule_at) {
        (Some(rule), Some(place)) => format!("{rule} at {place}"),
        (Some(rule), None) => rule.to_string(),
        (None, _) => String::new(),
    };
    let scopes = |scopes: &[Scope]| list(scopes.iter());
    [
        ("decision", decision.to_owned()),
        ("error", told.error.unwrap_or_default().to_owned()),
        ("why", told.detail.clone().unwrap_or_default()),
        ("rule", rule),
        ("connector", or_dash(told.connector.as_ref())),
        ("operation", or_dash(told.operation.as_ref())),
        ("effect", told.effect.map(|effect| effect.as_str().to_owned()).unwrap_or_default()),
        ("account", told.account.clone().unwrap_or_default()),
        ("required", scopes(&told.required)),
        ("granted", scopes(&told.granted)),
        ("missing", scopes(&told.missing)),
    ]
}
