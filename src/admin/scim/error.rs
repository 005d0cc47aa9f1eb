//! Why SCIM did not do it, as RFC 7644 §3.12 has it told.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{answer, urn};

/// Why SCIM did not do it. Sentences are our own and quote no value of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("send `Authorization: Bearer` with a token of lifecycle.scim")]
    Unauthorized,
    #[error("the body is no JSON object, did not arrive, or is too long")]
    Syntax,
    #[error("{0}")]
    Value(&'static str),
    #[error("write the filter as `userName eq \"...\"`; externalId and id can be asked for, too")]
    Filter,
    #[error("{0}")]
    Path(&'static str),
    #[error("no value fits the path's filter, or a remove names no path")]
    Target,
    #[error("id and meta are not the client's to change")]
    Mutability,
    #[error("another user of this tenant has this userName")]
    Uniqueness,
    #[error("there is no such resource")]
    Missing,
    #[error("this method is not for this resource")]
    Method,
    #[error("the change could not be made or recorded now: try again")]
    Unavailable,
}

impl Error {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Uniqueness => StatusCode::CONFLICT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// RFC 7644 table 9.
    const fn scim_type(&self) -> Option<&'static str> {
        match self {
            Self::Syntax => Some("invalidSyntax"),
            Self::Value(_) => Some("invalidValue"),
            Self::Filter => Some("invalidFilter"),
            Self::Path(_) => Some("invalidPath"),
            Self::Target => Some("noTarget"),
            Self::Mutability => Some("mutability"),
            Self::Uniqueness => Some("uniqueness"),
            _ => None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut body =
            json!({"schemas": [urn::ERROR], "status": status.as_str(), "detail": self.to_string()});
        if let Some(scim_type) = self.scim_type() {
            body["scimType"] = scim_type.into();
        }
        let mut response = answer(status, &body);
        if self == Self::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
