//! Why an event was not taken, as RFC 8935 §2.4 has it told.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// Why an event was not taken. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Request(&'static str),
    #[error("the token's key is not in the issuer's key set")]
    Key,
    #[error("no transmitter of this issuer (iss) and audience is configured")]
    Issuer,
    #[error("the token is for another audience (aud)")]
    Audience,
    #[error("the token's signature does not match its key")]
    Signature,
    #[error("send the `Authorization` that is configured for this transmitter")]
    Authorization,
    #[error("the event could not be acted upon or recorded now: send it again")]
    Unavailable,
}

impl Refused {
    /// The code of RFC 8935 §2.4; none where the same event is to be sent again.
    pub(super) const fn code(self) -> Option<&'static str> {
        match self {
            Self::Request(_) => Some("invalid_request"),
            Self::Key => Some("invalid_key"),
            Self::Issuer => Some("invalid_issuer"),
            Self::Audience => Some("invalid_audience"),
            Self::Signature | Self::Authorization => Some("authentication_failed"),
            Self::Unavailable => None,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Some(code) = self.code() else {
            let again = (header::RETRY_AFTER, HeaderValue::from_static("5"));
            return (StatusCode::SERVICE_UNAVAILABLE, [again]).into_response();
        };
        let body = json!({"err": code, "description": self.to_string()});
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CONTENT_LANGUAGE, HeaderValue::from_static("en")),
        ];
        (StatusCode::BAD_REQUEST, headers, body.to_string()).into_response()
    }
}
