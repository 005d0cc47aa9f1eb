//! What an identity may do, told before it does it.

use std::sync::Arc;

use super::Ruleset;
use crate::{
    catalog::{Connector, Operation},
    id::Subject,
    policy::{Permit, Question},
};

/// One operation that the policy lets a subject do.
#[derive(Debug)]
pub struct Offer<'a> {
    /// The connector whose operation it is.
    pub connector: &'a Arc<Connector>,
    /// The operation.
    pub operation: &'a Operation,
    /// The policy's answer, as a request would get it.
    pub permit: Permit,
}

impl Ruleset {
    /// All that a subject may do: connectors by name, and of each the operations in the order of its file.
    pub fn offers<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = Offer<'a>> {
        let operations = |connector: &'a Arc<Connector>| {
            connector.operations.iter().map(move |operation| (connector, &**operation))
        };
        self.catalog.connectors().flat_map(operations).filter_map(move |(connector, operation)| {
            let question = Question { subject, connector: &connector.name, operation: Some(operation.op()) };
            let permit = self.policy.decide(question).ok()?;
            Some(Offer { connector, operation, permit })
        })
    }
}
