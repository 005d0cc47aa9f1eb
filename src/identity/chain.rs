//! One chain, one tenant and one user: pinned at its first action.

use std::fmt;

use quick_cache::{Equivalent, sync::Cache};

use super::{Error, Identity, Workload};
use crate::id::{ChainId, TenantId, UserId};

/// How many chains are remembered. A chain in use stays; one that was not used for this many others is
/// forgotten, and would be pinned anew.
const CHAINS: usize = 16_384;

/// Whose a chain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The customer organisation.
    pub tenant: TenantId,
    /// The end user, where there is one.
    pub user: Option<UserId>,
}

/// The chains that run, and whose each is. Roles are not pinned: each hop acts with its own.
pub(super) struct Chains {
    pins: Cache<ChainKey, Pinned>,
}

/// A chain's name is the workload's own, so that one workload cannot take another's.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ChainKey {
    workload: Workload,
    chain: ChainId,
}

/// [`ChainKey`], borrowed; it must hash alike.
#[derive(Hash)]
struct ChainRef<'a> {
    workload: &'a Workload,
    chain: &'a ChainId,
}

impl Default for Chains {
    fn default() -> Self {
        Self::with_capacity(CHAINS)
    }
}

impl Chains {
    fn with_capacity(chains: usize) -> Self {
        Self { pins: Cache::new(chains) }
    }

    /// Pins the chain at its first action and compares at every later one.
    pub(super) fn pin(&self, identity: &Identity, workload: &Workload) -> Result<(), Error> {
        let Some(chain) = &identity.chain else { return Ok(()) };
        let pinned = match self.pins.get(&ChainRef { workload, chain }) {
            Some(pinned) => pinned,
            None => self.first(identity, workload, chain),
        };
        if pinned.tenant == identity.subject.tenant && pinned.user == identity.subject.user {
            return Ok(());
        }
        Err(Error::Drift { chain: chain.clone(), pinned })
    }

    /// Of several first actions at once, one pins the chain and the others see whose it became.
    fn first(&self, identity: &Identity, workload: &Workload, chain: &ChainId) -> Pinned {
        let key = ChainKey { workload: workload.clone(), chain: chain.clone() };
        let own = Pinned { tenant: identity.subject.tenant.clone(), user: identity.subject.user.clone() };
        let Ok(pinned) = self.pins.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(own));
        pinned
    }
}

impl Equivalent<ChainKey> for ChainRef<'_> {
    fn equivalent(&self, key: &ChainKey) -> bool {
        *self.workload == key.workload && *self.chain == key.chain
    }
}

impl fmt::Display for Pinned {
    /// `tenant acme, user alice`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}", self.tenant)?;
        match &self.user {
            Some(user) => write!(f, ", user {user}"),
            None => f.write_str(" without a user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::{
        super::fixture::{name, subject},
        *,
    };

    fn asks(tenant: &str, role: &str, user: Option<&str>, chain: Option<&str>) -> Identity {
        Identity {
            subject: subject(tenant, role, user),
            agent: None,
            delegation: vec![],
            chain: chain.map(name),
        }
    }

    fn pinned(result: Result<(), Error>) -> String {
        match result {
            Ok(()) => "ok".into(),
            Err(Error::Drift { pinned, .. }) => pinned.to_string(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn another_tenant_or_user_on_the_chain_is_drift_and_another_role_is_not() {
        let chains = Chains::default();
        let pin = |identity: Identity| pinned(chains.pin(&identity, &Workload::Local));
        assert_eq!(pin(asks("acme", "researcher", Some("alice"), Some("run-42"))), "ok");
        assert_eq!(pin(asks("acme", "publisher", Some("alice"), Some("run-42"))), "ok");
        assert_eq!(
            pin(asks("globex", "researcher", Some("alice"), Some("run-42"))),
            "tenant acme, user alice"
        );
        assert_eq!(pin(asks("acme", "researcher", Some("bob"), Some("run-42"))), "tenant acme, user alice");
        assert_eq!(pin(asks("acme", "researcher", None, Some("run-42"))), "tenant acme, user alice");
        assert_eq!(pin(asks("acme", "researcher", Some("alice"), Some("run-42"))), "ok");
    }

    #[test]
    fn a_chain_begun_without_a_user_does_not_gain_one() {
        let chains = Chains::default();
        assert_eq!(pinned(chains.pin(&asks("acme", "writer", None, Some("r")), &Workload::Local)), "ok");
        assert_eq!(
            pinned(chains.pin(&asks("acme", "writer", Some("alice"), Some("r")), &Workload::Local)),
            "tenant acme without a user"
        );
    }

    #[test]
    fn no_chain_pins_nothing_and_each_workload_has_its_own_names() {
        let chains = Chains::default();
        let crew = Workload::service_account("agents/crew").unwrap();
        assert_eq!(pinned(chains.pin(&asks("acme", "writer", None, None), &Workload::Local)), "ok");
        assert_eq!(pinned(chains.pin(&asks("globex", "writer", None, None), &Workload::Local)), "ok");
        assert_eq!(pinned(chains.pin(&asks("acme", "writer", None, Some("r")), &Workload::Local)), "ok");
        assert_eq!(pinned(chains.pin(&asks("globex", "writer", None, Some("r")), &crew)), "ok");
    }

    #[test]
    fn chains_are_bounded_and_one_in_use_outlives_a_flood() {
        let chains = Chains::with_capacity(256);
        let kept = asks("acme", "writer", None, Some("kept"));
        for n in 0..10_000 {
            chains.pin(&kept, &Workload::Local).unwrap();
            chains.pin(&asks("globex", "writer", None, Some(&format!("run-{n}"))), &Workload::Local).unwrap();
        }
        assert!(chains.pins.len() <= 256, "{}", chains.pins.len());
        let other = asks("globex", "writer", None, Some("kept"));
        assert_eq!(pinned(chains.pin(&other, &Workload::Local)), "tenant acme without a user");
    }

    #[test]
    fn of_two_principals_that_begin_a_chain_at_once_one_gets_it() {
        let chains = Chains::default();
        for round in 0..200 {
            let chain = format!("race-{round}");
            let (begun, held) = (Barrier::new(2), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for tenant in ["acme", "globex"] {
                    scope.spawn(|| {
                        let identity = asks(tenant, "writer", None, Some(&chain));
                        begun.wait();
                        held.fetch_add(
                            usize::from(chains.pin(&identity, &Workload::Local).is_ok()),
                            Ordering::Relaxed,
                        );
                    });
                }
            });
            assert_eq!(held.into_inner(), 1, "{chain}");
        }
    }
}
