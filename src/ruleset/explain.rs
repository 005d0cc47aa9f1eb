//! `policy explain`: what would be decided, by which rule, and why.

use http::Method;
use serde::Serialize;

use super::{OwnPage, Ruleset};
use crate::{
    catalog::{Located, never_sent},
    host::{Authority, Host},
    id::{ConnectorName, Effect, OperationName, Scope, Subject},
    path::CanonicalPath,
    policy::{Denial, Permit, Question, RuleId},
};

/// A decision taken apart. Bindings, accounts and addresses are not looked at: those are not policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What is decided.
    pub decision: Decision,
    /// The refusal's code (contract §5), also of one that is only observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Who would ask.
    pub subject: Subject,
    /// With which method.
    pub method: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// For what, canonical and without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path template that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The connector at that host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorName>,
    /// The operation that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationName>,
    /// What the operation does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// The account that would be used: `acme/salesforce/role:researcher`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// Where the rule stands, as `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_at: Option<String>,
    /// The scopes that the operation needs.
    pub required: Vec<Scope>,
    /// The scopes that the role holds for it.
    pub granted: Vec<Scope>,
    /// Those that it needs and the role does not hold.
    pub missing: Vec<Scope>,
    /// The policy that was asked.
    pub policy_revision: String,
}

/// The outcome of an [`Explanation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Allow,
    /// No.
    Deny,
    /// Yes, because the role is only observed; else no.
    WouldDeny,
}

impl Ruleset {
    /// What would be decided for a request to `url` (`https://host/path?query`).
    #[must_use]
    pub fn explain(&self, subject: &Subject, method: &Method, url: &str) -> Explanation {
        let mut told = Explanation::refusal(subject, method, &self.revision);
        if let Some(says) = never_sent(method) {
            return told.because("bad_request", says.to_owned());
        }
        let (authority, path) = match read_url(url) {
            Ok(read) => read,
            Err(says) => return told.because("bad_request", says),
        };
        told.host = Some(authority.host.to_string());
        told.path = Some(path.to_string());
        if authority.host.name() == Some(OwnPage::HOST) {
            return told.own(method, &path);
        }
        let Some(located) = self.catalog.locate(&authority.host, authority.port) else {
            return told.because("destination_denied", self.nowhere(&authority.host));
        };
        told.decide(self, &located, method, &path, query_of(url))
    }

    fn nowhere(&self, host: &Host) -> String {
        match self.catalog.locate(host, None) {
            Some(elsewhere) => {
                let (connector, port) = (&elsewhere.connector().name, elsewhere.port());
                format!(
                    "connector {connector} is on port {port} of {host}: name it in the URL, as in https://{host}:{port}/"
                )
            }
            None => "no connector describes this host: use one that does, or describe it".to_owned(),
        }
    }

    /// Where a rule stands, as `file:line`; `None` for [`RuleId::by_default`].
    #[must_use]
    pub fn line_of(&self, rule: &RuleId) -> Option<&str> {
        self.rule_lines.get(rule.as_str()).map(String::as_str)
    }
}

impl Explanation {
    fn refusal(subject: &Subject, method: &Method, revision: &str) -> Self {
        Self {
            decision: Decision::Deny,
            error: None,
            detail: None,
            subject: subject.clone(),
            method: method.to_string(),
            host: None,
            path: None,
            template: None,
            connector: None,
            operation: None,
            effect: None,
            account: None,
            rule: None,
            rule_at: None,
            required: Vec::new(),
            granted: Vec::new(),
            missing: Vec::new(),
            policy_revision: revision.to_owned(),
        }
    }

    fn because(mut self, error: &'static str, detail: String) -> Self {
        (self.error, self.detail) = (Some(error), Some(detail));
        self
    }

    /// Of a request to the proxy itself, which no policy decides.
    fn own(mut self, method: &Method, path: &CanonicalPath) -> Self {
        if OwnPage::of(method, path).is_none() {
            let says = format!("http://{}/ answers {}", OwnPage::HOST, OwnPage::ALL);
            return self.because("operation_unknown", says);
        }
        self.decision = Decision::Allow;
        self.detail = Some("the proxy answers this itself, whatever the policy says".to_owned());
        self
    }

    fn decide(
        mut self,
        rules: &Ruleset,
        located: &Located<'_>,
        method: &Method,
        path: &CanonicalPath,
        query: Option<&str>,
    ) -> Self {
        let route = located.operation(method, path, query);
        let connector = route.map_or_else(|| located.connector(), |route| &route.connector);
        self.connector = Some(connector.name.clone());
        if let Some(route) = route {
            self.template = Some(route.template.to_string());
            self.operation = Some(route.operation.name.clone());
            self.effect = Some(route.operation.effect);
            self.required = route.operation.scopes.to_vec();
        }
        let subject = self.subject.clone();
        let operation = route.map(|route| route.operation.op());
        match rules.policy.decide(Question { subject: &subject, connector: &connector.name, operation }) {
            Ok(permit) => self.permitted(rules, &permit),
            Err(denial) => self.denied(rules, &denial),
        }
    }

    fn permitted(mut self, rules: &Ruleset, permit: &Permit) -> Self {
        self.account = Some(permit.account().to_string());
        if let Some(denial) = permit.would_deny() {
            self = self.denied(rules, denial);
            self.decision = Decision::WouldDeny;
        } else {
            self.decision = Decision::Allow;
            self.granted = permit.granted().to_vec();
            self = self.by(rules, permit.rule());
        }
        self
    }

    fn denied(mut self, rules: &Ruleset, denial: &Denial) -> Self {
        if let Some(shortfall) = denial.shortfall() {
            self.granted.clone_from(&shortfall.granted);
            self.missing.clone_from(&shortfall.missing);
        }
        self.by(rules, denial.rule()).because(denial.code(), denial.to_string())
    }

    fn by(mut self, rules: &Ruleset, rule: &RuleId) -> Self {
        self.rule = Some(rule.clone());
        self.rule_at = rules.line_of(rule).map(str::to_owned);
        self
    }
}

/// An `https` URL is asked for by CONNECT, which always names a port: 443, where the URL names none. A plain one without
/// a port goes to the connector's.
fn read_url(url: &str) -> Result<(Authority, CanonicalPath), String> {
    let tunnelled = url.strip_prefix("https://");
    let rest = tunnelled
        .or_else(|| url.strip_prefix("http://"))
        .ok_or("the URL begins with neither https:// nor http://")?;
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    // The proxy drops a user name. At the first `@`: a second one is no part of a host.
    let authority = authority.split_once('@').map_or(authority, |(_, bare)| bare);
    let mut authority = Authority::parse(authority).map_err(|error| error.to_string())?;
    authority.port = authority.port.or_else(|| tunnelled.map(|_| 443));
    Ok((authority, CanonicalPath::parse(path).map_err(|error| error.to_string())?))
}

fn query_of(url: &str) -> Option<&str> {
    url.split('#').next()?.split_once('?').map(|(_, query)| query)
}
