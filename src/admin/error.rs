//! Why the admin side did not do it.

use std::{io, path::PathBuf};

use http::StatusCode;

use super::Misfit;
use crate::{
    audit,
    credential::SeedError,
    id::{AccountKey, ConnectorName, TenantId},
    oauth::NotSent,
    vault,
};

/// Why the admin side did not do it. No message shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The account would be of no use.
    #[error(transparent)]
    Unfit(#[from] Misfit),
    /// No token could be minted from it.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The change cannot be recorded, so it is not made.
    #[error("nothing was changed, because it cannot be recorded: {0}")]
    Audit(#[from] audit::Error),
    /// Nobody can be sent back.
    #[error(
        "providers have nowhere to send people back to: set oauth.redirect_url to this listener's https:// URL, with /oauth/callback"
    )]
    NoRedirect,
    /// Nobody knows us there.
    #[error(
        "no app is configured for connector {connector}: register one with the provider, and add it as oauth.apps.{connector} or oauth.apps.{connector}/{tenant}"
    )]
    NoApp {
        /// The connector.
        connector: ConnectorName,
        /// Whose app it could be.
        tenant: TenantId,
    },
    /// The question cannot be put together.
    #[error("the connector's authorize_url cannot be used for this account: {0}; say more with --meta")]
    Ask(NotSent),
    /// Too many at once.
    #[error("{0} consents are asked for and not answered: wait until they are, or are over")]
    Consents(usize),
    /// A pasted secret would take the place of what a person consented to.
    #[error(
        "{0} holds what its owner consented to, which no secret replaces: connect it anew with `keybearer account connect {0}`, or remove it first"
    )]
    Consented(AccountKey),
    /// A consent was not given, or is of no use.
    #[error("{}", .0.detail)]
    NotConnected(Fault),
    /// The task ended before its end.
    #[error("the change was interrupted: look whether it was made, and try again")]
    Interrupted,
    /// The `lifecycle` section makes no sense.
    #[error("{0}")]
    Lifecycle(String),
    /// A token's file cannot be read.
    #[error("cannot read the token in {}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A token that could be guessed, or that no header can carry.
    #[error(
        "the token in {} is no 32 to 1024 visible characters: make one with `head -c 32 /dev/urandom | base64`",
        .0.display()
    )]
    TokenText(PathBuf),
    /// `sockaddr_un` ends after 108 bytes.
    #[error("the admin socket's path {} is longer than {} bytes: set a shorter data_dir", .0.display(), super::socket::LONGEST)]
    SocketPath(PathBuf),
    /// Something else has the socket's name.
    #[error("{} is there and is no socket of a proxy that has stopped: {why}", path.display())]
    SocketTaken {
        /// The socket's path.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// The socket cannot be made or connected to.
    #[error("cannot {attempt} the admin socket {}: {source}", path.display())]
    Socket {
        /// `make`, `connect to`.
        attempt: &'static str,
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The running proxy refused.
    #[error("{}", .0.detail)]
    Refused(Fault),
    /// The running proxy did not answer as it should.
    #[error("the proxy at {} did not answer as it should ({why}); is it of another version?", path.display())]
    Talk {
        /// The socket's path.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// A word that programs can look at.
    pub error: String,
    /// What went wrong, and what to do.
    pub detail: String,
}

impl Error {
    /// A word that programs can look at.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Unfit(_) | Self::Ask(_) => "unfit",
            Self::Vault(vault::Error::Missing(_)) => "account_missing",
            Self::Vault(vault::Error::Exists(_)) => "account_exists",
            Self::Vault(vault::Error::Revoked(_)) => "account_revoked",
            Self::Vault(vault::Error::OtherSubject(_)) => "other_subject",
            Self::Seed(_) | Self::Vault(vault::Error::Secret(_) | vault::Error::Key(_)) => "secret_invalid",
            Self::Vault(_) => "vault_unavailable",
            Self::Audit(_) => "audit_unavailable",
            Self::NoRedirect => "no_redirect_url",
            Self::NoApp { .. } => "app_missing",
            Self::Consents(_) => "too_many_consents",
            Self::Consented(_) => "account_consented",
            Self::NotConnected(fault) | Self::Refused(fault) => &fault.error,
            _ => "failed",
        }
    }

    /// The HTTP status that says it.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unfit(_)
            | Self::NoRedirect
            | Self::NoApp { .. }
            | Self::Ask(_)
            | Self::Seed(_)
            | Self::Vault(vault::Error::Secret(_) | vault::Error::Key(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Vault(vault::Error::Missing(_)) => StatusCode::NOT_FOUND,
            Self::NotConnected(_)
            | Self::Consented(_)
            | Self::Vault(
                vault::Error::Exists(_) | vault::Error::Revoked(_) | vault::Error::OtherSubject(_),
            ) => StatusCode::CONFLICT,
            Self::Consents(_) | Self::Vault(_) | Self::Audit(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
