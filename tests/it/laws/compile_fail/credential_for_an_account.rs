//! An account is not enough to obtain its credential: the resolver wants a permit.
use std::sync::Arc;

use keybearer::{catalog::Connector, credential::Resolver, id::AccountKey};

async fn obtain(resolver: &Resolver, account: &AccountKey, connector: &Arc<Connector>) {
    let _ = resolver.resolve(account, connector, None).await;
}

fn main() {}
