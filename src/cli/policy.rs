//! `keybearer policy`: what the policy files say.

mod bundle;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;

use self::bundle::{Bundle, Keys};
use super::{
    Failure, Global,
    counter::{policies, ruleset},
    failure::FAILED,
    output::{Out, counted, list, or_dash, say},
};
use crate::{
    id::{RoleName, Scope, Subject, TenantId, UserId},
    ruleset::{self, Decision, Explanation, LoadError, Origin, Ruleset},
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
  keybearer policy check ./policies --output json
  keybearer policy check --bundle policy.jws --keys keys.json")]
    Check {
        /// Files and folders [default: `policies` of the configuration]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        signed: SignedBundle,
    },
    /// Show what would be decided for a request, by which rule, and why
    #[command(after_help = "Example:
  keybearer policy explain --tenant acme --role researcher GET https://api.github.com/user")]
    Explain(Explain),
    /// Sign policy files, so that a proxy knows who made them
    ///
    /// Checks them first. The bundle is one file; proxies name it in `policies:` with the public keys that may sign it.
    #[command(after_help = "Examples:
  openssl genpkey -algorithm ed25519 -out policy-key.pem
  keybearer policy bundle --key policy-key.pem --out policy.jws ./policies")]
    Bundle(Bundle),
    /// Print the key set by which proxies believe what these keys sign
    #[command(after_help = "Example:
  keybearer policy keys policy-key.pem > keys.json")]
    Keys(Keys),
}

/// A bundle instead of files.
#[derive(Debug, Args)]
struct SignedBundle {
    /// A signed bundle
    #[arg(long, value_name = "FILE", requires = "keys")]
    bundle: Option<PathBuf>,
    /// The public keys that may sign it, as a JSON Web Key Set
    #[arg(long, value_name = "FILE", requires = "bundle")]
    keys: Option<PathBuf>,
}

impl SignedBundle {
    fn origin(self) -> Option<Origin> {
        Some(Origin::Bundle { bundle: self.bundle?, keys: self.keys? })
    }
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
    #[command(flatten)]
    signed: SignedBundle,
}

impl Policy {
    pub(super) fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        match self.verb {
            Verb::Check { paths, signed } => {
                let origins: Vec<Origin> =
                    paths.into_iter().map(Origin::Path).chain(signed.origin()).collect();
                if origins.is_empty() { check(policies(&global.load()?)?, out) } else { check(&origins, out) }
            }
            Verb::Explain(explain) => explain.run(global, out),
            Verb::Bundle(bundle) => bundle.run(out),
            Verb::Keys(keys) => keys.run(out),
        }
    }
}

fn check(origins: &[Origin], out: &mut Out) -> Result<(), Failure> {
    match ruleset::check(origins) {
        Ok(summary) if out.is_json() => out.json(&summary),
        Ok(summary) => {
            if summary.files == 0 {
                say("note: no policy file (.yaml, .yml) is there, so every request is refused");
            }
            out.line(format!(
                "ok: {}: {}, {}, {} with {} (revision {})",
                counted(summary.files, "file"),
                counted(summary.roles, "role"),
                counted(summary.bindings, "binding"),
                counted(summary.connectors, "connector"),
                counted(summary.operations, "operation"),
                summary.revision
            ))
        }
        Err(error) => refused(error, out),
    }
}

/// Says all that is wrong with a policy.
fn refused(error: LoadError, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        out.json(&error)?;
        return Err(Failure::silent(FAILED));
    }
    Err(error.into())
}

impl Explain {
    fn run(self, global: &Global, out: &mut Out) -> Result<(), Failure> {
        let rules = match self.signed.origin() {
            Some(bundle) => Ruleset::load(&[bundle])?,
            None => ruleset(&global.load()?)?,
        };
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
