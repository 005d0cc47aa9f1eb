//! The words of the house: names, parsed once, then carried as types.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a {0} cannot be empty")]
    Empty(&'static str),
    /// Longer than [`MAX_NAME`] bytes.
    #[error("a {0} cannot be longer than {MAX_NAME} bytes")]
    TooLong(&'static str),
    /// A character that would be ambiguous in a header, a URL, a log line or a vault key.
    #[error("a {kind} cannot contain {found:?}: use letters, digits and . _ - @ : + = ~ ! $ |")]
    Character {
        /// Which kind of name was being read.
        kind: &'static str,
        /// The first character that does not belong.
        found: char,
    },
}

/// The longest name, in bytes.
pub const MAX_NAME: usize = 200;

fn check(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(kind));
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong(kind));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-@:+=~!$|".contains(*c))) {
        Some(found) => Err(NameError::Character { kind, found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and takes it as a name.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long or has a character that a name may not have.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($kind, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A customer organisation: the root of every key.
    TenantId,
    "tenant"
);
name!(
    /// An agent's role in its crew: `researcher`, `publisher`.
    RoleName,
    "role"
);
name!(
    /// The end user on whose behalf an agent acts.
    UserId,
    "user"
);
name!(
    /// The software that asks (`sub` of a signed identity).
    AgentName,
    "agent"
);
name!(
    /// One agent run: the actions that belong together.
    ChainId,
    "chain"
);
name!(
    /// One external system: `salesforce`.
    ConnectorName,
    "connector"
);
name!(
    /// One named method and path of a connector: `opportunity.update`.
    OperationName,
    "operation"
);
name!(
    /// One `Binding` document.
    BindingName,
    "binding"
);
name!(
    /// The unit of permission that security people read: `opportunities:write`.
    Scope,
    "scope"
);

/// Who asks, as policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The customer organisation.
    pub tenant: TenantId,
    /// The role in which the agent acts.
    pub role: RoleName,
    /// The end user, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
}

/// Whose account is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Principal {
    /// The one who runs the agents: an account of the tenant's operator.
    Developer,
    /// The tenant as a whole.
    Tenant,
    /// One role of the tenant.
    Role(RoleName),
    /// One user of the tenant, in one role.
    User {
        /// The end user.
        user: UserId,
        /// The role that may use the user's account.
        role: RoleName,
    },
}

impl fmt::Display for Principal {
    /// `developer`, `tenant`, `role:researcher`, `user:alice/researcher`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Developer => f.write_str("developer"),
            Self::Tenant => f.write_str("tenant"),
            Self::Role(role) => write!(f, "role:{role}"),
            Self::User { user, role } => write!(f, "user:{user}/{role}"),
        }
    }
}

/// Why a text names no principal or account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// None of the four forms.
    #[error("{0:?} is no principal: write developer, tenant, role:ROLE or user:USER/ROLE")]
    Principal(String),
    /// Not three parts.
    #[error("{0:?} is no account: write TENANT/CONNECTOR/PRINCIPAL, as in acme/github/role:researcher")]
    Account(String),
    /// A part of it is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Principal {
    type Err = KeyError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let unknown = || KeyError::Principal(text.to_owned());
        match text.split_once(':') {
            None if text == "developer" => Ok(Self::Developer),
            None if text == "tenant" => Ok(Self::Tenant),
            Some(("role", role)) => Ok(Self::Role(role.parse()?)),
            Some(("user", names)) => {
                let (user, role) = names.split_once('/').ok_or_else(unknown)?;
                Ok(Self::User { user: user.parse()?, role: role.parse()? })
            }
            _ => Err(unknown()),
        }
    }
}

/// What names one connected account. The tenant comes first, here and in every key made of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountKey {
    /// The customer organisation.
    pub tenant: TenantId,
    /// The external system.
    pub connector: ConnectorName,
    /// Whose account it is.
    pub principal: Principal,
}

impl fmt::Display for AccountKey {
    /// `acme/salesforce/role:researcher`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.connector, self.principal)
    }
}

impl FromStr for AccountKey {
    type Err = KeyError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '/');
        let (Some(tenant), Some(connector), Some(principal)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError::Account(text.to_owned()));
        };
        Ok(Self { tenant: tenant.parse()?, connector: connector.parse()?, principal: principal.parse()? })
    }
}

/// What an operation does to the provider's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Creates or changes.
    Write,
    /// Removes, or cannot be taken back.
    Destructive,
}

impl Effect {
    /// `read`, `write` or `destructive`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
        }
    }
}

/// The id of one proxied request, a UUIDv7 (RFC 9562): sortable by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(Uuid);

impl ActionId {
    /// A new id, of now.
    #[must_use]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_would_be_ambiguous_elsewhere() {
        assert!(TenantId::new("acme").is_ok());
        assert!(UserId::new("alice@acme.example").is_ok());
        for bad in ["", "a/b", "a b", "a\"b", "a\0b", "a,b", "é", "*"] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TenantId::new(&"x".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn principals_are_told_apart_in_text() {
        let role = RoleName::new("writer").unwrap();
        let user = UserId::new("alice").unwrap();
        assert_eq!(Principal::Role(role.clone()).to_string(), "role:writer");
        assert_eq!(Principal::User { user, role }.to_string(), "user:alice/writer");
    }

    #[test]
    fn an_account_is_read_back_from_its_text() {
        for text in [
            "acme/slack/developer",
            "acme/slack/tenant",
            "acme/slack/role:a:b",
            "acme/slack/user:alice/writer",
        ] {
            assert_eq!(text.parse::<AccountKey>().unwrap().to_string(), text);
        }
        for bad in
            ["", "acme", "acme/slack", "acme/slack/role:", "acme/slack/user:alice", "acme//tenant", "a/b/c/d"]
        {
            assert!(bad.parse::<AccountKey>().is_err(), "{bad:?}");
        }
    }
}
