//! Which connector and operation a request is, and where it would go.

use std::{net::SocketAddr, sync::Arc};

use http::Method;

use super::{
    arrival::Arrival,
    record::Record,
    refusal::{Code, Refusal},
    upstream::Endpoint,
};
use crate::{
    catalog::{AuthType, Connector, Located, Operation, Route},
    credential::Credential,
    dial::{self, Dialer},
    host::{Host, HostPattern, Target},
    identity::Identity,
    policy::{Denial, Permit, Question, Why},
    ruleset::Ruleset,
};

/// A request's place in the catalog.
pub(super) struct Place<'a> {
    rules: &'a Ruleset,
    located: Located<'a>,
    asked: Asked<'a>,
    target: Target,
}

/// What is asked for there.
#[derive(Clone, Copy)]
enum Asked<'a> {
    /// A request, with the operation that it is.
    Request { method: &'a Method, path: &'a str, route: Option<&'a Route> },
    /// An operation by its name: only to tell what a request would be told.
    Operation { name: &'a str, operation: Option<&'a Operation> },
}

impl<'a> Place<'a> {
    /// Looks the destination up in the catalog, and the operation under it.
    ///
    /// # Errors
    /// `destination_denied`, with why.
    pub(super) fn find(rules: &'a Ruleset, arrival: &'a Arrival, dialer: &Dialer) -> Result<Self, Refusal> {
        let located = rules.catalog.locate(&arrival.host, arrival.named_port());
        let located = located.ok_or_else(|| nowhere(rules, arrival, dialer))?;
        let route = located.operation(&arrival.method, &arrival.path, arrival.query.as_deref());
        Ok(Self {
            rules,
            asked: Asked::Request { method: &arrival.method, path: arrival.path.as_str(), route },
            target: Target { host: arrival.host.clone(), port: located.port() },
            located,
        })
    }

    /// The same destination, asked for an operation by name.
    #[must_use]
    pub(super) fn named(self, name: &'a str) -> Self {
        let operation = self.located.connector().operation(name).map(|operation| &**operation);
        Self { asked: Asked::Operation { name, operation }, ..self }
    }

    /// Puts what was found into the record.
    pub(super) fn record(&self, record: &mut Record) {
        record.classified(&self.target, &self.connector().name, &self.rules.revision);
        if let Asked::Request { route: Some(route), .. } = self.asked {
            record.matched(route);
        }
    }

    /// Asks the policy.
    ///
    /// # Errors
    /// The policy's denial as a refusal.
    pub(super) fn decide(&self, identity: &Identity, record: &mut Record) -> Result<Permit, Refusal> {
        match self.judge(identity) {
            Ok(permit) => {
                record.permitted(&permit);
                Ok(permit)
            }
            Err(denial) => {
                record.denied(&denial);
                Err(self.refusal(&denial))
            }
        }
    }

    /// What the policy says.
    ///
    /// # Errors
    /// Its denial. An operation that does not exist is denied where its role is only observed, too: a request may
    /// be something else than its author thinks, a name is nothing.
    pub(super) fn judge(&self, identity: &Identity) -> Result<Permit, Denial> {
        let operation = self.operation().map(Operation::op);
        let connector = &self.connector().name;
        let permit =
            self.rules.policy.decide(Question { subject: &identity.subject, connector, operation })?;
        match (self.asked, permit.would_deny()) {
            (Asked::Operation { operation: None, .. }, Some(denial)) => Err(denial.clone()),
            _ => Ok(permit),
        }
    }

    /// The policy's no, as the agent is told it.
    pub(super) fn refusal(&self, denial: &Denial) -> Refusal {
        let refusal = Refusal::of_denial(denial);
        match (denial.why(), self.asked) {
            (Why::OperationUnknown, Asked::Request { method, path, .. }) => {
                refusal.with("method", method.as_str()).with("path", path)
            }
            (Why::OperationUnknown, Asked::Operation { name, .. }) => refusal.with("operation", name),
            _ => refusal,
        }
    }

    /// The host that was asked for.
    pub(super) const fn host(&self) -> &Host {
        &self.target.host
    }

    /// The connector.
    pub(super) fn connector(&self) -> &'a Arc<Connector> {
        match self.asked {
            Asked::Request { route: Some(route), .. } => &route.connector,
            _ => self.located.connector(),
        }
    }

    fn operation(&self) -> Option<&'a Operation> {
        match self.asked {
            Asked::Request { route, .. } => route.map(|route| &*route.operation),
            Asked::Operation { operation, .. } => operation,
        }
    }

    /// What the host left open in the connector's pattern: its name and value.
    pub(super) const fn captured(&self) -> Option<(&'a str, &'a str)> {
        self.located.captured()
    }

    /// Where it goes: to the host that was named, or where the account says if only the connector was.
    ///
    /// # Errors
    /// `destination_denied` where the account does not say.
    pub(super) fn endpoint(&self, credential: &Credential) -> Result<Endpoint, Refusal> {
        let connector = self.connector();
        let target = if self.located.by_name() { credential.target() } else { Some(&self.target) };
        let target = target.cloned().ok_or_else(|| {
            let detail = format!(
                "destination_denied: the account does not say which host of {} is its own; an operator sets it with --meta",
                connector.name
            );
            denied(&self.target.host, "no_connector", detail)
        })?;
        if connector.auth.kind == AuthType::AwsSigv4 && connector.signing_scope(&target.host).is_none() {
            return Err(unsignable(&target.host));
        }
        Ok(Endpoint { target, cleartext: connector.cleartext })
    }

    /// Whether there is an [`Place::endpoint`]. An operation by name stands for a request to whichever host its
    /// connector has, and where those are all of a domain's, it is not for the account to say which.
    ///
    /// # Errors
    /// As there.
    pub(super) fn check_endpoint(&self, credential: &Credential) -> Result<(), Refusal> {
        let is_any = |host: &HostPattern| host.exact().is_none() && host.placeholder().is_none();
        match self.asked {
            Asked::Operation { .. } if self.connector().hosts.iter().any(is_any) => Ok(()),
            _ => self.endpoint(credential).map(drop),
        }
    }
}

/// Why no connector describes the destination, as precisely as can be said.
fn nowhere(rules: &Ruleset, arrival: &Arrival, dialer: &Dialer) -> Refusal {
    let host = &arrival.host;
    if let Host::Ip(ip) = host
        && let Err(refused) = dialer.check(SocketAddr::new(*ip, arrival.port.unwrap_or(443)))
    {
        return address_refused(host, &refused);
    }
    let Some(elsewhere) = rules.catalog.locate(host, None) else {
        let detail = format!(
            "destination_denied: no connector describes {host}; use a host that one does, or ask an operator to add a connector"
        );
        return denied(host, "no_connector", detail);
    };
    if arrival.plain && arrival.port == Some(80) {
        let detail = format!(
            "destination_denied: no credential is sent to {host} without TLS; leave the port out (http://{host}/) and the proxy speaks TLS to it"
        );
        return denied(host, "cleartext", detail);
    }
    let (name, port) = (&elsewhere.connector().name, elsewhere.port());
    denied(host, "no_connector", format!("destination_denied: connector {name} is on port {port} of {host}"))
}

/// The refusal of an address that must not be dialled.
pub(super) fn address_refused(host: &Host, refused: &dial::Refused) -> Refusal {
    let kind = match refused {
        dial::Refused::Special(_, kind) => kind,
        dial::Refused::Own(_) => "one of the proxy's own listeners",
    };
    let detail = format!(
        "destination_denied: {host} leads to {kind}; an operator can allow it in egress.allow_addresses"
    );
    denied(host, "address", detail)
}

/// The refusal of a redirected connection that says nothing of a host.
pub(super) fn unnamed(original: SocketAddr, why: &str) -> Refusal {
    let detail = format!(
        "destination_denied: {why}, so there is no host to judge; use a client that sends the server name, or ask an operator to list the host with port {} in egress.tunnel",
        original.port()
    );
    denied(&Host::Ip(original.ip()), "no_connector", detail)
}

/// The refusal of a host that AWS's signature cannot be made for.
pub(super) fn unsignable(host: &Host) -> Refusal {
    let detail = format!(
        "destination_denied: {host} does not say for which AWS service and region it is signed; use a host that does, or ask an operator to write them into the connector"
    );
    denied(host, "no_connector", detail)
}

fn denied(host: &Host, why: &'static str, detail: String) -> Refusal {
    Refusal::new(Code::DestinationDenied, detail).with("host", host.to_string()).with("why", why)
}
