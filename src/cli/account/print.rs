//! What is printed of accounts.

use crate::{
    admin::{Held, Listed, Reply},
    cli::{
        Failure,
        output::{Out, list, or_dash, say},
    },
    vault::{Source, Whole},
};

/// A change is told to the person; its outcome is data only for programs.
pub(super) fn changed(done: &str, reply: Reply, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return print(&reply, out);
    }
    match reply {
        Reply::Account(account) => {
            say(format!("{done} {} (generation {})", account.account, account.generation));
            if let Some(hold) = &account.hold {
                say(format!("note: it is frozen whatever its own state: {}", sentence(hold)));
            }
        }
        Reply::Holds(holds) => {
            say(done);
            for hold in &holds {
                say(sentence(hold));
            }
        }
        Reply::Removed(account) => say(format!("{done} {account}")),
        other => print(&other, out)?,
    }
    Ok(())
}

pub(super) fn print(reply: &Reply, out: &mut Out) -> Result<(), Failure> {
    match reply {
        Reply::Accounts(accounts) if out.is_json() => out.json(accounts),
        Reply::Account(account) if out.is_json() => out.json(account),
        Reply::Removed(account) if out.is_json() => {
            out.json(&serde_json::json!({"removed": account.to_string()}))
        }
        Reply::Holds(holds) if out.is_json() => out.json(holds),
        Reply::Holds(holds) if holds.is_empty() => {
            say("nothing is frozen as a whole");
            Ok(())
        }
        Reply::Holds(holds) => {
            let row = |hold: &Held| {
                let user = or_dash(hold.user.as_ref());
                [hold.tenant.to_string(), user, hold.by.clone(), source(hold), format!("{:.0}", hold.since)]
            };
            out.table(["TENANT", "USER", "FROZEN BY", "LIFTED BY", "SINCE"], holds.iter().map(row))
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

/// Who can lift it, beside an operator with --force.
fn source(hold: &Held) -> String {
    match &hold.source {
        Source::Operator => "operator".to_owned(),
        Source::Scim => "SCIM".to_owned(),
        Source::Ssf(issuer) => format!("events of {issuer}"),
    }
}

/// `user bob of tenant acme is frozen by scim`.
fn sentence(hold: &Held) -> String {
    let whose = match &hold.user {
        Some(user) => Whole::of_user(&hold.tenant, user),
        None => Whole::of_tenant(hold.tenant.clone()),
    };
    format!("{whose} is frozen by {}", hold.by)
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
    let own = match &account.frozen_by {
        Some(by) => format!("{} by {by}", account.status),
        None => account.status.clone(),
    };
    let status = match &account.hold {
        Some(hold) => format!("{own}; {}", sentence(hold)),
        None => own,
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
