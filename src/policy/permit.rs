//! The policy's answer 'yes': the only thing that obtains a credential.

use std::sync::Arc;

use super::{Denial, RuleId};
use crate::id::{AccountKey, Effect, OperationName, Scope, Subject};

/// Leave for one request to use one account.
///
/// Only [`Policy::decide`](super::Policy::decide) makes one. It cannot be cloned, built or changed elsewhere,
/// so that whoever holds a `&Permit` has proof of a decision, and of this one.
///
/// ```compile_fail,E0599
/// # use keybearer::policy::Permit;
/// fn twice(permit: Permit) -> (Permit, Permit) {
///     (permit.clone(), permit)
/// }
/// ```
/// ```compile_fail,E0451
/// # use keybearer::{id::AccountKey, policy::Permit};
/// fn for_another(account: AccountKey, permit: Permit) -> Permit {
///     Permit { account, ..permit }
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit that nobody uses is a decision that nobody acted upon"]
pub struct Permit {
    pub(super) subject: Subject,
    pub(super) account: AccountKey,
    pub(super) operation: Option<(OperationName, Effect)>,
    pub(super) required: Arc<[Scope]>,
    pub(super) granted: Arc<[Scope]>,
    pub(super) rule: RuleId,
    pub(super) would_deny: Option<Box<Denial>>,
}

impl Permit {
    /// The account to use, and no other.
    pub const fn account(&self) -> &AccountKey {
        &self.account
    }

    /// Who asked.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What was asked; `None` only in observe mode, for a request that is no known operation.
    pub fn operation(&self) -> Option<&OperationName> {
        self.operation.as_ref().map(|(name, _)| name)
    }

    /// What the operation does to the provider's records.
    pub fn effect(&self) -> Option<Effect> {
        self.operation.as_ref().map(|(_, effect)| *effect)
    }

    /// The scopes that the operation needs; the account must hold them too.
    pub fn scopes(&self) -> &[Scope] {
        &self.required
    }

    /// The scopes that the role holds for this operation as this principal.
    pub fn granted(&self) -> &[Scope] {
        &self.granted
    }

    /// The grant that gave it: the one that holds the first required scope.
    pub const fn rule(&self) -> &RuleId {
        &self.rule
    }

    /// In observe mode: the refusal that enforcing would have been.
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_deref()
    }
}
