//! What an attempt makes of an account: its next generation, and what there is to tell of it.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    backoff,
    clock::{after, between},
    note::Told,
    schedule::Spread,
};
use crate::{
    catalog::{Connector, Repinned},
    cause::Cause,
    id::Scope,
    oauth::{AppFault, Failure, Tokens},
    secret::Secret,
    vault::{Access, Account, Grant, GrantState, Material},
};

/// An attempt, as far as its outcome depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) connector: &'a Connector,
    /// Whether what was sent may be spent now.
    pub(super) rotates: bool,
    /// What was sent.
    pub(super) sent: &'a Secret,
    /// Since when the outcome of an attempt before it has been unknown.
    pub(super) doubt: Option<Timestamp>,
    pub(super) now: Timestamp,
    pub(super) spread: Spread,
    /// Whether a request used the account since the last refresh.
    pub(super) is_used: bool,
    /// Whether it was done only so that the provider does not end the grant for idleness.
    pub(super) keeps_alive: bool,
}

/// What an attempt comes to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The account's next generation.
    Next(Box<Account>, Vec<Told>),
    /// The app is at fault: no account of it changes (F24).
    App(AppFault),
    /// A success that cannot be read, and that may hold the only token there is (F39).
    Unreadable,
    /// The account has another token by now than the one that was sent, or none: this outcome is not about it (F4).
    Superseded,
}

impl Attempt<'_> {
    /// What the outcome makes of the account as it is now.
    #[must_use]
    pub(super) fn verdict(&self, account: &Account, outcome: &Result<Tokens, Failure>) -> Verdict {
        let Material::Oauth(grant) = &account.material else { return Verdict::Superseded };
        if grant.refresh.as_ref() != Some(self.sent) {
            return Verdict::Superseded;
        }
        match outcome {
            Ok(tokens) => self.refreshed(account, grant, tokens),
            Err(failure) => self.failed(account, grant, failure),
        }
    }

    fn refreshed(&self, account: &Account, grant: &Grant, tokens: &Tokens) -> Verdict {
        if let (Some(before), Some(now)) = (&grant.subject, &tokens.subject)
            && before != now
        {
            // Another user's tokens must never be injected for this one (F31).
            return self.closed(
                account,
                grant,
                GrantState::ReauthRequired { cause: Cause::Policy },
                "the provider answered with another user's tokens; they were thrown away",
            );
        }
        let mut told =
            vec![Told::new("account.refreshed").with_detail(self.keeps_alive.then_some("kept alive"))];
        let rotated = tokens.refresh.is_some();
        let refresh = tokens.refresh.clone().or_else(|| grant.refresh.clone()); // RFC 6749 §6 (F14)
        let refresh_expires = match tokens.refresh_expires {
            Some(expires) => Some(expires),
            None if rotated => None,
            None => grant.refresh_expires,
        };
        let next = Grant {
            access: Some(Access {
                token: tokens.access.clone(),
                expires: tokens.expires,
                obtained: tokens.obtained,
            }),
            refresh,
            refresh_expires,
            deadline: tokens.deadline.or(grant.deadline),
            subject: grant.subject.clone().or_else(|| tokens.subject.clone()),
            provider_scopes: tokens.scopes.clone().unwrap_or_else(|| grant.provider_scopes.clone()),
            used: if self.is_used { Some(self.now) } else { grant.used },
            state: GrantState::Fresh,
        };
        let mut account = Account { material: Material::Oauth(Box::new(next)), ..account.clone() };
        self.rescope(&mut account, grant, tokens, &mut told);
        self.repin(&mut account, tokens, &mut told);
        Verdict::Next(Box::new(account), told)
    }

    /// What the provider grants now is what the account can do from now on; more than before is told (F29, F30).
    fn rescope(&self, account: &mut Account, before: &Grant, tokens: &Tokens, told: &mut Vec<Told>) {
        let Some(granted) = &tokens.scopes else { return };
        let (old, new): (BTreeSet<&String>, BTreeSet<&String>) =
            (before.provider_scopes.iter().collect(), granted.iter().collect());
        if old == new || old.is_empty() {
            return;
        }
        let names =
            |scopes: Vec<&&String>| scopes.into_iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ");
        let (more, less) = (names(new.difference(&old).collect()), names(old.difference(&new).collect()));
        if !more.is_empty() {
            told.push(
                Told::new("account.scopes_widened").with_detail(Some(&format!("the provider added {more}"))),
            );
        }
        if !less.is_empty() {
            told.push(
                Told::new("account.scopes_narrowed")
                    .with_detail(Some(&format!("the provider took {less} away"))),
            );
        }
        if account.scopes.is_some() {
            account.scopes = Some(self.ours(&new));
        }
    }

    /// The connector's scopes that need nothing which was not granted.
    fn ours(&self, granted: &BTreeSet<&String>) -> BTreeSet<Scope> {
        let scopes = self.connector.scopes.iter();
        let held = scopes.filter(|(_, needed)| needed.iter().all(|scope| granted.contains(scope)));
        held.map(|(scope, _)| scope.clone()).collect()
    }

    /// Where the account's requests go from now on, if the provider says so and the connector allows it (F32).
    fn repin(&self, account: &mut Account, tokens: &Tokens, told: &mut Vec<Told>) {
        let target = match &tokens.host {
            Ok(Some(target)) => target,
            Ok(None) => return,
            Err(refused) => {
                let detail = format!("{refused}; requests go where they went before");
                told.push(Told::new("account.host_refused").with_detail(Some(&detail)));
                return;
            }
        };
        match self.connector.repin(&account.metadata, target) {
            Repinned::Same => {}
            Repinned::Moved(metadata) => {
                told.push(Told::new("account.host_changed").with_detail(Some(&format!("to {target}"))));
                account.metadata = metadata;
            }
            Repinned::Foreign => {
                let detail = format!(
                    "the provider names {target}, which is none of the connector's hosts; requests go where they went before"
                );
                told.push(Told::new("account.host_refused").with_detail(Some(&detail)));
            }
        }
    }

    fn failed(&self, account: &Account, grant: &Grant, failure: &Failure) -> Verdict {
        match failure {
            Failure::App(fault) => Verdict::App(*fault),
            Failure::Unreadable(_) if self.rotates => Verdict::Unreadable,
            Failure::Ambiguous if self.rotates => self.doubtful(account, grant),
            Failure::NotSent(_) | Failure::Transient { .. } if self.doubt.is_some() => {
                self.doubtful(account, grant)
            }
            Failure::NotSent(_) | Failure::Ambiguous | Failure::Unreadable(_) => {
                self.put_off(account, grant, None)
            }
            Failure::Transient { retry_after } => self.put_off(account, grant, *retry_after),
            Failure::Definitive(cause) => {
                let cause = match (cause, self.doubt) {
                    // The attempt before this one was carried out, and its answer is what was lost (F6).
                    (Cause::Revoked, Some(_)) if self.rotates => Cause::LostRotation,
                    (cause, _) => *cause,
                };
                self.closed(account, grant, GrantState::ReauthRequired { cause }, "")
            }
            Failure::NeedsUser { cause, .. } => {
                self.closed(account, grant, GrantState::NeedsUser { cause: *cause }, "")
            }
            Failure::SubjectGone(cause) => {
                self.closed(account, grant, GrantState::SubjectGone { cause: *cause }, "")
            }
        }
    }

    fn doubtful(&self, account: &Account, grant: &Grant) -> Verdict {
        let since = self.doubt.unwrap_or(self.now);
        let told = Told::new("account.refresh_in_doubt")
            .with_detail(Some("a refresh was sent and no answer came; it is tried once more"));
        self.next(account, grant, GrantState::Ambiguous { since }, vec![told])
    }

    /// Tries again later. Neither this nor any number of such failures closes the account (F23).
    fn put_off(&self, account: &Account, grant: &Grant, asked: Option<Duration>) -> Verdict {
        let (since, failures) = match grant.state {
            GrantState::Backoff { since, failures, .. } => (since, failures.saturating_add(1)),
            _ => (self.now, 1),
        };
        let mut wait = backoff::wait(failures, asked, self.spread);
        let mut told = Vec::new();
        if failures == 1 {
            told.push(Told::new("account.refresh_failing"));
        }
        if backoff::is_dead(since, self.now) {
            wait = wait.max(backoff::DEAD_WAIT);
            if !matches!(grant.state, GrantState::Backoff { since, until, .. } if backoff::is_dead(since, until))
            {
                let hours = between(since, self.now).as_secs() / 3600;
                let detail = format!("no answer for {hours} h: it is tried again only when it is used");
                told.push(Told::new("account.refresh_given_up").with_detail(Some(&detail)));
            }
        }
        self.next(account, grant, GrantState::Backoff { since, until: after(self.now, wait), failures }, told)
    }

    fn closed(&self, account: &Account, grant: &Grant, state: GrantState, detail: &str) -> Verdict {
        let (event, cause) = match state {
            GrantState::NeedsUser { cause } => ("account.needs_user", cause),
            GrantState::SubjectGone { cause } => ("account.subject_gone", cause),
            GrantState::ReauthRequired { cause } => ("account.reauth_required", cause),
            GrantState::Fresh | GrantState::Backoff { .. } | GrantState::Ambiguous { .. } => {
                return Verdict::Superseded; // none of these closes
            }
        };
        let told =
            Told::new(event).with_cause(cause.as_str()).with_detail(Some(detail).filter(|d| !d.is_empty()));
        self.next(account, grant, state, vec![told])
    }

    fn next(&self, account: &Account, grant: &Grant, state: GrantState, told: Vec<Told>) -> Verdict {
        let used = if self.is_used { Some(self.now) } else { grant.used };
        let material = Material::Oauth(Box::new(Grant { used, state, ..grant.clone() }));
        Verdict::Next(Box::new(Account { material, ..account.clone() }), told)
    }
}
