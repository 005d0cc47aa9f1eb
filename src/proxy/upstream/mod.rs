//! The seam towards providers: one `tower::Service` that takes a permitted request and gives an answer.
//!
//! The real one is [`Pool`]: connections that were resolved, checked, verified, and are never shared by two
//! tenants. A test puts a `service_fn` in its place.

mod connections;
mod http1;
mod io;
mod pool;

use http::{Request, Response};
use tower::util::BoxCloneSyncService;

pub use self::pool::{Body, Pool};
use super::body::RequestBody;
use crate::{
    dial,
    host::{Host, Target},
    id::TenantId,
    policy::Permit,
};

/// The upstream service as the request's way sees it.
pub type Upstream = BoxCloneSyncService<Outbound, Response<Body>, Error>;

/// Where a request goes and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The provider's host and port.
    pub target: Target,
    /// Without TLS: only where the connector says so.
    pub cleartext: bool,
}

impl Endpoint {
    /// As it stands in `Host` and `:authority`: the port only where the scheme does not imply it.
    #[must_use]
    pub fn authority(&self) -> String {
        match (self.cleartext, self.target.port) {
            (false, 443) | (true, 80) => self.target.host.to_string(),
            (_, port) => format!("{}:{port}", self.target.host),
        }
    }
}

/// A request that a permit allows, on its way out.
pub struct Outbound {
    tenant: TenantId,
    endpoint: Endpoint,
    upgrade: bool,
    request: Request<RequestBody>,
}

impl Outbound {
    /// Only a permit opens the way; the connection is looked up under the permit's tenant.
    #[must_use]
    pub fn new(permit: &Permit, endpoint: Endpoint, request: Request<RequestBody>) -> Self {
        Self { tenant: permit.account().tenant.clone(), endpoint, upgrade: false, request }
    }

    /// The provider's host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.endpoint.target.host
    }

    /// Whether it asks for another protocol.
    #[must_use]
    pub const fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    /// The same request once more, where it has no body and no protocol to switch to.
    pub(super) fn repeated(&self) -> Option<Request<RequestBody>> {
        if self.upgrade || !http_body::Body::is_end_stream(self.request.body()) {
            return None;
        }
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.request.method().clone();
        *request.uri_mut() = self.request.uri().clone();
        *request.headers_mut() = self.request.headers().clone();
        Some(request)
    }

    /// Asks for an HTTP/1.1 connection of its own, whose protocol will be switched (RFC 9110 §7.8).
    #[must_use]
    pub fn upgrading(self) -> Self {
        Self { upgrade: true, ..self }
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address of the name is one that must not be dialled.
    #[error("{0}")]
    Address(#[from] dial::Refused),
    /// The name has no address.
    #[error("the name could not be resolved")]
    Resolve(#[source] std::io::Error),
    /// No address answered.
    #[error("the connection could not be opened")]
    Connect(#[source] std::io::Error),
    /// The handshake failed or the certificate is not for this name.
    #[error("the TLS handshake failed")]
    Tls(#[source] std::io::Error),
    /// The provider answered what is no HTTP, or has two readings.
    #[error("{0}")]
    Unreadable(&'static str),
    /// The provider switched to another protocol unasked.
    #[error("the provider switched protocols unasked")]
    Unasked,
    /// The provider broke off.
    #[error("the exchange broke off")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came within the limit.
    #[error("no answer came in time")]
    Timeout,
}

impl From<dial::Error> for Error {
    fn from(error: dial::Error) -> Self {
        match error {
            dial::Error::Address(refused) => Self::Address(refused),
            dial::Error::Resolve(why) => Self::Resolve(std::io::Error::other(why)),
            dial::Error::Connect(source) => Self::Connect(source),
            dial::Error::Tls(source) => Self::Tls(source),
            dial::Error::Timeout => Self::Timeout,
        }
    }
}
