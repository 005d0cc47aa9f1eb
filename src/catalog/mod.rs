//! Which system a request addresses and which of its operations it is: host, method and path → operation.
//!
//! Connectors are data (the files in `policies/connectors/`, contract §6). [`Catalog::compile`] checks them
//! together and indexes their hosts and paths; [`Catalog::locate`] and [`Located::operation`] look up, at a cost
//! that follows the request's labels and segments and not the number of connectors or operations.

mod auth;
mod aws;
mod connector;
mod inject;
mod operation;
mod query;
mod request;
mod routes;
mod sites;
mod spec;
mod template;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use http::Method;

pub use self::{
    auth::{Auth, AuthSpec, AuthType},
    aws::SigningScope,
    connector::{Connector, Repinned},
    inject::{Injection, Strip},
    operation::Operation,
    query::QuerySpec,
    request::{RequestLine, never_sent},
    routes::Route,
    spec::{ConnectorSpec, InjectSpec, OperationSpec, StripSpec},
    template::{MissingField, Template},
};
use self::{
    routes::Routes,
    sites::{Site, Sites},
};
use crate::{
    document::{Place, Problem},
    host::{Host, HostMatch, HostPattern},
    id::ConnectorName,
    path::CanonicalPath,
};

/// What follows a connector's name in its address of last resort.
const BY_NAME: &str = ".connector.internal";

/// Every connector, ready to be looked up.
#[derive(Debug, Default)]
pub struct Catalog {
    sites: Sites,
    by_name: BTreeMap<ConnectorName, Named>,
}

#[derive(Debug)]
struct Named {
    /// One element; a slice where [`Located`] needs one.
    connector: [Arc<Connector>; 1],
    routes: Arc<Routes>,
}

/// A destination that is some connector's.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    connectors: &'a [Arc<Connector>],
    routes: &'a Routes,
    port: u16,
    captured: Option<(&'a str, &'a str)>,
    by_name: bool,
}

impl Catalog {
    /// Checks connectors, each and together. The names must differ from each other.
    ///
    /// # Errors
    /// Everything that is wrong with them; [`Place::document`] is the connector's index in `connectors`.
    pub fn compile(connectors: Vec<(ConnectorName, ConnectorSpec)>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut catalog = Self::default();
        for (document, (name, spec)) in connectors.into_iter().enumerate() {
            let at = Place::spec(document);
            let connector = Arc::new(Connector::compile(&name, spec, &at, &mut problems));
            catalog.add(&connector, &at, &mut problems);
        }
        if problems.is_empty() { Ok(catalog) } else { Err(problems) }
    }

    fn add(&mut self, connector: &Arc<Connector>, at: &Place, problems: &mut Vec<Problem>) {
        let mut routes = Routes::default();
        add_routes(&mut routes, connector, at, problems);
        let routes = Arc::new(routes);
        for (index, pattern) in connector.hosts.iter().enumerate() {
            let at = at.key("hosts").index(index);
            self.add_site(pattern, connector, &routes, &at, problems);
        }
        let named = Named { connector: [Arc::clone(connector)], routes };
        if self.by_name.insert(connector.name.clone(), named).is_some() {
            problems.push(at.problem(format!("connector {} is defined twice", connector.name)));
        }
    }

    fn add_site(
        &mut self,
        pattern: &HostPattern,
        connector: &Arc<Connector>,
        routes: &Arc<Routes>,
        at: &Place,
        problems: &mut Vec<Problem>,
    ) {
        let port = connector.port(pattern);
        let sites = self.sites.at(pattern);
        if let Some(other) = sites.iter().find(|site| site.shape() != shape(pattern)) {
            let (other, owner) = (&other.pattern, &other.connectors[0].name);
            problems.push(at.problem(format!(
                "{pattern} and {other} of connector {owner} match the same hosts: write both alike"
            )));
            return;
        }
        let Some(site) = sites.iter_mut().find(|site| site.port == port) else {
            sites.push(Site {
                pattern: pattern.clone(),
                port,
                connectors: vec![Arc::clone(connector)],
                routes: Arc::clone(routes),
            });
            return;
        };
        if site.connectors.iter().any(|other| Arc::ptr_eq(other, connector)) {
            problems.push(at.problem(format!("{pattern} is listed twice")));
            return;
        }
        if let Some(other) = site.connectors.iter().find(|other| other.cleartext != connector.cleartext) {
            problems.push(
                at.problem(format!("connector {} has {pattern} too, with another `cleartext`", other.name)),
            );
        }
        site.join(connector, at.document, problems);
    }

    /// The connectors at a host and, where the request names one, port. Also finds `<name>.connector.internal`.
    #[must_use]
    pub fn locate<'a>(&'a self, host: &'a Host, port: Option<u16>) -> Option<Located<'a>> {
        if let Some(name) = host.name().and_then(|name| name.strip_suffix(BY_NAME)) {
            let named = self.by_name.get(name)?;
            let default = named.connector[0].hosts.first().map(|first| named.connector[0].port(first))?;
            return (port.unwrap_or(default) == default).then_some(Located {
                connectors: &named.connector,
                routes: &named.routes,
                port: default,
                captured: None,
                by_name: true,
            });
        }
        let (site, found) = self.sites.locate(host, port)?;
        Some(Located {
            connectors: &site.connectors,
            routes: &site.routes,
            port: site.port,
            captured: match found {
                HostMatch::Whole => None,
                HostMatch::Captured { name, value } => Some((name, value)),
            },
            by_name: false,
        })
    }

    /// The connector of that name.
    #[must_use]
    pub fn connector(&self, name: &str) -> Option<&Arc<Connector>> {
        self.by_name.get(name).map(|named| &named.connector[0])
    }

    /// All connectors, by name.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.by_name.values().map(|named| &named.connector[0])
    }
}

impl<'a> Located<'a> {
    /// The port to connect to, and the only one that a request may name.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The name in braces of the host pattern and what stood there: it must equal the account's metadata.
    pub const fn captured(&self) -> Option<(&'a str, &'a str)> {
        self.captured
    }

    /// Whether the request named the connector and not a host: [`Connector::target`] has the host.
    pub const fn by_name(&self) -> bool {
        self.by_name
    }

    /// The connector to name where no operation matches: the only one, nearly always, or the first.
    pub fn connector(&self) -> &'a Arc<Connector> {
        &self.connectors[0]
    }

    /// All connectors at this host and port; at least one.
    pub const fn connectors(&self) -> &'a [Arc<Connector>] {
        self.connectors
    }

    /// The operation that the request is. The query, as it was written, counts for operations that say so.
    pub fn operation(&self, method: &Method, path: &CanonicalPath, query: Option<&str>) -> Option<&'a Route> {
        self.routes.find(method, path, query.unwrap_or_default())
    }
}

impl Site {
    /// Another connector at the same place: the paths of all are searched together.
    fn join(&mut self, connector: &Arc<Connector>, document: usize, problems: &mut Vec<Problem>) {
        self.connectors.push(Arc::clone(connector));
        let mut routes = Routes::default();
        for other in &self.connectors {
            let mut found = Vec::new();
            add_routes(&mut routes, other, &Place::spec(document), &mut found);
            // What the others have among themselves was said when they came, and what this one has on two
            // hosts need not be said twice.
            found.retain(|problem| Arc::ptr_eq(other, connector) && !problems.contains(problem));
            problems.append(&mut found);
        }
        self.routes = Arc::new(routes);
    }

    fn shape(&self) -> (bool, Option<&str>) {
        shape(&self.pattern)
    }
}

/// What a pattern leaves open.
fn shape(pattern: &HostPattern) -> (bool, Option<&str>) {
    (pattern.exact().is_some(), pattern.placeholder())
}

fn add_routes(routes: &mut Routes, connector: &Arc<Connector>, at: &Place, problems: &mut Vec<Problem>) {
    for (index, operation) in connector.operations.iter().enumerate() {
        for line in &operation.requests {
            if let Err(equal) = routes.insert(line, connector, operation) {
                let at = at.key("operations").index(index).key("request");
                problems.push(at.problem(ambiguous(connector, operation, line, &equal)));
            }
        }
    }
}

fn ambiguous(connector: &Connector, operation: &Operation, line: &RequestLine, equal: &Route) -> String {
    let of = if equal.connector.name == connector.name {
        String::new()
    } else {
        format!(" of connector {}", equal.connector.name)
    };
    format!(
        "operations {} and {}{of} are both `{} {}`: keep one of them, or make the paths differ",
        operation.name, equal.operation.name, line.method, line.template
    )
}
