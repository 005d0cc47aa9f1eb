//! The proxy's own answers: `application/problem+json` (RFC 9457) with `Proxy-Status` (RFC 9209), so that an
//! agent can tell them from the provider's and act on them.
//!
//! Every error of the modules below becomes a [`Refusal`] here and nowhere else. `detail` is our own sentence;
//! the text of an inner error goes to the log.

use std::fmt::Display;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::id::ActionId;

/// Why a request was refused, as the contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the code of the same name, described in docs/errors.md")]
pub enum Code {
    IdentityRequired,
    IdentityInvalid,
    IdentityNotAllowed,
    IdentityDrift,
    DestinationDenied,
    OperationUnknown,
    PolicyDenied,
    InsufficientScope,
    AccountMissing,
    AuthExpired,
    AuthRevoked,
    AccountFrozen,
    Misdirected,
    BadRequest,
    BodyTooLarge,
    UpstreamUnreachable,
    UpstreamTls,
    UpstreamTimeout,
    VaultUnavailable,
    AuditUnavailable,
    PolicyUnavailable,
    Overloaded,
}

/// Who has to do something about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The agent, or whoever wrote it.
    Agent,
    /// Whoever writes the policy or connects accounts.
    Policy,
    /// The provider, or the way to it.
    Upstream,
    /// This proxy and whoever runs it.
    Us,
}

impl Code {
    /// The code's name in `error`, `type` and `Proxy-Status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status where the request does not address the proxy itself.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// Who has to do something.
    #[must_use]
    pub(super) const fn fault(self) -> Fault {
        self.row().2
    }

    const fn title(self) -> &'static str {
        self.row().4
    }

    /// Name, status, fault, the error type of RFC 9209 §2.3, title.
    #[rustfmt::skip] // a table: one row a line
    const fn row(self) -> (&'static str, StatusCode, Fault, &'static str, &'static str) {
        use Fault::{Agent, Policy, Upstream, Us};
        const DENIED: &str = "http_request_denied";
        const REQUEST: &str = "http_request_error";
        const INTERNAL: &str = "proxy_internal_error";
        match self {
            Self::IdentityRequired => ("identity_required", StatusCode::UNAUTHORIZED, Agent, DENIED, "Say who asks"),
            Self::IdentityInvalid => ("identity_invalid", StatusCode::UNAUTHORIZED, Agent, DENIED, "The identity cannot be read"),
            Self::IdentityNotAllowed => ("identity_not_allowed", StatusCode::FORBIDDEN, Policy, DENIED, "This workload may not speak for that identity"),
            Self::IdentityDrift => ("identity_drift", StatusCode::CONFLICT, Agent, DENIED, "The chain belongs to another principal"),
            Self::DestinationDenied => ("destination_denied", StatusCode::FORBIDDEN, Policy, "destination_ip_prohibited", "This destination is not allowed"),
            Self::OperationUnknown => ("operation_unknown", StatusCode::FORBIDDEN, Policy, DENIED, "The connector has no such operation"),
            Self::PolicyDenied => ("policy_denied", StatusCode::FORBIDDEN, Policy, DENIED, "The policy does not allow this"),
            Self::InsufficientScope => ("insufficient_scope", StatusCode::FORBIDDEN, Policy, DENIED, "A scope is missing"),
            Self::AccountMissing => ("account_missing", StatusCode::UNAUTHORIZED, Policy, DENIED, "No account is connected"),
            Self::AuthExpired => ("auth_expired", StatusCode::UNAUTHORIZED, Policy, DENIED, "The account's authorization has expired"),
            Self::AuthRevoked => ("auth_revoked", StatusCode::UNAUTHORIZED, Policy, DENIED, "The account's authorization was revoked"),
            Self::AccountFrozen => ("account_frozen", StatusCode::FORBIDDEN, Policy, DENIED, "The account is frozen"),
            Self::Misdirected => ("misdirected", StatusCode::MISDIRECTED_REQUEST, Agent, REQUEST, "The request names two destinations"),
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, Agent, REQUEST, "The request has no single reading"),
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, Agent, DENIED, "The body is too large to be checked"),
            Self::UpstreamUnreachable => ("upstream_unreachable", StatusCode::BAD_GATEWAY, Upstream, "destination_unavailable", "The provider cannot be reached"),
            Self::UpstreamTls => ("upstream_tls", StatusCode::BAD_GATEWAY, Upstream, "tls_certificate_error", "The provider could not be verified"),
            Self::UpstreamTimeout => ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT, Upstream, "http_response_timeout", "The provider did not answer in time"),
            Self::VaultUnavailable => ("vault_unavailable", StatusCode::SERVICE_UNAVAILABLE, Us, INTERNAL, "The vault cannot be read"),
            Self::AuditUnavailable => ("audit_unavailable", StatusCode::SERVICE_UNAVAILABLE, Us, INTERNAL, "The action cannot be recorded"),
            Self::PolicyUnavailable => ("policy_unavailable", StatusCode::SERVICE_UNAVAILABLE, Us, "proxy_configuration_error", "There is no policy to decide by"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, Us, "connection_limit_reached", "The proxy has no room"),
        }
    }
}

/// A refusal with everything the agent is told.
#[derive(Debug, Clone)]
pub(super) struct Refusal(Box<Told>);

#[derive(Debug, Clone)]
struct Told {
    code: Code,
    detail: String,
    members: Map<String, Value>,
    headers: HeaderMap,
    status: StatusCode,
}

impl Refusal {
    /// A refusal with a sentence that an agent can act on.
    #[must_use]
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut told = Told {
            code,
            detail: detail.into(),
            members: Map::new(),
            headers: HeaderMap::new(),
            status: code.status(),
        };
        if code.status() == StatusCode::SERVICE_UNAVAILABLE {
            told.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Self(Box::new(told))
    }

    /// A request that has no single reading, and why.
    #[must_use]
    pub(super) fn bad_request(why: impl Display) -> Self {
        Self::new(Code::BadRequest, format!("bad_request: {why}")).with("why", why.to_string())
    }

    /// A head that is too long (RFC 6585 §5).
    #[must_use]
    pub(super) fn long_head(limit: usize) -> Self {
        let why = format!(
            "the request's head is longer than limits.header_bytes ({limit}), or has more than 100 fields in HTTP/1.1"
        );
        Self::bad_request(why).with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    }

    /// Adds a member to the problem document.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Refuses with a status of its own, where HTTP has one that says more.
    #[must_use]
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Which refusal it is.
    #[must_use]
    pub(super) const fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence.
    #[must_use]
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The answer. Where the request addresses the proxy itself, a missing identity is asked for with 407 and
    /// `Proxy-Authenticate` (RFC 9110 §15.5.8); elsewhere a client would misread that.
    #[must_use]
    pub(super) fn into_response(self, action: ActionId, addressed_to_proxy: bool) -> Response<Bytes> {
        let asks_identity = matches!(self.0.code, Code::IdentityRequired | Code::IdentityInvalid);
        let proxy_auth = asks_identity && addressed_to_proxy;
        let status = if proxy_auth { StatusCode::PROXY_AUTHENTICATION_REQUIRED } else { self.0.status };
        let body = Bytes::from(self.document(status, action));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let proxy_status = self.proxy_status();
        let headers = response.headers_mut();
        *headers = self.0.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(super::PROXY_STATUS, proxy_status);
        if proxy_auth {
            const BASIC: HeaderValue =
                HeaderValue::from_static("Basic realm=\"keybearer: tenant/role as user name\"");
            headers.insert(header::PROXY_AUTHENTICATE, BASIC);
        } else if status == StatusCode::UNAUTHORIZED {
            // Not Basic: git and browsers would ask a person for a password that does not exist.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keybearer\""));
        }
        response
    }

    fn document(&self, status: StatusCode, action: ActionId) -> Vec<u8> {
        let mut document = self.told(status);
        document.insert("action_id".into(), json!(action.to_string()));
        let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// All that the agent is told, but for the action's id.
    #[must_use]
    pub(super) fn told(&self, status: StatusCode) -> Map<String, Value> {
        let mut document = Map::new();
        document.insert("type".into(), json!(format!("urn:keybearer:problem:{}", self.0.code.as_str())));
        document.insert("title".into(), json!(self.0.code.title()));
        document.insert("status".into(), json!(status.as_u16()));
        document.insert("detail".into(), json!(self.0.detail));
        document.insert("error".into(), json!(self.0.code.as_str()));
        document.extend(self.0.members.clone());
        document
    }

    fn proxy_status(&self) -> HeaderValue {
        let error = match (self.0.code, self.0.members.get("why").and_then(Value::as_str)) {
            (Code::DestinationDenied, Some("no_connector")) => "destination_not_found",
            (Code::DestinationDenied, Some("cleartext")) => "http_request_denied",
            (code, _) => code.row().3,
        };
        let text = format!("keybearer; error={error}; details=\"{}\"", self.0.code.as_str());
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("keybearer"))
    }
}
