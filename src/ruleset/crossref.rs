//! What roles say about connectors, checked against the connectors: a grant that names nothing is a mistake, and a
//! deny that names nothing is a hole.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    catalog::ConnectorSpec,
    document::{Place, Problem, did_you_mean},
    id::{ConnectorName, OperationName, Scope},
    policy::RoleSpec,
};

/// The connectors that there are.
#[derive(Debug)]
pub(super) struct Known<'a> {
    connectors: BTreeMap<&'a str, Option<Words<'a>>>,
}

/// What a connector's file defines.
#[derive(Debug)]
struct Words<'a> {
    scopes: BTreeSet<&'a str>,
    operations: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    /// `declared` are all names, also of connectors whose specs could not be read: what roles say about those is
    /// not judged until they can.
    pub(super) fn new(
        declared: impl Iterator<Item = &'a str>,
        specs: impl Iterator<Item = (&'a ConnectorName, &'a ConnectorSpec)>,
    ) -> Self {
        let mut connectors: BTreeMap<_, _> = declared.map(|name| (name, None)).collect();
        for (name, spec) in specs {
            let words = Words {
                scopes: spec.scopes.keys().map(Scope::as_str).collect(),
                operations: spec.operations.iter().map(|operation| operation.name.as_str()).collect(),
            };
            connectors.insert(name.as_str(), Some(words));
        }
        Self { connectors }
    }

    /// Checks one role, as document 0.
    pub(super) fn check(&self, role: &RoleSpec) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, grant) in role.grants.iter().enumerate() {
            let at = Place::spec(0).key("grants").index(index);
            self.check_line(&at, &grant.connector, &grant.scopes, grant.operations.as_deref(), &mut problems);
        }
        for (index, deny) in role.deny.iter().enumerate() {
            let at = Place::spec(0).key("deny").index(index);
            self.check_line(&at, &deny.connector, &[], deny.operations.as_deref(), &mut problems);
        }
        problems
    }

    fn check_line(
        &self,
        at: &Place,
        connector: &ConnectorName,
        scopes: &[Scope],
        operations: Option<&[OperationName]>,
        problems: &mut Vec<Problem>,
    ) {
        let Some(words) = self.connectors.get(connector.as_str()) else {
            let hint = did_you_mean(connector.as_str(), self.connectors.keys().copied());
            let says = format!("no connector {connector} is defined{hint}");
            problems.push(at.key("connector").problem(says));
            return;
        };
        let Some(words) = words else { return };
        for (index, scope) in scopes.iter().enumerate() {
            let says = |hint| format!("connector {connector} has no scope {scope}{hint}");
            words_have(&words.scopes, scope.as_str(), &at.key("scopes").index(index), says, problems);
        }
        for (index, operation) in operations.into_iter().flatten().enumerate() {
            let says = |hint| format!("connector {connector} has no operation {operation}{hint}");
            let at = at.key("operations").index(index);
            words_have(&words.operations, operation.as_str(), &at, says, problems);
        }
    }
}

fn words_have(
    words: &BTreeSet<&str>,
    word: &str,
    at: &Place,
    says: impl Fn(String) -> String,
    problems: &mut Vec<Problem>,
) {
    if !words.contains(word) {
        problems.push(at.problem(says(did_you_mean(word, words.iter().copied()))));
    }
}
