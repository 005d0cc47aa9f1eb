//! The policy's answer 'no', with a reason that an agent can act on.

use std::fmt;

use serde::Serialize;

use super::RuleId;
use crate::id::{ConnectorName, OperationName, RoleName, Scope, Subject, TenantId};

/// A refusal. Its `Display` is the sentence that the agent reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub(super) why: Why,
    pub(super) rule: RuleId,
    pub(super) asked: Box<Asked>,
}

/// What the refusal answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) subject: Subject,
    pub(super) connector: ConnectorName,
    pub(super) operation: Option<OperationName>,
}

/// The reason of a [`Denial`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The role does not exist in this tenant.
    NoRole,
    /// The role has no grant for this connector.
    NotGranted,
    /// A `deny` rule names the operation or the connector.
    Denied,
    /// The scopes would suffice, but their grants name other operations.
    OperationNotGranted,
    /// No principal's grants hold all of the required scopes for this operation.
    InsufficientScope(Box<Shortfall>),
    /// The request is none of the connector's operations.
    OperationUnknown,
    /// The only grants that suffice use a user's account, and the identity names no user.
    UserRequired,
}

/// Which scopes an operation needs and which of them are not held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// What the operation needs.
    pub required: Vec<Scope>,
    /// What the role holds for it, by the principal that comes nearest.
    pub granted: Vec<Scope>,
    /// What is needed and not held.
    pub missing: Vec<Scope>,
}

impl Denial {
    /// The reason.
    pub const fn why(&self) -> &Why {
        &self.why
    }

    /// The rule that decided: a `deny` line, the grant that came nearest, or [`RuleId::by_default`].
    pub const fn rule(&self) -> &RuleId {
        &self.rule
    }

    /// The refusal's code (contract §5): `policy_denied`, `insufficient_scope` or `operation_unknown`.
    pub const fn code(&self) -> &'static str {
        match self.why {
            Why::InsufficientScope(_) => "insufficient_scope",
            Why::OperationUnknown => "operation_unknown",
            Why::NoRole | Why::NotGranted | Why::Denied | Why::OperationNotGranted | Why::UserRequired => {
                "policy_denied"
            }
        }
    }

    /// What is missing, where scopes are.
    pub const fn shortfall(&self) -> Option<&Shortfall> {
        match &self.why {
            Why::InsufficientScope(shortfall) => Some(shortfall),
            _ => None,
        }
    }

    /// The connector that was asked for.
    pub const fn connector(&self) -> &ConnectorName {
        &self.asked.connector
    }

    /// The operation that was asked for, where the request is one.
    pub const fn operation(&self) -> Option<&OperationName> {
        self.asked.operation.as_ref()
    }
}

/// There is no such role in the tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "role {role} does not exist in tenant {tenant}: use a role that does, or ask an operator to define it"
)]
pub struct NoRole {
    /// Where it was looked for.
    pub tenant: TenantId,
    /// What was looked for.
    pub role: RoleName,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { subject: Subject { tenant, role, .. }, connector, operation } = &*self.asked;
        let operation = operation.as_ref().map_or("this request", OperationName::as_str);
        let rule = &self.rule;
        match &self.why {
            Why::NoRole => NoRole { tenant: tenant.clone(), role: role.clone() }.fmt(f),
            Why::NotGranted => write!(
                f,
                "role {role} has no grant for {connector}: go on without it, or ask an operator to add a grant"
            ),
            Why::Denied => write!(
                f,
                "{operation} on {connector} is denied to role {role} by rule {rule}, whatever else is granted: do not try again"
            ),
            Why::OperationNotGranted => write!(
                f,
                "role {role} may use {connector} but not for {operation}: {rule} names other operations"
            ),
            Why::InsufficientScope(shortfall) => write!(
                f,
                "insufficient_scope: {} required for {operation} on {connector}; role {role} holds {}",
                list(&shortfall.missing),
                list(&shortfall.granted)
            ),
            Why::OperationUnknown => write!(
                f,
                "the request is none of the operations that connector {connector} describes: use one of those, which GET http://keybearer.internal/v1/operations lists, or ask an operator to describe it"
            ),
            Why::UserRequired => write!(
                f,
                "role {role} uses {connector} with a user's account ({rule}), and this identity names no user: send it with user=\"...\""
            ),
        }
    }
}

impl std::error::Error for Denial {}

fn list(scopes: &[Scope]) -> String {
    if scopes.is_empty() {
        return "none".to_owned();
    }
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ")
}
