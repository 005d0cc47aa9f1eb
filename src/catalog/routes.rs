//! From method and path to operation: a trie over the canonical path's segments.

use std::{collections::HashMap, str::Split, sync::Arc};

use http::Method;

use super::{
    Connector, Operation,
    request::{RequestLine, Segment},
};
use crate::path::CanonicalPath;

/// The operations of one or more connectors, by shape of path.
///
/// At each segment a literal beats `{x}` beats `{x...}`; what was tried in vain is left again, so that
/// `/a/{x}/d` is found beside `/a/b/c`. A search follows the request's own segments and no others: it visits
/// one node per segment, or a few more where literals and placeholders share a place.
#[derive(Debug)]
pub(super) struct Routes {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, usize>,
    one: Option<usize>,
    /// Paths that end here.
    here: Vec<Route>,
    /// Paths whose last segment is `{x...}`, which begins here.
    rest: Vec<Route>,
}

/// What a request was found to be.
#[derive(Debug, Clone)]
pub struct Route {
    /// The connector whose operation it is.
    pub connector: Arc<Connector>,
    /// The operation.
    pub operation: Arc<Operation>,
    /// The path template that matched.
    pub template: Arc<str>,
    method: Method,
}

impl Default for Routes {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Routes {
    /// Adds one request line.
    ///
    /// # Errors
    /// The route of equal method and shape that is there already: which one is meant would be chance.
    pub(super) fn insert(
        &mut self,
        line: &RequestLine,
        connector: &Arc<Connector>,
        operation: &Arc<Operation>,
    ) -> Result<(), Route> {
        let mut at = 0;
        let mut takes_rest = false;
        for segment in &line.segments {
            match segment {
                Segment::Literal(text) => at = self.literal(at, text),
                Segment::One => at = self.one(at),
                Segment::Rest => takes_rest = true,
            }
        }
        let node = &mut self.nodes[at];
        let routes = if takes_rest { &mut node.rest } else { &mut node.here };
        if let Some(equal) = of_method(routes, &line.method) {
            return Err(equal.clone());
        }
        routes.push(Route {
            connector: Arc::clone(connector),
            operation: Arc::clone(operation),
            template: Arc::clone(&line.template),
            method: line.method.clone(),
        });
        Ok(())
    }

    fn literal(&mut self, at: usize, text: &str) -> usize {
        if let Some(next) = self.nodes[at].literals.get(text) {
            return *next;
        }
        let next = self.grow();
        self.nodes[at].literals.insert(text.to_owned(), next);
        next
    }

    fn one(&mut self, at: usize) -> usize {
        if let Some(next) = self.nodes[at].one {
            return next;
        }
        let next = self.grow();
        self.nodes[at].one = Some(next);
        next
    }

    fn grow(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    pub(super) fn find(&self, method: &Method, path: &CanonicalPath) -> Option<&Route> {
        self.descend(0, method, path.segments())
    }

    /// Goes as deep as the trie is, not as the path is: what an agent sends cannot exhaust the stack.
    fn descend(&self, at: usize, method: &Method, mut rest: Split<'_, char>) -> Option<&Route> {
        let node = &self.nodes[at];
        let Some(segment) = rest.next() else {
            return of_method(&node.here, method);
        };
        let literal = || self.descend(*node.literals.get(segment)?, method, rest.clone());
        let one = || self.descend(node.one.filter(|_| !segment.is_empty())?, method, rest.clone());
        let all = || of_method(&node.rest, method).filter(|_| !segment.is_empty());
        literal().or_else(one).or_else(all)
    }
}

fn of_method<'a>(routes: &'a [Route], method: &Method) -> Option<&'a Route> {
    routes.iter().find(|route| route.method == *method)
}
