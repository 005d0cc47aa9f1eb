//! One role compiled: connector by connector, what is denied and what is held.

use std::collections::{HashMap, HashSet};

use super::{
    Mode, Op, PrincipalKind, RoleSpec, RuleId, Why,
    held::{Held, Holding},
    spec::{DenySpec, GrantSpec},
};
use crate::{
    document::{Place, Problem},
    id::{ConnectorName, OperationName, RoleName, TenantId},
};

/// A role, ready to decide.
#[derive(Debug)]
pub(super) struct Role {
    tenants: Tenants,
    pub(super) mode: Mode,
    connectors: HashMap<ConnectorName, Rules>,
}

#[derive(Debug)]
enum Tenants {
    All,
    Named(HashSet<TenantId>),
}

/// What one role may do with one connector.
#[derive(Debug, Default)]
pub(super) struct Rules {
    denied: Option<RuleId>,
    denied_operations: HashMap<OperationName, RuleId>,
    /// In the order in which the file first names each principal; at most four.
    holdings: Vec<Holding>,
}

/// Which principal's account to use, by which grant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub(super) kind: PrincipalKind,
    pub(super) rule: &'a RuleId,
    pub(super) held: &'a Held,
}

impl Role {
    pub(super) fn compile(name: &RoleName, spec: &RoleSpec, at: &Place, problems: &mut Vec<Problem>) -> Self {
        for (index, grant) in spec.grants.iter().enumerate() {
            check_grant(grant, &at.key("grants").index(index), problems);
        }
        for (index, deny) in spec.deny.iter().enumerate() {
            let at = at.key("deny").index(index);
            refuse_empty(deny.operations.as_deref(), &at, "deny the whole connector", problems);
        }
        Self {
            tenants: Tenants::compile(&spec.tenants, &at.key("tenants"), problems),
            mode: spec.mode,
            connectors: compile_connectors(name, spec),
        }
    }

    pub(super) fn exists_in(&self, tenant: &TenantId) -> bool {
        match &self.tenants {
            Tenants::All => true,
            Tenants::Named(tenants) => tenants.contains(tenant),
        }
    }

    pub(super) fn rules(&self, connector: &ConnectorName) -> Option<&Rules> {
        self.connectors.get(connector)
    }

    /// Whether a request for the operation may go with this principal's account, whether or not it names a user.
    pub(super) fn uses(&self, kind: PrincipalKind, connector: &ConnectorName, op: &Op<'_>) -> bool {
        let by =
            |rules: &Rules, has_user| rules.judge(Some(op), has_user).is_ok_and(|chosen| chosen.kind == kind);
        self.rules(connector).is_some_and(|rules| by(rules, true) || by(rules, false))
    }
}

impl Tenants {
    fn compile(listed: &[String], at: &Place, problems: &mut Vec<Problem>) -> Self {
        if listed == ["*"] {
            return Self::All;
        }
        if listed.is_empty() {
            problems.push(at.problem("no tenant is named: write [\"*\"] for all of them"));
        }
        let mut named = HashSet::new();
        for (index, name) in listed.iter().enumerate() {
            let at = at.index(index);
            match TenantId::new(name) {
                _ if name == "*" => problems.push(at.problem("`*` means all tenants and stands alone")),
                Ok(tenant) => drop(named.insert(tenant)),
                Err(error) => problems.push(at.problem(error.to_string())),
            }
        }
        Self::Named(named)
    }
}

fn check_grant(grant: &GrantSpec, at: &Place, problems: &mut Vec<Problem>) {
    grant.when.refuse(at, "when", "conditions on the request; narrow with operations", problems);
    grant.rate.refuse(at, "rate", "rate limits", problems);
    grant.approve.refuse(at, "approve", "approval by a person; leave the operation out or deny it", problems);
    refuse_empty(grant.operations.as_deref(), at, "grant all that the scopes allow", problems);
}

fn refuse_empty(
    operations: Option<&[OperationName]>,
    at: &Place,
    otherwise: &str,
    problems: &mut Vec<Problem>,
) {
    if operations.is_some_and(<[_]>::is_empty) {
        let says = format!("operations is empty: name some, or leave it out to {otherwise}");
        problems.push(at.key("operations").problem(says));
    }
}

fn compile_connectors(name: &RoleName, spec: &RoleSpec) -> HashMap<ConnectorName, Rules> {
    let mut grants: HashMap<&ConnectorName, Vec<(RuleId, &GrantSpec)>> = HashMap::new();
    for (index, grant) in spec.grants.iter().enumerate() {
        let rule = RuleId::new(name.as_str(), "grants", index);
        grants.entry(&grant.connector).or_default().push((rule, grant));
    }
    let mut connectors: HashMap<ConnectorName, Rules> =
        grants.into_iter().map(|(connector, grants)| (connector.clone(), Rules::granting(grants))).collect();
    for (index, deny) in spec.deny.iter().enumerate() {
        let rule = RuleId::new(name.as_str(), "deny", index);
        connectors.entry(deny.connector.clone()).or_default().deny(deny, &rule);
    }
    connectors
}

impl Rules {
    fn granting(grants: Vec<(RuleId, &GrantSpec)>) -> Self {
        let mut by_principal: Vec<(PrincipalKind, Vec<(RuleId, &GrantSpec)>)> = Vec::new();
        for (rule, grant) in grants {
            match by_principal.iter_mut().find(|(kind, _)| *kind == grant.principal) {
                Some((_, of_kind)) => of_kind.push((rule, grant)),
                None => by_principal.push((grant.principal, vec![(rule, grant)])),
            }
        }
        let holdings =
            by_principal.iter().filter_map(|(kind, grants)| Holding::compile(*kind, grants)).collect();
        Self { holdings, ..Self::default() }
    }

    fn deny(&mut self, deny: &DenySpec, rule: &RuleId) {
        match &deny.operations {
            None => drop(self.denied.get_or_insert_with(|| rule.clone())),
            Some(operations) => {
                for operation in operations {
                    self.denied_operations.entry(operation.clone()).or_insert_with(|| rule.clone());
                }
            }
        }
    }

    /// Whether the request may go, and with whose account.
    pub(super) fn judge(&self, op: Option<&Op<'_>>, has_user: bool) -> Result<Chosen<'_>, (Why, RuleId)> {
        let denied = || self.denied_operations.get(op?.name);
        if let Some(rule) = self.denied.as_ref().or_else(denied) {
            return Err((Why::Denied, rule.clone()));
        }
        if self.holdings.is_empty() {
            return Err((Why::NotGranted, RuleId::by_default()));
        }
        let Some(op) = op else {
            return Err((Why::OperationUnknown, RuleId::by_default()));
        };
        self.choose(op, has_user).ok_or_else(|| self.reason(op))
    }

    /// The first principal whose grants hold every required scope for the operation.
    fn choose(&self, op: &Op<'_>, has_user: bool) -> Option<Chosen<'_>> {
        self.usable(has_user).find_map(|holding| {
            let held = holding.for_operation(op.name)?;
            Some(Chosen { kind: holding.kind, rule: held.covers(op.scopes)?, held })
        })
    }

    /// In observe mode: the principal that the request would use if it were granted.
    pub(super) fn assume(&self, op: Option<&Op<'_>>, has_user: bool) -> Option<Chosen<'_>> {
        op.and_then(|op| self.choose(op, has_user)).or_else(|| {
            self.usable(has_user).next().map(|holding| {
                let held = holding.anywhere();
                Chosen { kind: holding.kind, rule: &held.rule, held }
            })
        })
    }

    fn usable(&self, has_user: bool) -> impl Iterator<Item = &Holding> {
        self.holdings.iter().filter(move |holding| has_user || holding.kind != PrincipalKind::User)
    }

    /// Why no principal was chosen. Off the fast path.
    #[cold]
    fn reason(&self, op: &Op<'_>) -> (Why, RuleId) {
        if let Some(chosen) = self.choose(op, true) {
            return (Why::UserRequired, chosen.rule.clone());
        }
        if let Some(rule) = self.holdings.iter().find_map(|holding| holding.outside(op)) {
            return (Why::OperationNotGranted, rule.clone());
        }
        let nearest = self
            .holdings
            .iter()
            .map(|holding| holding.shortfall(op))
            .min_by_key(|(shortfall, _)| shortfall.missing.len());
        nearest.map_or_else(
            || (Why::NotGranted, RuleId::by_default()),
            |(shortfall, rule)| (Why::InsufficientScope(Box::new(shortfall)), rule),
        )
    }
}
