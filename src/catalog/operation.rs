//! One named thing that can be asked of a connector.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use http::Method;

use super::{query::QuerySpec, request::RequestLine, spec::OperationSpec};
use crate::{
    document::{Place, Problem, did_you_mean},
    id::{Effect, OperationName, Scope},
    policy::Op,
};

/// One named thing that can be asked of a connector.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: OperationName,
    /// The requests that are it.
    pub requests: Vec<RequestLine>,
    /// The query parameters that it needs and takes; any where this is `None`.
    pub query: Option<QuerySpec>,
    /// The scopes that it needs, all of them.
    pub scopes: Arc<[Scope]>,
    /// What it does to the provider's records.
    pub effect: Effect,
}

pub(super) fn compile_operations(
    specs: Vec<OperationSpec>,
    scopes: &BTreeMap<Scope, Vec<String>>,
    at: &Place,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<Operation>> {
    let mut names = HashSet::new();
    let mut operations = Vec::with_capacity(specs.len());
    for (index, spec) in specs.into_iter().enumerate() {
        let at = at.index(index);
        if !names.insert(spec.name.clone()) {
            problems.push(at.key("name").problem(format!("operation {} is described twice", spec.name)));
        }
        operations.push(Arc::new(Operation::compile(spec, scopes, &at, problems)));
    }
    operations
}

impl Operation {
    /// As far as policy looks at it.
    #[must_use]
    pub const fn op(&self) -> Op<'_> {
        Op { name: &self.name, effect: self.effect, scopes: &self.scopes }
    }

    fn compile(
        spec: OperationSpec,
        known: &BTreeMap<Scope, Vec<String>>,
        at: &Place,
        problems: &mut Vec<Problem>,
    ) -> Self {
        spec.body.refuse(at, "body", "decisions by the body; leave such operations out", problems);
        for (index, scope) in spec.scopes.iter().enumerate() {
            if !known.contains_key(scope) {
                let hint = did_you_mean(scope.as_str(), known.keys().map(Scope::as_str));
                let says = format!("scope {scope} is not among spec.scopes{hint}");
                problems.push(at.key("scopes").index(index).problem(says));
            }
        }
        if spec.request.is_empty() {
            problems.push(at.key("request").problem("write at least one, as in `GET /items/{id}`"));
        }
        let mut requests = Vec::with_capacity(spec.request.len());
        for text in &spec.request {
            match RequestLine::parse(text) {
                Ok(line) => requests.push(line),
                Err(says) => problems.push(at.key("request").problem(format!("`{text}`: {says}"))),
            }
        }
        Self {
            name: spec.name,
            effect: spec.effect.unwrap_or_else(|| default_effect(&requests)),
            requests,
            query: spec.query,
            scopes: spec.scopes.into(),
        }
    }
}

/// The strongest of what the methods suggest (RFC 9110 §9.2.1).
fn default_effect(requests: &[RequestLine]) -> Effect {
    let of_method = |line: &RequestLine| match line.method {
        Method::GET | Method::HEAD | Method::OPTIONS => Effect::Read,
        Method::DELETE => Effect::Destructive,
        _ => Effect::Write,
    };
    requests.iter().map(of_method).max().unwrap_or(Effect::Write)
}
