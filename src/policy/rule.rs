//! The name of a line of policy, for people and for the audit.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The name of a line in a role's file: `researcher/grants/0`, `researcher/deny/2`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(Arc<str>);

impl RuleId {
    pub(super) fn new(role: &str, list: &str, index: usize) -> Self {
        Self(format!("{role}/{list}/{index}").into())
    }

    /// What decides where no line does: `default`, the refusal of everything that is not granted.
    #[must_use]
    pub fn by_default() -> Self {
        Self("default".into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RuleId {
    /// The name as an event keeps it.
    #[must_use]
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for RuleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
