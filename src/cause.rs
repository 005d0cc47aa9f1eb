//! Why a grant no longer works: what a provider's answer says, and what the vault keeps of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a grant is over, or at rest until a person acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody took it back, or it ended without a word of why.
    Revoked,
    /// It was not used for too long.
    ExpiredIdle,
    /// The consent's own time was over.
    ExpiredHard,
    /// The provider disabled its user.
    UserDisabled,
    /// A rule of the provider's or the customer's: a second factor, a device, a network.
    Policy,
    /// The provider rotated its token, and the new one did not arrive here.
    LostRotation,
    /// It was given to another client.
    WrongClient,
    /// The app was uninstalled.
    Uninstalled,
}

impl Cause {
    /// As events, metrics and the vault name it: `lost_rotation`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::ExpiredIdle => "expired_idle",
            Self::ExpiredHard => "expired_hard",
            Self::UserDisabled => "user_disabled",
            Self::Policy => "policy",
            Self::LostRotation => "lost_rotation",
            Self::WrongClient => "wrong_client",
            Self::Uninstalled => "uninstalled",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
