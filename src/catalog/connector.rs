//! One external system, checked: where it is, how it authenticates, what can be asked of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    SigningScope,
    auth::{Auth, AuthType},
    inject::{Injection, Strip, compile_inject},
    operation::{Operation, compile_operations},
    spec::ConnectorSpec,
};
use crate::{
    document::{Place, Problem},
    host::{Authority, Host, HostMatch, HostPattern, Target},
    id::{ConnectorName, Scope},
    oauth::Narrowed,
};

/// What a provider's naming of a host means for an account ([`Connector::repin`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repinned {
    /// It is where the account's requests go already.
    Same,
    /// They go there from now on, with this metadata.
    Moved(BTreeMap<String, String>),
    /// It is none of the connector's hosts.
    Foreign,
}

/// A connector, ready to use.
#[derive(Debug)]
pub struct Connector {
    /// Its name.
    pub name: ConnectorName,
    /// Where it is, in the order of its file.
    pub hosts: Vec<HostPattern>,
    /// Whether it is reached without TLS.
    pub cleartext: bool,
    /// Whether the agent's `Accept-Encoding` passes.
    pub compression: bool,
    /// How it authenticates.
    pub auth: Auth,
    /// Where the credential goes.
    pub inject: Vec<Injection>,
    /// What else is removed from the agent's request, the places of injection among it.
    pub strip: Strip,
    /// Our scope → the provider's scopes to ask consent for.
    pub scopes: BTreeMap<Scope, Vec<String>>,
    /// What can be asked of it, in the order of its file.
    pub operations: Vec<Arc<Operation>>,
}

impl Connector {
    pub(super) fn compile(
        name: &ConnectorName,
        spec: ConnectorSpec,
        at: &Place,
        problems: &mut Vec<Problem>,
    ) -> Self {
        check_name(name, at, problems);
        let auth = Auth::compile(spec.auth, spec.cleartext, &at.key("auth"), problems);
        let inject = compile_inject(&spec.inject, &auth, at, problems);
        let strip = Strip::compile(&spec.strip, &inject, &auth, &at.key("strip"), problems);
        check_permissions(auth.kind, &spec.scopes, &at.key("scopes"), problems);
        let operations = compile_operations(spec.operations, &spec.scopes, &at.key("operations"), problems);
        Self {
            name: name.clone(),
            hosts: compile_hosts(&spec.hosts, &at.key("hosts"), problems),
            cleartext: spec.cleartext,
            compression: spec.compression,
            auth,
            inject,
            strip,
            scopes: spec.scopes,
            operations,
        }
    }

    /// The port of a host pattern: the one it names, else 443, or 80 without TLS.
    #[must_use]
    pub fn port(&self, pattern: &HostPattern) -> u16 {
        pattern.port().unwrap_or(if self.cleartext { 80 } else { 443 })
    }

    /// What a request to this host is signed for, where requests are signed: as the connector says, or else the host.
    #[must_use]
    pub fn signing_scope(&self, host: &Host) -> Option<SigningScope> {
        match self.auth.kind {
            AuthType::AwsSigv4 => self.auth.scope.clone().or_else(|| SigningScope::of(host)),
            _ => None,
        }
    }

    /// The scopes that need nothing which the provider did not grant.
    #[must_use]
    pub fn scopes_of(&self, granted: &[String]) -> BTreeSet<Scope> {
        let held =
            self.scopes.iter().filter(|(_, needed)| needed.iter().all(|scope| granted.contains(scope)));
        held.map(|(scope, _)| scope.clone()).collect()
    }

    /// The provider's scopes that ours stand for, each once.
    pub fn provider_scopes<'a>(&self, scopes: impl IntoIterator<Item = &'a Scope>) -> Vec<String> {
        let needed = scopes.into_iter().filter_map(|scope| self.scopes.get(scope)).flatten();
        needed.fold(Vec::new(), |mut all, scope| {
            if !all.contains(scope) {
                all.push(scope.clone());
            }
            all
        })
    }

    /// The operation of that name.
    #[must_use]
    pub fn operation(&self, name: &str) -> Option<&Arc<Operation>> {
        self.operations.iter().find(|operation| operation.name.as_str() == name)
    }

    /// The names in braces of the hosts: what an account's metadata must hold, unless it holds `instance_url`.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().filter_map(HostPattern::placeholder)
    }

    /// Where a request by connector name goes for an account with this metadata: to its `instance_url` if one of
    /// the hosts matches that, else to the first host that the metadata leaves nothing open in. `None` where
    /// it does not say, and for an `instance_url` that is none of this connector's.
    #[must_use]
    pub fn target(&self, metadata: &BTreeMap<String, String>) -> Option<Target> {
        if let Some(url) = metadata.get("instance_url") {
            return self.instance(url);
        }
        self.hosts.iter().find_map(|pattern| {
            let host = match (pattern.exact(), pattern.placeholder()) {
                (Some(host), _) => host.clone(),
                (None, Some(name)) => pattern.fill(metadata.get(name)?)?,
                (None, None) => return None,
            };
            Some(Target { host, port: self.port(pattern) })
        })
    }

    /// What the metadata of an account becomes whose provider names this host for it.
    #[must_use]
    pub fn repin(&self, metadata: &BTreeMap<String, String>, target: &Target) -> Repinned {
        let fits = |pattern: &&HostPattern| {
            pattern.matches(&target.host).is_some() && self.port(pattern) == target.port
        };
        let Some(pattern) = self.hosts.iter().find(fits) else { return Repinned::Foreign };
        let mut moved = metadata.clone();
        let captured = match pattern.matches(&target.host) {
            Some(HostMatch::Captured { name, value }) => Some((name, value)),
            Some(HostMatch::Whole) | None => None,
        };
        if let Some((name, value)) = captured {
            moved.insert(name.to_owned(), value.to_owned());
        }
        if captured.is_none() || metadata.contains_key("instance_url") {
            let scheme = if self.cleartext { "http" } else { "https" };
            moved.insert("instance_url".to_owned(), format!("{scheme}://{target}"));
        }
        if moved == *metadata { Repinned::Same } else { Repinned::Moved(moved) }
    }

    fn instance(&self, url: &str) -> Option<Target> {
        let scheme = if self.cleartext { "http://" } else { "https://" };
        let authority = url.strip_prefix(scheme)?.split(['/', '?', '#']).next()?;
        let Authority { host, port } = Authority::parse(authority).ok()?;
        self.hosts
            .iter()
            .find(|pattern| {
                pattern.matches(&host).is_some() && port.is_none_or(|port| port == self.port(pattern))
            })
            .map(|pattern| Target { port: self.port(pattern), host: host.clone() })
    }
}

/// A GitHub App's tokens are narrowed to permissions, not to scopes.
fn check_permissions(
    kind: AuthType,
    scopes: &BTreeMap<Scope, Vec<String>>,
    at: &Place,
    problems: &mut Vec<Problem>,
) {
    if kind != AuthType::GithubApp {
        return;
    }
    for (scope, asked) in scopes {
        for permission in asked.iter().filter(|permission| Narrowed::permission(permission).is_none()) {
            let says = format!("`{permission}` is no permission of a GitHub App: write it as in issues:read");
            problems.push(at.key(scope.as_str()).problem(says));
        }
    }
}

/// A connector's name is a DNS label, because `<name>.connector.internal` is one of its addresses.
fn check_name(name: &ConnectorName, at: &Place, problems: &mut Vec<Problem>) {
    let text = name.as_str();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if text.len() > 63 || text.starts_with('-') || text.ends_with('-') || !text.bytes().all(allowed) {
        problems.push(at.problem(format!(
            "a connector's name is part of {text}.connector.internal: use at most 63 lower-case letters, digits, - and _"
        )));
    }
}

fn compile_hosts(hosts: &[String], at: &Place, problems: &mut Vec<Problem>) -> Vec<HostPattern> {
    if hosts.is_empty() {
        problems.push(at.problem("name a host"));
    }
    let mut patterns = Vec::with_capacity(hosts.len());
    for (index, text) in hosts.iter().enumerate() {
        match HostPattern::parse(text) {
            Ok(pattern) if is_ours(&pattern) => {
                problems.push(at.index(index).problem("the names below .internal of the proxy are its own"));
            }
            Ok(pattern) => patterns.push(pattern),
            Err(error) => problems.push(at.index(index).problem(error.to_string())),
        }
    }
    patterns
}

fn is_ours(pattern: &HostPattern) -> bool {
    pattern.literal().name().is_some_and(|name| {
        name == "connector.internal" || name.ends_with(".connector.internal") || name == "keybearer.internal"
    })
}
