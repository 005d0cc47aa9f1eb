//! The data path: agents on one side, providers on the other.
//!
//! [`Proxy::run`] accepts, `connection` speaks HTTP, `connect` opens tunnels and ends their TLS, `transparent`
//! takes what the system redirects to us, and `serve` is the request's way:
//!
//! ```text
//! normalize → identify → classify → decide → resolve → inject → forward → scrub → recorded
//! arrival     identity   place      policy   credential outbound forward  answer  record
//! ```

mod again;
mod answer;
mod arrival;
mod body;
mod connect;
mod connection;
mod forward;
mod gather;
mod internal;
mod listed;
mod listener;
mod metrics;
mod opening;
mod outbound;
mod payload;
mod place;
mod prefixed;
mod record;
mod refusal;
mod refusals;
mod scrub;
mod seat;
mod serve;
pub mod strip;
mod transparent;
pub mod upstream;
mod visit;
mod websocket;

use std::{collections::HashMap, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use http::HeaderName;
use ipnet::IpNet;
use serde::Deserialize;

pub use self::{body::RequestBody, metrics::Metrics, refusal::Code, upstream::Upstream};
use self::{
    gather::{Gathering, Room},
    record::Record,
    refusal::Refusal,
};
use crate::{
    audit::Audit,
    credential::Resolver,
    dial::{Dialer, Override},
    drain::{Drain, Shares},
    host::{Host, HostPattern},
    id::TenantId,
    identity::{Gate, Workload},
    ruleset::Rules,
    tls::{Downstream, Roots},
};

/// On every answer: the action's id.
pub const ACTION: HeaderName = HeaderName::from_static("keybearer-action");
/// `?1` (RFC 9651 §3.3.6) asks for a `Server-Timing` header on the answer.
pub const TIMING: HeaderName = HeaderName::from_static("keybearer-timing");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The `egress:` section of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Hosts that are passed through opaque, without credentials: on port 443, or on the one that is written. A
    /// redirected connection is theirs by its server name or `Host`; on another port than 443 also by its address.
    pub tunnel: Vec<Tunnelled>,
    /// Networks excepted from the address guard.
    pub allow_addresses: Vec<IpNet>,
    /// Whom providers' certificates are checked by.
    pub roots: Roots,
    /// Names that are not asked of DNS: `{api.crm.test: 127.0.0.1:8443}`. The guard applies, and the
    /// certificate must be for the name.
    pub resolve: HashMap<String, Override>,
}

/// A host pattern in the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Tunnelled(pub HostPattern);

impl TryFrom<String> for Tunnelled {
    type Error = crate::host::PatternError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        HostPattern::parse(&text).map(Self)
    }
}

/// The `limits:` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest request head, in bytes; at least 8192.
    pub header_bytes: usize,
    /// The largest body that is read whole before it is sent, in bytes. Of all that are held at a time, a tenant's may
    /// have four times as much, or 8 MiB.
    pub inspect_body_bytes: usize,
    /// Connections from agents at the same time.
    pub connections: usize,
    /// How long a provider may take to begin its answer, counted from the last byte sent to it.
    #[serde(with = "crate::duration")]
    pub upstream_timeout: Duration,
    /// How long one address of a provider may take to accept a connection, and TLS to be agreed upon.
    #[serde(with = "crate::duration")]
    pub connect_timeout: Duration,
    /// How long an agent may take for a TLS handshake.
    #[serde(with = "crate::duration")]
    pub handshake_timeout: Duration,
    /// How long an agent's connection may be silent before its first byte, or open without a request (in HTTP/2 up to twice
    /// that); in HTTP/1.1 also within a request's head; and how long nothing may come of a body that is read whole.
    #[serde(with = "crate::duration")]
    pub idle_timeout: Duration,
    /// How long open requests may take to finish when the proxy stops.
    #[serde(with = "crate::duration")]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 65_536,
            inspect_body_bytes: 1_048_576,
            connections: 4096,
            upstream_timeout: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(2),
            drain: Duration::from_secs(30),
        }
    }
}

/// What the data path is made of. Cloning a [`Proxy`] is cheap.
pub struct Parts {
    /// Who asks.
    pub gate: Gate,
    /// Whoever reaches the listener.
    pub workload: Workload,
    /// May they, and what is it.
    pub rules: Rules,
    /// With what.
    pub resolver: Resolver,
    /// What happened.
    pub audit: Audit,
    /// Towards providers.
    pub upstream: Upstream,
    /// For tunnels that pass through.
    pub dialer: Dialer,
    /// Towards agents.
    pub downstream: Downstream,
    /// What agents are to trust.
    pub ca_pem: String,
    /// Hosts that are passed through.
    pub tunnels: Vec<HostPattern>,
    /// Bounds.
    pub limits: Limits,
    /// Where a person connects an account: the admin listener.
    pub admin: Option<SocketAddr>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What every task goes through.
    pub drain: Drain,
}

/// The data path.
#[derive(Clone)]
pub struct Proxy(Arc<Whole>);

struct Whole {
    parts: Parts,
    /// Memory for bodies that are read whole.
    room: Room,
    /// Room in the audit.
    shares: Shares<Option<TenantId>>,
}

impl Proxy {
    /// A data path of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let room = Room::new(&parts.limits);
        let shares = Shares::of_at_most(parts.audit.room().div_ceil(4));
        Self(Arc::new(Whole { parts, room, shares }))
    }

    /// How the bodies of a tenant are read that have to be read whole.
    fn gathering<'a>(&'a self, tenant: &'a TenantId) -> Gathering<'a> {
        let Limits { inspect_body_bytes: limit, idle_timeout: patience, .. } = self.limits;
        Gathering { limit, patience, room: &self.0.room, tenant }
    }

    /// Takes one of a tenant's places among the actions that are under way: no tenant has more than a quarter of the room in
    /// the audit, so that there is some for others. Those who name none are as one tenant.
    ///
    /// # Errors
    /// `overloaded`.
    fn share(&self, tenant: Option<&TenantId>, record: &mut Record) -> Result<(), Refusal> {
        let shares = &self.0.shares;
        let share = shares.take(&tenant.cloned(), 1).ok_or_else(|| {
            let most = shares.most();
            let detail = format!(
                "overloaded: the tenant has {most} actions under way, a quarter of audit.room, and nothing was sent; end some, or try again"
            );
            Refusal::new(Code::Overloaded, detail)
        })?;
        record.hold(share);
        Ok(())
    }
}

impl Deref for Proxy {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

/// The names of `egress.resolve` as hosts.
///
/// # Errors
/// The name that is none, and why.
pub fn overrides(egress: &Egress) -> Result<HashMap<Host, Override>, String> {
    let host = |(name, to): (&String, &Override)| match Host::parse(name) {
        Ok(host) => Ok((host, *to)),
        Err(error) => Err(format!("egress.resolve: {name}: {error}")),
    };
    egress.resolve.iter().map(host).collect()
}

fn workload_text(workload: &Workload) -> Arc<str> {
    match workload {
        Workload::Local => {
            static LOCAL: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from("local"));
            Arc::clone(&LOCAL)
        }
        other => other.to_string().into(),
    }
}
