//! Why the vault did not do it.

use super::{Fingerprint, KeyError, LockError, Place, SecretError, StoreError};
use crate::id::AccountKey;

/// Why the vault did not do it. No message shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only the broker itself can do it.
    #[error("the accounts are at the broker {0}: run this there")]
    AtBroker(String),
    /// No broker is named.
    #[error(
        "vault.backend is broker, and vault.url does not say where: write it as in https://keybearer-broker.keybearer.svc:7443"
    )]
    NoBrokerUrl,
    /// Nothing says who we are.
    #[error(
        "vault.backend is broker, and vault.token_file names no token: project a service-account token into the pod, for the broker's audience, and name its file"
    )]
    NoTokenFile,
    /// No database is named.
    #[error(
        "vault.backend is postgres, and vault.url does not say where: write it as in postgres://keybearer@db.example/keybearer"
    )]
    NoUrl,
    /// Nothing was ever made here.
    #[error("there is no vault in {0}: run `keybearer vault init`")]
    NoVault(Place),
    /// The key is not there, or is not one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is missing while there is a vault sealed with it.
    #[error(
        "the vault in {place} is sealed with a key that is not there ({source}); without it nothing in there can be opened"
    )]
    KeyGone {
        /// Where the vault is.
        place: Place,
        /// Why there is no key.
        source: KeyError,
    },
    /// Another key than the one with which the vault was made.
    #[error(
        "this is not the vault's key: it is sealed with the key {expected}, and the key given is {found}"
    )]
    WrongKey {
        /// The fingerprint of the vault's key.
        expected: Fingerprint,
        /// The fingerprint of the key given.
        found: Fingerprint,
    },
    /// Another process has the data directory open.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something was changed, moved or torn.
    #[error("{what} does not open: {why}; restore the vault from a backup{}", if *.removable { ", or remove this account and add it again" } else { "" })]
    Unopened {
        /// What was to be opened: `the account acme/github/tenant`.
        what: String,
        /// What the cipher or the reader found.
        why: String,
        /// Whether removing the account would help.
        removable: bool,
    },
    /// The system gives no random bytes, or the record cannot be written.
    #[error("{0} cannot be sealed: the system gives no random bytes")]
    CannotSeal(String),
    /// An account of this name is there.
    #[error("there is an account {0} already: rotate it, or remove it first")]
    Exists(AccountKey),
    /// No account has this name.
    #[error("there is no account {0}")]
    Missing(AccountKey),
    /// A revoked account has no secret that could be frozen or unfrozen.
    #[error("the account {0} is revoked: rotate it to give it a new secret, or remove it")]
    Revoked(AccountKey),
    /// Somebody else consented than the one whose account it is.
    #[error(
        "the account {0} is another person's at the provider: let them connect it again, or remove it first"
    )]
    OtherSubject(AccountKey),
    /// The secret or metadata handed in cannot be one.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Others kept changing the same account.
    #[error("the account {0} is being changed by others: try again")]
    Contended(AccountKey),
    /// Others kept changing what belongs to all accounts.
    #[error("the vault is being changed by others: try again")]
    Busy,
    /// The task ended before its end.
    #[error("the vault's work was interrupted: try again")]
    Interrupted,
}

impl Error {
    /// Whether the vault is only away, so that it will say more when it is back.
    #[must_use]
    pub const fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unreachable { .. }))
    }

    /// What is not one account does not open.
    pub(super) fn unopened(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unopened { what: what.into(), why: why.into(), removable: false }
    }
}
