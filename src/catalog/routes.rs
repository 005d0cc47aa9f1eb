//! From method and path to operation: a trie over the canonical path's segments.

use std::{collections::HashMap, str::Split, sync::Arc};

use http::Method;

use super::{
    Connector, Operation, QuerySpec,
    query::Names,
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
    /// The route of equal method, shape and query that is there already: which one is meant would be chance.
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
        let same = |route: &&Route| route.method == line.method && route.clashes(operation.query.as_ref());
        if let Some(equal) = routes.iter().find(same) {
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

    pub(super) fn find(&self, method: &Method, path: &CanonicalPath, query: &str) -> Option<&Route> {
        self.descend(0, Asked { method, query }, path.segments())
    }

    /// Goes as deep as the trie is, not as the path is: what an agent sends cannot exhaust the stack.
    fn descend(&self, at: usize, asked: Asked<'_>, mut rest: Split<'_, char>) -> Option<&Route> {
        let node = &self.nodes[at];
        let Some(segment) = rest.next() else {
            return asked.among(&node.here);
        };
        let literal = || self.descend(*node.literals.get(segment)?, asked, rest.clone());
        let one = || self.descend(node.one.filter(|_| !segment.is_empty())?, asked, rest.clone());
        let all = || asked.among(&node.rest).filter(|_| !segment.is_empty());
        literal().or_else(one).or_else(all)
    }
}

impl Route {
    /// Whether a request could be this and an operation with that `query`, of which neither is the narrower.
    fn clashes(&self, query: Option<&QuerySpec>) -> bool {
        match (self.operation.query.as_ref(), query) {
            (Some(one), Some(other)) => one.needs == other.needs,
            // One that takes any query, beside one that does not, would take what the other refuses.
            _ => true,
        }
    }
}

/// What of a request decides besides its path.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a Method,
    query: &'a str,
}

impl Asked<'_> {
    /// The route of its method; where queries decide, the one that needs most of what is there. Two that need as
    /// many are two readings, so neither is taken.
    fn among<'a>(&self, routes: &'a [Route]) -> Option<&'a Route> {
        let mut of_method = routes.iter().filter(|route| route.method == *self.method).peekable();
        if of_method.peek()?.operation.query.is_none() {
            return of_method.next();
        }
        let mut best: Option<(usize, Option<&Route>)> = None;
        for route in of_method {
            let Some(needs) = self.needed(route) else { continue };
            match best {
                Some((most, _)) if most > needs => {}
                Some((most, _)) if most == needs => best = Some((most, None)),
                _ => best = Some((needs, Some(route))),
            }
        }
        best?.1
    }

    /// How many parameters the route needs, if the query fits it.
    fn needed(&self, route: &Route) -> Option<usize> {
        let query = route.operation.query.as_ref()?;
        let names = Names::read(self.query, &route.connector.strip.query)?;
        query.fits(&names).then_some(query.needs.len())
    }
}
