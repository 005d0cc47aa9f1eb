//! What one principal's grants give on one connector, looked up by operation.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Op, PrincipalKind, RuleId, Shortfall, spec::GrantSpec};
use crate::id::{OperationName, Scope};

/// All grants of one role for one connector that use the same principal.
///
/// Every union of scopes that a decision can need is made when the policy is compiled, so that a decision
/// reads one entry per principal however many grants there are.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) kind: PrincipalKind,
    /// Held for operations that no grant names; `None` where every grant names some.
    general: Option<Held>,
    /// Held for the operations that grants name: those grants' scopes and the general ones.
    by_operation: HashMap<OperationName, Held>,
    /// All grants as if none named operations: only to tell a refusal of scope from one of operation.
    anywhere: Held,
}

/// Scopes, and the grant that each comes from.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The first grant that contributes.
    pub(super) rule: RuleId,
    pub(super) scopes: Arc<[Scope]>,
    by_scope: HashMap<Scope, RuleId>,
}

impl Holding {
    /// Compiles grants of one principal, in file order; `None` if there are none.
    pub(super) fn compile(kind: PrincipalKind, grants: &[(RuleId, &GrantSpec)]) -> Option<Self> {
        let named: HashSet<&OperationName> =
            grants.iter().flat_map(|(_, grant)| grant.operations.iter().flatten()).collect();
        let applying_to = |operation: &OperationName| {
            Held::union(grants.iter().filter(|(_, grant)| {
                grant.operations.as_ref().is_none_or(|operations| operations.contains(operation))
            }))
        };
        Some(Self {
            kind,
            general: Held::union(grants.iter().filter(|(_, grant)| grant.operations.is_none())),
            by_operation: named
                .into_iter()
                .filter_map(|operation| Some((operation.clone(), applying_to(operation)?)))
                .collect(),
            anywhere: Held::union(grants)?,
        })
    }

    /// What is held for an operation; `None` if no grant applies to it.
    pub(super) fn for_operation(&self, operation: &OperationName) -> Option<&Held> {
        self.by_operation.get(operation).or(self.general.as_ref())
    }

    /// The grant that would give the operation its scopes if grants named no operations.
    pub(super) fn outside(&self, op: &Op<'_>) -> Option<&RuleId> {
        self.anywhere.covers(op.scopes)
    }

    /// What is held by whichever grant, for a request that is no known operation.
    pub(super) const fn anywhere(&self) -> &Held {
        &self.anywhere
    }

    /// What the operation needs and this principal does not hold for it, with the rule that came nearest.
    pub(super) fn shortfall(&self, op: &Op<'_>) -> (Shortfall, RuleId) {
        let held = self.for_operation(op.name);
        let holds = |scope: &&Scope| held.is_some_and(|held| held.by_scope.contains_key(*scope));
        let shortfall = Shortfall {
            required: op.scopes.to_vec(),
            granted: held.map_or_else(Vec::new, |held| held.scopes.to_vec()),
            missing: op.scopes.iter().filter(|scope| !holds(scope)).cloned().collect(),
        };
        (shortfall, held.unwrap_or(&self.anywhere).rule.clone())
    }
}

impl Held {
    fn union<'a>(grants: impl IntoIterator<Item = &'a (RuleId, &'a GrantSpec)>) -> Option<Self> {
        let mut grants = grants.into_iter().peekable();
        let rule = grants.peek()?.0.clone();
        let mut scopes = Vec::new();
        let mut by_scope = HashMap::new();
        for (rule, grant) in grants {
            for scope in &grant.scopes {
                by_scope.entry(scope.clone()).or_insert_with(|| {
                    scopes.push(scope.clone());
                    rule.clone()
                });
            }
        }
        Some(Self { rule, scopes: scopes.into(), by_scope })
    }

    /// The grant that holds the first required scope, if all are held.
    pub(super) fn covers(&self, required: &[Scope]) -> Option<&RuleId> {
        let mut first = None;
        for scope in required {
            let rule = self.by_scope.get(scope)?;
            first = first.or(Some(rule));
        }
        first.or(Some(&self.rule))
    }
}
