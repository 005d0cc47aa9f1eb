//! May they? Roles compiled to a lookup, and the one function that says yes.
//!
//! [`Policy::decide`] is the only maker of a [`Permit`], and a permit is the only way to a credential (law 2).
//!
//! # What is decided
//! - A role exists only in its `tenants`. What no grant gives is refused; an empty policy refuses everything.
//! - A `deny` line wins over every grant of its role, wherever either stands.
//! - A grant that lists `operations` applies to those only. All scopes that an operation requires must be held
//!   by grants of *one* principal: half a user's and half a tenant's account are not an account. Principals are
//!   tried in the order in which the file first names them.
//! - `mode: observe` lets refusals of operation, scope and deny rules through and says so in
//!   [`Permit::would_deny`]. A connector without any grant stays refused: nobody said whose account to use.
//!
//! # What it costs
//! Hash lookups only: the role, its tenant, the connector, the denied operation, then for each principal of
//! that connector (at most four) the operation and each required scope. The unions of scopes are made by
//! [`Policy::compile`]. No list of rules is walked, so rules that do not match cost nothing, and an allowed
//! request allocates nothing: a permit is made of reference counts.

mod denial;
mod held;
mod permit;
mod rule;
mod rules;
mod spec;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use self::{
    denial::Asked,
    rules::{Chosen, Role},
};
pub use self::{
    denial::{Denial, NoRole, Shortfall, Why},
    permit::Permit,
    rule::RuleId,
    spec::{DenySpec, GrantSpec, Mode, PrincipalKind, RoleSpec},
};
use crate::{
    document::{Place, Problem},
    id::{AccountKey, ConnectorName, Effect, OperationName, Principal, RoleName, Scope, Subject},
};

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub subject: &'a Subject,
    /// Of which external system.
    pub connector: &'a ConnectorName,
    /// To do what; `None` where the request is none of the connector's operations.
    pub operation: Option<Op<'a>>,
}

/// An operation as far as policy looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// Its name.
    pub name: &'a OperationName,
    /// What it does to the provider's records.
    pub effect: Effect,
    /// The scopes it needs, all of them. Shared, because the permit keeps them.
    pub scopes: &'a Arc<[Scope]>,
}

/// Every role, ready to decide.
#[derive(Debug, Default)]
pub struct Policy {
    roles: HashMap<RoleName, Role>,
}

impl Policy {
    /// Compiles roles. The names must differ from each other.
    ///
    /// # Errors
    /// Everything that is wrong with them; [`Place::document`] is the role's index in `roles`.
    pub fn compile(roles: Vec<(RoleName, RoleSpec)>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut compiled = HashMap::with_capacity(roles.len());
        for (document, (name, spec)) in roles.into_iter().enumerate() {
            let at = Place::spec(document);
            let role = Role::compile(&name, &spec, &at, &mut problems);
            if compiled.contains_key(&name) {
                problems.push(at.problem(format!("role {name} is defined twice")));
            }
            compiled.insert(name, role);
        }
        if problems.is_empty() { Ok(Self { roles: compiled }) } else { Err(problems) }
    }

    /// Makes sure that there is this role, and in this tenant.
    ///
    /// # Errors
    /// [`NoRole`].
    pub fn know(&self, subject: &Subject) -> Result<(), NoRole> {
        self.role(subject).map(|_| ())
    }

    fn role(&self, subject: &Subject) -> Result<&Role, NoRole> {
        let role = self.roles.get(&subject.role).filter(|role| role.exists_in(&subject.tenant));
        role.ok_or_else(|| NoRole { tenant: subject.tenant.clone(), role: subject.role.clone() })
    }

    /// Whether any request for the operation may go with this account: what it needs, a consent has to ask for.
    ///
    /// What a role in observe mode is only let through is not counted.
    #[must_use]
    pub fn uses(&self, account: &AccountKey, op: Op<'_>) -> bool {
        let AccountKey { tenant, connector, principal } = account;
        let (kind, of) = match principal {
            Principal::Developer => (PrincipalKind::Developer, None),
            Principal::Tenant => (PrincipalKind::Tenant, None),
            Principal::Role(role) => (PrincipalKind::Role, Some(role)),
            Principal::User { role, .. } => (PrincipalKind::User, Some(role)),
        };
        let uses = |role: &Role| role.exists_in(tenant) && role.uses(kind, connector, &op);
        match of {
            Some(role) => self.roles.get(role).is_some_and(uses),
            None => self.roles.values().any(uses),
        }
    }

    /// Decides.
    ///
    /// # Errors
    /// The [`Denial`], for the agent to read.
    pub fn decide(&self, question: Question<'_>) -> Result<Permit, Denial> {
        let Question { subject, connector, operation } = question;
        let op = operation.as_ref();
        let has_user = subject.user.is_some();
        let Ok(role) = self.role(subject) else {
            return Err(question.denied(Why::NoRole, RuleId::by_default()));
        };
        let Some(rules) = role.rules(connector) else {
            return Err(question.denied(Why::NotGranted, RuleId::by_default()));
        };
        match rules.judge(op, has_user) {
            Ok(chosen) => question.permitted(chosen, None),
            Err((why, by)) => {
                let assumed = match role.mode {
                    Mode::Observe if why.can_be_observed() => rules.assume(op, has_user),
                    Mode::Observe | Mode::Enforce => None,
                };
                let denial = question.denied(why, by);
                match assumed {
                    Some(chosen) => question.permitted(chosen, Some(Box::new(denial))),
                    None => Err(denial),
                }
            }
        }
    }
}

impl Why {
    /// Contract §6: denials of operation, scope and deny rules; those of identity stay.
    const fn can_be_observed(&self) -> bool {
        match self {
            Self::Denied
            | Self::OperationNotGranted
            | Self::InsufficientScope(_)
            | Self::OperationUnknown => true,
            Self::NoRole | Self::NotGranted | Self::UserRequired => false,
        }
    }
}

impl Question<'_> {
    fn permitted(&self, chosen: Chosen<'_>, would_deny: Option<Box<Denial>>) -> Result<Permit, Denial> {
        let Some(principal) = principal(chosen.kind, self.subject) else {
            return Err(self.denied(Why::UserRequired, chosen.rule.clone()));
        };
        Ok(Permit {
            subject: self.subject.clone(),
            account: AccountKey {
                tenant: self.subject.tenant.clone(),
                connector: self.connector.clone(),
                principal,
            },
            operation: self.operation.map(|op| (op.name.clone(), op.effect)),
            required: self.operation.map_or_else(Arc::default, |op| Arc::clone(op.scopes)),
            granted: Arc::clone(&chosen.held.scopes),
            rule: chosen.rule.clone(),
            would_deny,
        })
    }

    #[cold]
    fn denied(&self, why: Why, rule: RuleId) -> Denial {
        let asked = Asked {
            subject: self.subject.clone(),
            connector: self.connector.clone(),
            operation: self.operation.map(|op| op.name.clone()),
        };
        Denial { why, rule, asked: Box::new(asked) }
    }
}

/// The concrete principal; `None` for a user's account where the subject names no user.
fn principal(kind: PrincipalKind, subject: &Subject) -> Option<Principal> {
    Some(match kind {
        PrincipalKind::Developer => Principal::Developer,
        PrincipalKind::Tenant => Principal::Tenant,
        PrincipalKind::Role => Principal::Role(subject.role.clone()),
        PrincipalKind::User => Principal::User { user: subject.user.clone()?, role: subject.role.clone() },
    })
}
