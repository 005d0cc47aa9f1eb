//! What the proxy answers itself, whatever the policy says: `http://keybearer.internal/`.

use http::Method;

use crate::path::CanonicalPath;

/// One of the proxy's own pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnPage {
    /// `/ca.pem`: the CA's certificate.
    Authority,
    /// `/v1/operations`: what there is to do.
    Operations,
    /// `/v1/preflight`: whether a plan would go.
    Preflight,
}

impl OwnPage {
    /// The host of these pages.
    pub const HOST: &str = "keybearer.internal";
    /// All of them, for who asks for another.
    pub const ALL: &str = "GET /ca.pem, GET /v1/operations and POST /v1/preflight";

    /// The page that a request asks for, if there is one.
    #[must_use]
    pub fn of(method: &Method, path: &CanonicalPath) -> Option<Self> {
        match (method, path.as_str()) {
            (&Method::GET | &Method::HEAD, "/ca.pem") => Some(Self::Authority),
            (&Method::GET | &Method::HEAD, "/v1/operations") => Some(Self::Operations),
            (&Method::POST, "/v1/preflight") => Some(Self::Preflight),
            _ => None,
        }
    }
}
