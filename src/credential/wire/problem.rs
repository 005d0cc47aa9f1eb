//! Why a broker gives nothing (RFC 9457).

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::Question;
use crate::{
    catalog::{Connector, MissingField},
    credential::{Error, remote},
};

/// Why a broker gives nothing, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:keybearer:problem:<error>`.
    #[serde(default)]
    pub r#type: String,
    /// The code in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// A sentence for whoever reads the sidecar's log.
    #[serde(default)]
    pub detail: String,
    /// What is the matter.
    pub error: Code,
    /// Where it is frozen: who froze it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Where it is unusable: the field that it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Where it is unusable: the header in which its secret cannot stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Where a person reads how to connect the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_url: Option<String>,
}

/// What is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The question cannot be read.
    BadRequest,
    /// The workload's token is missing, is none, has expired or is for another audience.
    WorkloadInvalid,
    /// No Binding gives the workload this subject, or no grant of its role this account.
    IdentityNotAllowed,
    /// Nobody connected the account.
    AccountMissing,
    /// It is frozen.
    AccountFrozen,
    /// It was revoked.
    AuthRevoked,
    /// It does not hold what its connector needs.
    AccountUnusable,
    /// The rules are not there.
    PolicyUnavailable,
    /// The hand-out cannot be recorded.
    AuditUnavailable,
    /// There is more to do than can be done.
    Overloaded,
    /// The vault cannot be read; also what a newer version says.
    #[serde(other)]
    VaultUnavailable,
}

impl Code {
    /// As it is written: `account_missing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::WorkloadInvalid => "workload_invalid",
            Self::IdentityNotAllowed => "identity_not_allowed",
            Self::AccountMissing => "account_missing",
            Self::AccountFrozen => "account_frozen",
            Self::AuthRevoked => "auth_revoked",
            Self::AccountUnusable => "account_unusable",
            Self::PolicyUnavailable => "policy_unavailable",
            Self::AuditUnavailable => "audit_unavailable",
            Self::Overloaded => "overloaded",
            Self::VaultUnavailable => "vault_unavailable",
        }
    }

    /// Whether the account may be used, where this says anything of it: else it is of the moment, or of who asks.
    pub(in crate::credential) const fn stands(self) -> Option<bool> {
        match self {
            Self::IdentityNotAllowed | Self::AccountMissing | Self::AccountFrozen | Self::AuthRevoked => {
                Some(false)
            }
            Self::AccountUnusable => Some(true),
            Self::BadRequest
            | Self::WorkloadInvalid
            | Self::PolicyUnavailable
            | Self::AuditUnavailable
            | Self::Overloaded
            | Self::VaultUnavailable => None,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::WorkloadInvalid => 401,
            Self::IdentityNotAllowed | Self::AccountFrozen | Self::AuthRevoked => 403,
            Self::AccountMissing => 404,
            Self::AccountUnusable => 409,
            Self::PolicyUnavailable | Self::AuditUnavailable | Self::Overloaded | Self::VaultUnavailable => {
                503
            }
        }
    }
}

impl Problem {
    /// A problem that is this and no more.
    #[must_use]
    pub fn new(error: Code, detail: &str) -> Self {
        Self {
            r#type: format!("urn:keybearer:problem:{}", error.as_str()),
            title: error.as_str().replace('_', " "),
            status: error.status(),
            detail: detail.to_owned(),
            error,
            by: None,
            field: None,
            header: None,
            reconnect_url: None,
        }
    }

    /// Why an account gives nothing.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let detail = error.to_string();
        let problem = |code| Self::new(code, &detail);
        match error {
            Error::Missing(_) => problem(Code::AccountMissing),
            Error::Frozen { by } => Self { by: Some(by.clone()), ..problem(Code::AccountFrozen) },
            Error::Revoked(_) => problem(Code::AuthRevoked),
            Error::NotAllowed(_) => problem(Code::IdentityNotAllowed),
            Error::Field(MissingField(name)) => {
                Self { field: Some(name.clone()), ..problem(Code::AccountUnusable) }
            }
            Error::Unwritable(name) => {
                Self { header: Some(name.to_string()), ..problem(Code::AccountUnusable) }
            }
            Error::Unminted(_) => problem(Code::AccountUnusable),
            // All but the first are no errors of a source: they are said in a standing, or by who asks.
            Error::Vault(_)
            | Error::Broker(_)
            | Error::Closed { .. }
            | Error::NoToken { .. }
            | Error::Scopes { .. }
            | Error::Host { .. } => problem(Code::VaultUnavailable),
        }
    }

    /// The same for who asked the broker of this name: what a proxy with a vault of its own would have found.
    pub(in crate::credential) fn error(
        self,
        question: &Question,
        connector: &Connector,
        broker: &str,
    ) -> Error {
        let Self { error, detail, by, field, header, .. } = self;
        match error {
            Code::AccountMissing => Error::Missing(question.account.clone()),
            Code::AccountFrozen => Error::Frozen { by: by.unwrap_or_else(|| "an operator".to_owned()) },
            Code::AuthRevoked => Error::Revoked(question.account.clone()),
            Code::IdentityNotAllowed => Error::NotAllowed(question.subject.clone()),
            Code::AccountUnusable => match (field, header.map(|name| name.parse::<HeaderName>())) {
                (Some(name), _) => Error::Field(MissingField(name)),
                (None, Some(Ok(name))) => Error::Unwritable(name),
                (None, _) => Error::Unminted(connector.auth.kind),
            },
            Code::BadRequest
            | Code::WorkloadInvalid
            | Code::PolicyUnavailable
            | Code::AuditUnavailable
            | Code::Overloaded
            | Code::VaultUnavailable => {
                let (broker, error) = (broker.to_owned(), error.as_str().to_owned());
                Error::Broker(remote::Error::Refused { broker, error, detail })
            }
        }
    }
}
