//! A role as its file says it (contract §6).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    document::{Unsupported, written_list},
    id::{ConnectorName, OperationName, Scope},
};

/// The `spec` of a `Role`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSpec {
    /// Where the role exists: names of tenants, or `*` alone.
    pub tenants: Vec<String>,
    /// Whether refusals are enforced or only recorded.
    #[serde(default)]
    pub mode: Mode,
    /// What the role may do.
    #[serde(default)]
    pub grants: Vec<GrantSpec>,
    /// What it may not do, whatever is granted.
    #[serde(default)]
    pub deny: Vec<DenySpec>,
}

/// Whether refusals are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A refusal is a refusal.
    #[default]
    Enforce,
    /// Refusals of operation, scope and deny rules are recorded as `would_deny` and let through.
    Observe,
}

/// One line of `grants`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantSpec {
    /// The external system.
    pub connector: ConnectorName,
    /// Whose account is used.
    #[serde(rename = "as")]
    pub principal: PrincipalKind,
    /// The scopes held.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// The only operations for which they are held; all, where this is left out.
    #[serde(default, deserialize_with = "written_list", skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<OperationName>>,
    /// A condition: not supported yet.
    #[serde(default, skip_serializing)]
    pub when: Unsupported,
    /// A rate limit: not supported yet.
    #[serde(default, skip_serializing)]
    pub rate: Unsupported,
    /// What needs a person: not supported yet.
    #[serde(default, skip_serializing)]
    pub approve: Unsupported,
}

/// One line of `deny`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenySpec {
    /// The external system.
    pub connector: ConnectorName,
    /// The operations denied; all, where this is left out.
    #[serde(default, deserialize_with = "written_list", skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<OperationName>>,
}

/// Whose account a grant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// The one who runs the agents.
    Developer,
    /// The tenant as a whole.
    Tenant,
    /// The role that asks.
    Role,
    /// The user on whose behalf the role asks.
    User,
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Developer => "developer",
            Self::Tenant => "tenant",
            Self::Role => "role",
            Self::User => "user",
        })
    }
}
