//! Looking at accounts for who only asks how they stand.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use super::{Credential, Error, Resolver, resolver::Seen};
use crate::{catalog::Connector, id::AccountKey, policy::Permit};

/// Many looks at the accounts of one identity, each of which is asked for once, however many operations would use it.
pub struct Survey {
    resolver: Resolver,
    seen: HashMap<AccountKey, Result<Seen, Arc<Error>>>,
}

impl Survey {
    /// A survey of what this resolver has.
    #[must_use]
    pub fn new(resolver: &Resolver) -> Self {
        Self { resolver: resolver.clone(), seen: HashMap::new() }
    }

    /// What [`Resolver::resolve`] would say to a request, without asking a provider for anything.
    ///
    /// # Errors
    /// As there.
    pub async fn look(
        &mut self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
    ) -> Result<Arc<Credential>, Arc<Error>> {
        let seen = match self.seen.entry(permit.account().clone()) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(place) => {
                place.insert(self.resolver.look(permit, connector).await.map_err(Arc::new))
            }
        };
        seen.as_ref().map_err(Arc::clone)?.credential(permit, captured)
    }
}
