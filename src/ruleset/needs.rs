//! What a consent for an account has to ask for: what the roles' grants need, and nothing else.

use std::collections::BTreeSet;

use super::Ruleset;
use crate::{
    catalog::Connector,
    id::{AccountKey, Scope},
};

/// What requests need that may use an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Our scopes.
    pub scopes: BTreeSet<Scope>,
    /// The provider's that they stand for, each once.
    pub provider_scopes: Vec<String>,
}

impl Ruleset {
    /// What the operations need that the policy lets go with this account of the connector; `None` where it lets none.
    #[must_use]
    pub fn needs(&self, account: &AccountKey, connector: &Connector) -> Option<Needs> {
        let mut used = connector
            .operations
            .iter()
            .filter(|operation| self.policy.uses(account, operation.op()))
            .peekable();
        used.peek()?;
        let scopes: BTreeSet<Scope> = used.flat_map(|operation| operation.scopes.iter().cloned()).collect();
        let provider_scopes = connector.provider_scopes(&scopes);
        Some(Needs { scopes, provider_scopes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Catalog, policy::Policy};

    const CONNECTOR: &str = r#"{hosts: [api.crm.test], auth: {type: static},
        inject: [{header: Authorization, value: "Bearer {token}"}],
        scopes: {contacts:read: [r, base], contacts:write: [w, base], deals:read: [d], admin:all: [root]},
        operations: [
            {name: contact.list, request: "GET /contacts", scopes: [contacts:read]},
            {name: contact.add, request: "POST /contacts", scopes: [contacts:write]},
            {name: contact.merge, request: "POST /merge", scopes: [contacts:write, admin:all]},
            {name: deal.list, request: "GET /deals", scopes: [deals:read]},
            {name: ping, request: "GET /ping", scopes: []}]}"#;

    /// The provider's scopes that an account needs under one role, `writer` in acme.
    fn needed(role: &str, account: &str) -> Option<Vec<String>> {
        let crm = ("crm".parse().unwrap(), serde_saphyr::from_str(CONNECTOR).unwrap());
        let role = serde_saphyr::from_str(role).unwrap();
        let rules = Ruleset {
            policy: Policy::compile(vec![("writer".parse().unwrap(), role)]).unwrap(),
            catalog: Catalog::compile(vec![crm]).unwrap(),
            ..Ruleset::default()
        };
        let needs = rules.needs(&account.parse().unwrap(), rules.catalog.connector("crm").unwrap());
        needs.map(|needs| needs.provider_scopes)
    }

    #[test]
    fn only_what_an_operation_needs_is_asked_for() {
        // Nothing that needs admin:all is let through, so it is not needed, granted or not.
        let role = "{tenants: [acme], grants: [{connector: crm, as: role, scopes: [contacts:read, contacts:write]}]}";
        assert_eq!(needed(role, "acme/crm/role:writer").unwrap(), ["r", "base", "w"]);
        let role =
            "{tenants: [acme], grants: [{connector: crm, as: role, scopes: [contacts:read, admin:all]}]}";
        assert_eq!(needed(role, "acme/crm/role:writer").unwrap(), ["r", "base"]);
        let role = "{tenants: [acme], grants: [{connector: crm, as: role, scopes: []}]}";
        assert_eq!(
            needed(role, "acme/crm/role:writer").unwrap(),
            [""; 0],
            "ping needs an account and no scope"
        );
    }

    #[test]
    fn denied_operations_and_those_that_a_grant_does_not_name_ask_for_nothing() {
        let denied =
            "{tenants: [acme], grants: [{connector: crm, as: role, scopes: [contacts:read, deals:read]}],
            deny: [{connector: crm, operations: [deal.list]}]}";
        assert_eq!(needed(denied, "acme/crm/role:writer").unwrap(), ["r", "base"]);
        let narrowed = "{tenants: [acme], grants: [
            {connector: crm, as: role, scopes: [contacts:read, deals:read], operations: [deal.list]}]}";
        assert_eq!(needed(narrowed, "acme/crm/role:writer").unwrap(), ["d"]);
        let all = "{tenants: [acme], grants: [{connector: crm, as: role, scopes: [contacts:read]}], deny: [{connector: crm}]}";
        assert_eq!(needed(all, "acme/crm/role:writer"), None);
    }

    #[test]
    fn each_principal_needs_what_goes_with_its_own_account() {
        let role = "{tenants: [acme], grants: [
            {connector: crm, as: user, scopes: [contacts:read]},
            {connector: crm, as: tenant, scopes: [contacts:read, deals:read]}]}";
        assert_eq!(needed(role, "acme/crm/user:alice/writer").unwrap(), ["r", "base"]);
        // Contacts too: a request that names no user reads them with the tenant's account.
        assert_eq!(needed(role, "acme/crm/tenant").unwrap(), ["r", "base", "d"]);
        for other in
            ["acme/crm/role:writer", "globex/crm/tenant", "acme/crm/user:alice/reader", "acme/crm/developer"]
        {
            assert_eq!(needed(role, other), None, "{other}");
        }
    }

    #[test]
    fn what_is_only_observed_is_not_asked_for() {
        let role =
            "{tenants: [acme], mode: observe, grants: [{connector: crm, as: role, scopes: [contacts:read]}]}";
        assert_eq!(needed(role, "acme/crm/role:writer").unwrap(), ["r", "base"]);
    }
}
