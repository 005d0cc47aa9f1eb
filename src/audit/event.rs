//! One event, as whoever records it fills it in.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    host::{Authority, Target},
    id::{
        ActionId, AgentName, ChainId, ConnectorName, Effect, OperationName, Principal, RoleName, Scope,
        TenantId, UserId,
    },
};

/// What a line is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One proxied request.
    #[default]
    Action,
    /// A connected account was added, rotated, frozen, revoked or removed.
    Account,
    /// The policy was loaded, or could not be.
    Policy,
    /// The proxy itself: anchors, recoveries, starts and stops.
    System,
}

impl Kind {
    /// As it stands in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Account => "account",
            Self::Policy => "policy",
            Self::System => "system",
        }
    }
}

/// What the policy answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Allow,
    /// No; `error` and `rule` say why.
    Deny,
    /// The role is in observe mode: it went through, and an enforcing role would have refused it.
    WouldDeny,
}

impl Decision {
    /// As it stands in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::WouldDeny => "would_deny",
        }
    }
}

/// The path of a request, without its query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RequestPath {
    /// The operation's template, where one matched: `/repos/{owner}/{repo}/issues`.
    pub template: Option<Arc<str>>,
    /// The path that was judged and sent.
    pub canonical: Option<Box<str>>,
}

/// How long an action took. Written in milliseconds with at most three decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// From the request's first byte to the answer's last.
    pub total: Duration,
    /// The part of it that was spent waiting for the provider.
    pub upstream: Option<Duration>,
}

/// One event. Absent means not applicable. No field may hold the value of a credential, cookie, query
/// parameter or body: every one is a name, a number, or a text of our own.
///
/// The sequence number and the hashes are the writer's; `time` is set when the event is handed over, so
/// that it follows the order of the file (an action's start is in its `id`, a `UUIDv7`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The action's id.
    pub id: Option<ActionId>,
    /// When it was handed over; leave it out.
    pub time: Option<Timestamp>,
    /// What the event is about.
    pub kind: Kind,
    /// What happened, where it is not an action: `account.added`, `policy.reloaded`, `audit.anchor`.
    pub event: Option<Cow<'static, str>>,
    /// A sentence for people, where `event` does not say it all.
    pub detail: Option<Cow<'static, str>>,
    /// The customer organisation.
    pub tenant: Option<TenantId>,
    /// The agent's role.
    pub role: Option<RoleName>,
    /// The end user.
    pub user: Option<UserId>,
    /// The software that asked.
    pub agent: Option<AgentName>,
    /// On whose behalf the agent asked, outermost first.
    pub delegation: Vec<String>,
    /// The agent run.
    pub chain: Option<ChainId>,
    /// The pod or process that talked to the proxy.
    pub workload: Option<Arc<str>>,
    /// The external system.
    pub connector: Option<ConnectorName>,
    /// The operation of the connector.
    pub operation: Option<OperationName>,
    /// What the operation does.
    pub effect: Option<Effect>,
    /// The HTTP method.
    #[serde(deserialize_with = "read_method")]
    pub method: Option<Method>,
    /// Where it went, or would have gone: the port only where it is not 443.
    #[serde(deserialize_with = "read_target")]
    pub host: Option<Target>,
    /// The path, without its query.
    pub path: Option<RequestPath>,
    /// What the policy answered.
    pub decision: Option<Decision>,
    /// The refusal's code, or `interrupted`.
    pub error: Option<Cow<'static, str>>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The revision of the policy that decided.
    pub policy_revision: Option<Arc<str>>,
    /// Whose account was used.
    #[serde(deserialize_with = "read_principal")]
    pub principal: Option<Principal>,
    /// The account: `acme/salesforce/role:researcher`.
    pub account: Option<Arc<str>>,
    /// The id of the consent event that created the account.
    pub authorization: Option<Arc<str>>,
    /// The generation of the credential.
    pub generation: Option<u64>,
    /// The scopes that the operation needs. An empty list is written; `None` is not.
    pub scopes_required: Option<Vec<Scope>>,
    /// The scopes that the role or account holds. An empty list is written; `None` is not.
    pub scopes_granted: Option<Vec<Scope>>,
    /// The names of what was removed from the request; an empty list is not written.
    pub stripped: Vec<Cow<'static, str>>,
    /// The status that the agent saw.
    pub status: Option<u16>,
    /// Body bytes from the agent.
    pub bytes_in: Option<u64>,
    /// Body bytes to the agent.
    pub bytes_out: Option<u64>,
    /// How long it took.
    pub ms: Option<Took>,
}

impl Event {
    /// An event that is not an action: `Event::of(Kind::Account, "account.added")`.
    #[must_use]
    pub fn of(kind: Kind, event: &'static str) -> Self {
        Self { kind, event: Some(Cow::Borrowed(event)), ..Self::default() }
    }

    /// A `kind: system` event of the audit itself.
    pub(super) fn system(event: &'static str, detail: String) -> Self {
        Self { detail: Some(Cow::Owned(detail)), ..Self::of(Kind::System, event) }
    }
}

impl<'de> Deserialize<'de> for Took {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Milliseconds {
            total: f64,
            upstream: Option<f64>,
        }
        let duration = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).map_err(D::Error::custom);
        let ms = Milliseconds::deserialize(from)?;
        Ok(Self { total: duration(ms.total)?, upstream: ms.upstream.map(duration).transpose()? })
    }
}

fn read_method<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Method>, D::Error> {
    let text = Option::<Cow<'_, str>>::deserialize(from)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

fn read_target<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Target>, D::Error> {
    let text = Option::<Cow<'_, str>>::deserialize(from)?;
    let parse = |text: &str| Authority::parse(text).map_err(D::Error::custom);
    let authority = text.as_deref().map(parse).transpose()?;
    Ok(authority.map(|at| Target { host: at.host, port: at.port.unwrap_or(443) }))
}

/// Reads what `Principal`'s `Display` wrote.
fn read_principal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Principal>, D::Error> {
    let Some(text) = Option::<Cow<'_, str>>::deserialize(from)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
pub(super) mod sample {
    use super::*;
    use crate::host::Host;

    /// An action with every field filled in, and text that needs escaping.
    pub(crate) fn full() -> Event {
        Event {
            id: Some(ActionId::now()),
            time: Some("2026-11-21T03:22:25.000123Z".parse().unwrap()),
            kind: Kind::Action,
            event: Some("a \"quoted\" \\ name\n\u{1f}\u{7f} é 😀".into()),
            detail: Some("tab\there".into()),
            tenant: Some(TenantId::new("acme").unwrap()),
            role: Some(RoleName::new("publisher").unwrap()),
            user: Some(UserId::new("alice").unwrap()),
            agent: Some(AgentName::new("crew-1").unwrap()),
            delegation: vec!["outer".to_owned(), "in\"ner".to_owned()],
            chain: Some(ChainId::new("run-42").unwrap()),
            workload: Some("spiffe://acme/ns/agents".into()),
            connector: Some(ConnectorName::new("salesforce").unwrap()),
            operation: Some(OperationName::new("opportunity.update").unwrap()),
            effect: Some(Effect::Write),
            method: Some(Method::PATCH),
            host: Some(Target { host: Host::parse("na47.my.salesforce.com").unwrap(), port: 8443 }),
            path: Some(RequestPath {
                template: Some("/sobjects/Opportunity/{id}".into()),
                canonical: Some("/sobjects/Opportunity/006".into()),
            }),
            decision: Some(Decision::WouldDeny),
            error: Some("insufficient_scope".into()),
            rule: Some("publisher/grants/0".into()),
            policy_revision: Some("5f2c1a".into()),
            principal: Some(Principal::User {
                user: UserId::new("alice").unwrap(),
                role: RoleName::new("publisher").unwrap(),
            }),
            account: Some("acme/salesforce/user:alice/publisher".into()),
            authorization: Some("0192".into()),
            generation: Some(3),
            scopes_required: Some(vec![Scope::new("opportunities:write").unwrap()]),
            scopes_granted: Some(Vec::new()),
            stripped: vec!["authorization".into(), "cookie".into()],
            status: Some(403),
            bytes_in: Some(12),
            bytes_out: Some(0),
            ms: Some(Took { total: Duration::from_micros(12_340), upstream: Some(Duration::from_millis(7)) }),
        }
    }

    /// A small action of a tenant.
    pub(crate) fn action(tenant: &str) -> Event {
        Event {
            id: Some(ActionId::now()),
            tenant: Some(TenantId::new(tenant).unwrap()),
            decision: Some(Decision::Allow),
            ..Event::default()
        }
    }
}
