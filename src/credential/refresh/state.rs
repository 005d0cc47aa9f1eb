//! What a grant may do now, and when it is to be refreshed next (`docs/refresh.md`, states).

use std::time::Duration;

use jiff::Timestamp;

use super::{
    bucket::Priority,
    clock::{after, between},
    schedule::{self, Spread},
};
use crate::{
    cause::Cause,
    oauth::Dialect,
    vault::{Account, Grant, GrantState, Material, Status},
};

/// An account that was used within so long is refreshed ahead; others are when somebody uses them (F21).
const WARM: Duration = Duration::from_hours(24);
/// How often it is tried whether what a person had to do was done (F28).
const PROBE: Duration = Duration::from_hours(6);
/// How long until a doubtful refresh is tried again, where the first recovery brought no answer.
const DOUBT: Duration = Duration::from_secs(15);

/// Whether a grant's access token may be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::credential) enum Standing {
    /// It may, until then, where an end is known.
    Live(Option<Timestamp>),
    /// It has ended; a refresh may bring another.
    Over,
    /// It may not, and no attempt of ours changes that.
    Closed(Closed),
}

/// Why only a person can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// They must sign in at the provider again; what is stored may work after that.
    NeedsUser(Cause),
    /// They must consent again.
    Reauthorize(Cause),
    /// Whoever consented is gone: another person must connect an account.
    SubjectGone(Cause),
    /// The provider mints nothing from what the account holds: an operator must correct the one or the other.
    Refused(Cause),
}

impl Closed {
    /// Why.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::NeedsUser(cause)
            | Self::Reauthorize(cause)
            | Self::SubjectGone(cause)
            | Self::Refused(cause) => cause,
        }
    }
}

/// How a grant stands.
#[must_use]
pub(in crate::credential) fn standing(grant: &Grant, now: Timestamp) -> Standing {
    let closed = match grant.state {
        GrantState::NeedsUser { cause } => Closed::NeedsUser(cause),
        GrantState::ReauthRequired { cause } => Closed::Reauthorize(cause),
        GrantState::SubjectGone { cause } => Closed::SubjectGone(cause),
        GrantState::Fresh | GrantState::Backoff { .. } | GrantState::Ambiguous { .. } => {
            return open(grant, now);
        }
    };
    Standing::Closed(closed)
}

fn open(grant: &Grant, now: Timestamp) -> Standing {
    let ended = Standing::Closed(Closed::Reauthorize(Cause::ExpiredHard));
    if grant.deadline.is_some_and(|deadline| deadline <= now) {
        return ended;
    }
    match &grant.access {
        Some(access) if access.expires.is_none_or(|expires| expires > now) => {
            Standing::Live(access.expires.into_iter().chain(grant.deadline).min())
        }
        _ if grant.refresh.is_none() => ended,
        _ => Standing::Over,
    }
}

/// Why a refresh is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) priority: Priority,
    pub(super) want: Want,
}

impl Reason {
    /// Whether a request waits for it.
    pub(super) fn is_for_a_request(self) -> bool {
        self.priority == Priority::Demand && self.want != Want::Recovery
    }
}

/// What must be so for a refresh to be of use still, when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// There is no token to inject.
    Any,
    /// The token in the vault is still the one that was obtained then.
    Newer(Timestamp),
    /// An earlier attempt's outcome is to be found out.
    Recovery,
    /// What a person had to do may have been done.
    Probe,
}

/// Whether to refresh a grant now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to be done, or nothing that a refresh could do.
    Pass,
    /// Not before then.
    NotBefore(Timestamp),
    /// Yes.
    Go,
}

/// Whether to refresh for this reason now.
#[must_use]
pub(super) fn turn(account: &Account, want: Want, now: Timestamp) -> Turn {
    let Material::Oauth(grant) = &account.material else { return Turn::Pass };
    if account.status != Status::Active || grant.refresh.is_none() {
        return Turn::Pass;
    }
    let standing = standing(grant, now);
    let is_wanted = match (want, standing) {
        (Want::Probe, Standing::Closed(Closed::NeedsUser(_))) => true,
        (_, Standing::Closed(_)) | (Want::Probe, _) => false,
        (Want::Any, standing) => standing == Standing::Over,
        (Want::Newer(than), _) => grant.access.as_ref().is_none_or(|access| access.obtained == than),
        (Want::Recovery, standing) => {
            standing == Standing::Over || matches!(grant.state, GrantState::Ambiguous { .. })
        }
    };
    match grant.state {
        _ if !is_wanted => Turn::Pass,
        GrantState::Backoff { until, .. } if until > now => Turn::NotBefore(until),
        _ => Turn::Go,
    }
}

/// When an account is to be refreshed next, and why; `None` where only its use, or a person, will.
#[must_use]
pub(super) fn next(
    account: &Account,
    dialect: &Dialect,
    is_used: bool,
    now: Timestamp,
    spread: Spread,
) -> Option<(Timestamp, Reason)> {
    let Material::Oauth(grant) = &account.material else { return None };
    if account.status != Status::Active || grant.refresh.is_none() {
        return None;
    }
    let obtained = grant.access.as_ref().map_or(account.updated, |access| access.obtained);
    let reason = |priority, want| Reason { priority, want };
    let newer = grant.access.as_ref().map_or(Want::Any, |access| Want::Newer(access.obtained));
    let is_warm = is_used || grant.used.is_some_and(|used| between(used, now) < WARM);
    match grant.state {
        GrantState::Fresh => {
            let ahead = grant.access.as_ref().and_then(|access| access.expires).filter(|_| is_warm);
            let ahead = ahead
                .map(|expires| (schedule::due(obtained, expires, spread), reason(Priority::Ahead, newer)));
            let idle = idle_life(grant, dialect, obtained).map(|idle| {
                (schedule::keep_alive(obtained, idle, spread), reason(Priority::KeepAlive, newer))
            });
            ahead.into_iter().chain(idle).min_by_key(|(at, _)| *at)
        }
        // Given up (dead letter): its use tries it again, and nothing else.
        GrantState::Backoff { since, .. } if super::backoff::is_dead(since, now) => None,
        GrantState::Backoff { until, .. } => {
            let priority = if is_warm { Priority::Ahead } else { Priority::KeepAlive };
            Some((until, reason(priority, newer)))
        }
        GrantState::Ambiguous { .. } => {
            Some((after(account.updated, DOUBT), reason(Priority::Ahead, Want::Recovery)))
        }
        GrantState::NeedsUser { .. } => {
            Some((after(account.updated, PROBE), reason(Priority::KeepAlive, Want::Probe)))
        }
        GrantState::ReauthRequired { .. } | GrantState::SubjectGone { .. } => None,
    }
}

/// How long the refresh token lives unused, as the provider's description or its last answer says.
fn idle_life(grant: &Grant, dialect: &Dialect, obtained: Timestamp) -> Option<Duration> {
    let described = dialect.idle_ttl.as_ref().map(|span| span.0);
    let answered = grant.refresh_expires.map(|expires| between(obtained, expires));
    described.into_iter().chain(answered).min()
}
