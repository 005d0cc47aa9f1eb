//! The policy folder read whole: roles, bindings and connectors, checked against each other and swapped at once.
//!
//! [`Ruleset::load`] reads every document of every file, and either compiles them all or says all that is wrong
//! ([`LoadError`]). Nothing is half in use: [`Rules`] holds the ruleset in use, and a change of the files replaces
//! it whole or, where they cannot be used, not at all. Where the files are somebody else's, a [`Feed`] hands them over;
//! what a workload of somebody else's is handed is an [`Excerpt`].

mod bundle;
mod crossref;
mod document;
mod entitled;
mod error;
mod excerpt;
mod explain;
mod files;
mod load;
mod metrics;
mod needs;
mod offer;
mod origin;
mod own;
mod reload;
mod rules;
mod sheet;
mod sources;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use serde::Serialize;

pub use self::{
    bundle::{BundleKey, Signed, UnfitKey, bundle},
    error::LoadError,
    excerpt::Excerpt,
    explain::{Decision, Explanation},
    files::File,
    metrics::Metrics,
    needs::Needs,
    offer::Offer,
    origin::Origin,
    own::OwnPage,
    rules::{Feed, Outcome, Rules},
};
use self::{sheet::Sheet, sources::Sources};
use crate::{catalog::Catalog, identity::Bindings, policy::Policy};

/// One consistent set of rules.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// Who may do what.
    pub policy: Policy,
    /// Which workload may speak for whom.
    pub bindings: Bindings,
    /// What there is to be done, and where.
    pub catalog: Catalog,
    /// Names the content of the files, in 12 hexadecimal digits.
    pub revision: Arc<str>,
    rule_lines: HashMap<String, String>,
    /// What it was read from.
    files: Vec<File>,
    sheets: OnceLock<Vec<Sheet>>,
    summary: Summary,
}

/// What a policy is made of, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Names the content of the files.
    pub revision: Arc<str>,
    /// Files read.
    pub files: usize,
    /// `Role` documents.
    pub roles: usize,
    /// `Binding` documents.
    pub bindings: usize,
    /// `Connector` documents.
    pub connectors: usize,
    /// Operations of all connectors.
    pub operations: usize,
}

impl Ruleset {
    /// Reads files and folders (any depth, `*.yaml` and `*.yml`, several documents a file), and signed bundles.
    ///
    /// # Errors
    /// All that is wrong, also that a path does not exist.
    pub fn load(origins: &[impl Clone + Into<Origin>]) -> Result<Self, LoadError> {
        let origins: Vec<Origin> = origins.iter().cloned().map(Into::into).collect();
        Self::from_files(Sources::read(&origins).files)
    }

    /// What it is made of.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }
}

/// `policy check`: reads a policy as the proxy would.
///
/// # Errors
/// All that is wrong.
pub fn check(origins: &[Origin]) -> Result<Summary, LoadError> {
    Ruleset::load(origins).map(|ruleset| ruleset.summary)
}
