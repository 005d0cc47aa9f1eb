//! The broker's no: `application/problem+json` (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::{Broker, room::Full};
use crate::{
    credential::{
        Error,
        wire::{Code, Problem},
    },
    id::AccountKey,
    identity::Unproven,
};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What passes by is worth another attempt after so many seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A no, and what is told of it.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Box<Problem>);

impl Refusal {
    pub(super) fn new(code: Code, detail: impl AsRef<str>) -> Self {
        Self(Box::new(Problem::new(code, detail.as_ref())))
    }

    /// Why an account gives nothing.
    pub(super) fn of(error: &Error) -> Self {
        if let Error::Vault(error) = error {
            tracing::error!(%error, "the vault cannot be read");
            return Self::new(Code::VaultUnavailable, "the broker cannot read its vault");
        }
        Self(Box::new(Problem::of(error)))
    }

    /// The same, with where a person connects the account, if that would help.
    pub(super) fn connecting(mut self, broker: &Broker, account: &AccountKey) -> Self {
        if matches!(self.code(), Code::AccountMissing | Code::AuthRevoked | Code::AccountUnusable) {
            self.0.reconnect_url = Some(broker.reconnect_url(account));
        }
        self
    }

    pub(super) const fn code(&self) -> Code {
        self.0.error
    }
}

impl Broker {
    /// Where a person reads how to connect this account.
    pub(super) fn reconnect_url(&self, key: &AccountKey) -> String {
        let AccountKey { tenant, connector, principal } = key;
        let page = format!("/connect/{tenant}/{connector}?as={principal}");
        match &self.0.config.connect_url {
            Some(url) => format!("{}{page}", url.trim_end_matches('/')),
            None => format!("http://{}{page}", self.parts().admin),
        }
    }
}

impl From<Unproven> for Refusal {
    fn from(unproven: Unproven) -> Self {
        match unproven {
            Unproven::Invalid(_) => {
                Self::new(Code::WorkloadInvalid, format!("the workload's token is not believed: {unproven}"))
            }
            Unproven::Unavailable => Self::new(Code::PolicyUnavailable, unproven.to_string()),
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        let code = if full == Full::NotYours { Code::BadRequest } else { Code::Overloaded };
        Self::new(code, full.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(self.code()); // for whoever counts
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"keybearer\", error=\"invalid_token\""),
            );
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
