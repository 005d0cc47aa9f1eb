//! Looking at accounts for who only asks how they stand.

use std::{collections::HashMap, sync::Arc};

use super::{Credential, Error, Resolver};
use crate::{catalog::Connector, id::AccountKey, policy::Permit};

/// Many looks at the accounts of one identity, with each account opened at most once.
pub struct Survey {
    resolver: Resolver,
    /// The accounts that no request can use; those that some can are in the resolver's cache.
    refused: HashMap<AccountKey, Arc<Error>>,
}

impl Survey {
    /// A survey of what this resolver has.
    #[must_use]
    pub fn new(resolver: &Resolver) -> Self {
        Self { resolver: resolver.clone(), refused: HashMap::new() }
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
        if let Some(error) = self.refused.get(permit.account()) {
            return Err(Arc::clone(error));
        }
        self.resolver.look(permit, connector, captured).await.map_err(|error| {
            let is_of_account = error.is_of_account();
            let error = Arc::new(error);
            if is_of_account {
                self.refused.insert(permit.account().clone(), Arc::clone(&error));
            }
            error
        })
    }
}
