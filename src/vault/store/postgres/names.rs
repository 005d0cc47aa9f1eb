//! What names a row, as the tables have it: always the first three parameters of a statement.

use tokio_postgres::types::Type;

use super::database::Parameter;
use crate::{id::AccountKey, vault::FactKey};

/// An account's key.
pub(super) struct Name<'a> {
    tenant: &'a str,
    connector: &'a str,
    principal: String,
}

impl<'a> From<&'a AccountKey> for Name<'a> {
    fn from(key: &'a AccountKey) -> Self {
        Self {
            tenant: key.tenant.as_str(),
            connector: key.connector.as_str(),
            principal: key.principal.to_string(),
        }
    }
}

impl Name<'_> {
    /// As `$1`, `$2` and `$3`, with more behind them.
    pub(super) fn and<'p, const N: usize>(&'p self, more: [Parameter<'p>; N]) -> Vec<Parameter<'p>> {
        let name: [Parameter<'p>; 3] =
            [(&self.tenant, Type::TEXT), (&self.connector, Type::TEXT), (&self.principal, Type::TEXT)];
        name.into_iter().chain(more).collect()
    }
}

/// A fact's key.
pub(super) struct FactName<'a> {
    tenant: &'a str,
    kind: &'static str,
    name: &'a [u8],
}

impl<'a> From<&'a FactKey> for FactName<'a> {
    fn from(key: &'a FactKey) -> Self {
        Self { tenant: key.tenant.as_str(), kind: key.kind.as_str(), name: key.name.as_bytes() }
    }
}

impl FactName<'_> {
    /// As `$1`, `$2` and `$3`, with more behind them.
    pub(super) fn and<'p, const N: usize>(&'p self, more: [Parameter<'p>; N]) -> Vec<Parameter<'p>> {
        let name: [Parameter<'p>; 3] =
            [(&self.tenant, Type::TEXT), (&self.kind, Type::TEXT), (&self.name, Type::BYTEA)];
        name.into_iter().chain(more).collect()
    }
}
