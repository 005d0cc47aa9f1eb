//! Whose accounts a subject may use at all, whatever it does with them.

use super::Ruleset;
use crate::{
    id::{AccountKey, Subject},
    policy::{Permit, Question},
};

impl Ruleset {
    /// Leave to use this account for something that the policy lets the subject do; `None` where no request of the
    /// subject's could go with it.
    pub fn entitled(&self, subject: &Subject, account: &AccountKey) -> Option<Permit> {
        let connector = self.catalog.connector(account.connector.as_str())?;
        let operations = connector.operations.iter().map(|operation| Some(operation.op()));
        // In observe mode a request that is no known operation goes, too.
        let mut questions = operations.chain([None]).map(|operation| Question {
            subject,
            connector: &connector.name,
            operation,
        });
        questions.find_map(|question| {
            self.policy.decide(question).ok().filter(|permit| permit.account() == account)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Catalog, policy::Policy};

    const CONNECTOR: &str = r#"{hosts: [api.crm.test], auth: {type: static},
        inject: [{header: Authorization, value: "Bearer {token}"}],
        scopes: {contacts:read: [], contacts:write: []},
        operations: [
            {name: contact.list, request: "GET /contacts", scopes: [contacts:read]},
            {name: contact.add, request: "POST /contacts", scopes: [contacts:write]}]}"#;
    const ROLES: &[(&str, &str)] = &[
        ("researcher", "{tenants: [acme], grants: [{connector: crm, as: role, scopes: [contacts:read]}]}"),
        (
            "publisher",
            "{tenants: [acme, globex], grants: [{connector: crm, as: user, scopes: [contacts:write]},
                {connector: crm, as: tenant, scopes: [contacts:read]}]}",
        ),
        (
            "denied",
            "{tenants: [acme], grants: [{connector: crm, as: role, scopes: [contacts:read]}], deny: [{connector: crm}]}",
        ),
        ("scopeless", "{tenants: [acme], grants: [{connector: crm, as: role, scopes: []}]}"),
        (
            "watched",
            "{tenants: [acme], mode: observe, grants: [{connector: crm, as: developer, scopes: []}]}",
        ),
    ];

    fn rules() -> Ruleset {
        let crm = ("crm".parse().unwrap(), serde_saphyr::from_str(CONNECTOR).unwrap());
        let roles =
            ROLES.iter().map(|(name, yaml)| (name.parse().unwrap(), serde_saphyr::from_str(yaml).unwrap()));
        Ruleset {
            policy: Policy::compile(roles.collect()).unwrap(),
            catalog: Catalog::compile(vec![crm]).unwrap(),
            ..Ruleset::default()
        }
    }

    fn may(tenant: &str, role: &str, user: Option<&str>, account: &str) -> bool {
        let user = user.map(|user| user.parse().unwrap());
        let subject = Subject { tenant: tenant.parse().unwrap(), role: role.parse().unwrap(), user };
        rules().entitled(&subject, &account.parse().unwrap()).is_some()
    }

    #[test]
    fn a_subject_may_use_the_account_that_its_own_requests_go_with() {
        assert!(may("acme", "researcher", None, "acme/crm/role:researcher"));
        assert!(may("acme", "researcher", Some("alice"), "acme/crm/role:researcher"));
        assert!(may("acme", "publisher", Some("alice"), "acme/crm/user:alice/publisher"));
        assert!(may("acme", "publisher", Some("alice"), "acme/crm/tenant"));
        assert!(may("acme", "publisher", None, "acme/crm/tenant"));
        assert!(may("globex", "publisher", None, "globex/crm/tenant"));
        assert!(may("acme", "watched", None, "acme/crm/developer"));
    }

    #[test]
    fn no_other_account_is_given_whoever_asks() {
        for (tenant, role, user, account) in [
            ("acme", "researcher", None, "acme/crm/role:publisher"),
            ("acme", "researcher", None, "acme/crm/tenant"),
            ("acme", "researcher", None, "acme/crm/developer"),
            ("acme", "researcher", Some("alice"), "acme/crm/user:alice/researcher"),
            ("acme", "researcher", None, "globex/crm/role:researcher"),
            ("globex", "researcher", None, "globex/crm/role:researcher"),
            ("acme", "publisher", Some("alice"), "acme/crm/user:bob/publisher"),
            ("acme", "publisher", Some("alice"), "acme/crm/user:alice/researcher"),
            ("acme", "publisher", None, "acme/crm/user:alice/publisher"),
            ("acme", "publisher", None, "globex/crm/tenant"),
            ("acme", "publisher", None, "acme/crm/role:publisher"),
            ("acme", "denied", None, "acme/crm/role:denied"),
            ("acme", "scopeless", None, "acme/crm/role:scopeless"),
            ("acme", "nobody", None, "acme/crm/role:nobody"),
            ("acme", "researcher", None, "acme/erp/role:researcher"),
        ] {
            assert!(!may(tenant, role, user, account), "{role} {user:?} of {tenant}: {account}");
        }
    }
}
