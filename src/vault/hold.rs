//! Freezing as a whole: all accounts of a tenant, or of one of its users, those that come later among them.
//!
//! A hold is a fact of its own and changes no account. Whoever made it is kept, so that an identity provider lifts only
//! what it did itself.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, Fact, FactKey, FactKind, Vault};
use crate::{
    id::{AccountKey, Principal, TenantId, UserId},
    secret,
};

/// How often a change is tried again when another one came in between.
const ATTEMPTS: usize = 16;

/// Says that a hold is there and no more: then it holds, until an operator lifts it whoever made it.
const UNREADABLE: &str = "a hold that does not open";

/// Whose accounts, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Whole {
    tenant: TenantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tenant: TenantId,
    #[serde(default)]
    user: Option<UserId>,
}

impl From<Written> for Whole {
    fn from(Written { tenant, user }: Written) -> Self {
        match user {
            Some(user) => Self::of_user(&tenant, &user),
            None => Self::of_tenant(tenant),
        }
    }
}

impl Whole {
    /// Every account of a tenant.
    #[must_use]
    pub const fn of_tenant(tenant: TenantId) -> Self {
        Self { tenant, user: None }
    }

    /// Every account of a user. Identity providers and agents may write one name in two cases: it is one user.
    #[must_use]
    pub fn of_user(tenant: &TenantId, user: &UserId) -> Self {
        let lower = UserId::new(&user.as_str().to_ascii_lowercase());
        Self { tenant: tenant.clone(), user: Some(lower.unwrap_or_else(|_| user.clone())) }
    }

    /// The customer organisation.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The user, in lower case, where it is not the whole tenant.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether an account is among them.
    #[must_use]
    pub fn has(&self, key: &AccountKey) -> bool {
        self.tenant == key.tenant
            && match (&self.user, &key.principal) {
                (None, _) => true,
                (Some(user), Principal::User { user: own, .. }) => {
                    user.as_str().eq_ignore_ascii_case(own.as_str())
                }
                (Some(_), _) => false,
            }
    }

    /// The tenant as a whole, and the user where the account is one's.
    fn around(key: &AccountKey) -> impl Iterator<Item = Self> {
        let user = match &key.principal {
            Principal::User { user, .. } => Some(Self::of_user(&key.tenant, user)),
            Principal::Developer | Principal::Tenant | Principal::Role(_) => None,
        };
        [Some(Self::of_tenant(key.tenant.clone())), user].into_iter().flatten()
    }

    fn key(&self) -> FactKey {
        let name = self.user.as_ref().map_or_else(String::new, ToString::to_string);
        FactKey { tenant: self.tenant.clone(), kind: FactKind::Hold, name }
    }

    /// Whose hold a fact is; `None` where it is none.
    #[must_use]
    pub fn of_fact(key: &FactKey) -> Option<Self> {
        let user = if key.name.is_empty() { None } else { Some(UserId::new(&key.name).ok()?) };
        (key.kind == FactKind::Hold).then(|| Self { tenant: key.tenant.clone(), user })
    }
}

impl fmt::Display for Whole {
    /// `tenant acme`, `user alice of tenant acme`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.as_ref().map_or(Ok(()), |user| write!(f, "user {user} of "))?;
        write!(f, "tenant {}", self.tenant)
    }
}

/// Who made a hold, and may lift it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Who runs the proxy.
    Operator,
    /// The tenant's identity provider, over SCIM.
    Scim,
    /// A transmitter of security events, by its issuer.
    Ssf(String),
}

/// One reason why accounts are frozen as a whole. Each source has at most one for the same accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Who made it.
    pub source: Source,
    /// Who it is told to be by.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// Which holds are lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lift {
    /// That of one source, if it is not younger than this.
    Of {
        /// Whose.
        source: Source,
        /// How young it may be; `None` for any.
        until: Option<Timestamp>,
    },
    /// All, whoever made them.
    All,
}

impl Lift {
    /// Whether this hold is among them.
    #[must_use]
    pub fn lifts(&self, hold: &Hold) -> bool {
        match self {
            Self::Of { source, until } => {
                hold.source == *source && until.is_none_or(|until| hold.since <= until)
            }
            Self::All => true,
        }
    }
}

/// Every hold of a tenant, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds(BTreeMap<Whole, Vec<Hold>>);

impl Holds {
    /// Why an account is frozen, whatever its own status is.
    #[must_use]
    pub fn on(&self, key: &AccountKey) -> Option<(Whole, &Hold)> {
        Whole::around(key).find_map(|whole| {
            let hold = self.0.get(&whole)?.first()?;
            Some((whole, hold))
        })
    }

    /// All of them, in the order of whom they are about.
    pub fn iter(&self) -> impl Iterator<Item = (&Whole, &Hold)> {
        self.0.iter().flat_map(|(whole, holds)| holds.iter().map(move |hold| (whole, hold)))
    }
}

/// What is sealed. An unknown field is an error, because writing it back would lose it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    holds: Vec<Hold>,
}

impl Vault {
    /// Freezes accounts as a whole. Says whether this source had not done so before; if it had, the hold is as young as
    /// the younger of the two.
    ///
    /// # Errors
    /// Where the store fails, or others keep changing the same hold.
    pub async fn hold(&self, whose: &Whole, hold: Hold) -> Result<bool, Error> {
        let key = whose.key();
        for _ in 0..ATTEMPTS {
            let (generation, mut holds) = self.read_hold(&key).await?;
            let own = holds.iter_mut().find(|other| other.source == hold.source);
            let is_new = own.is_none();
            match own {
                Some(own) if own.since >= hold.since => return Ok(false),
                Some(own) => own.since = hold.since,
                None => holds.push(hold.clone()),
            }
            if self.write_hold(&key, generation, holds).await? {
                return Ok(is_new);
            }
        }
        Err(Error::Busy)
    }

    /// Lifts holds, and returns those that it lifted. Accounts that are frozen themselves stay so.
    ///
    /// # Errors
    /// Where the store fails, or others keep changing the same hold.
    pub async fn lift(&self, whose: &Whole, lift: &Lift) -> Result<Vec<Hold>, Error> {
        let key = whose.key();
        for _ in 0..ATTEMPTS {
            let (generation, holds) = self.read_hold(&key).await?;
            let (lifted, kept): (Vec<Hold>, Vec<Hold>) = holds.into_iter().partition(|hold| lift.lifts(hold));
            if lifted.is_empty() || self.write_hold(&key, generation, kept).await? {
                return Ok(lifted);
            }
        }
        Err(Error::Busy)
    }

    /// The holds on the same accounts.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn holds_of(&self, whose: &Whole) -> Result<Vec<Hold>, Error> {
        Ok(self.read_hold(&whose.key()).await?.1)
    }

    /// Every hold of a tenant, or of all.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn holds(&self, tenant: Option<&TenantId>) -> Result<Holds, Error> {
        let facts = self.opened_facts(FactKind::Hold, tenant).await?;
        let held = facts.into_iter().filter_map(|(key, fact)| Some((Whole::of_fact(&key)?, read(fact))));
        Ok(Holds(held.collect()))
    }

    /// Why an account is frozen, whatever its own status is: also where there is no such account.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn held(&self, key: &AccountKey) -> Result<Option<Hold>, Error> {
        for whole in Whole::around(key) {
            if let Some(hold) = self.read_hold(&whole.key()).await?.1.into_iter().next() {
                return Ok(Some(hold));
            }
        }
        Ok(None)
    }

    /// The generation, where there is a fact, and its holds.
    async fn read_hold(&self, key: &FactKey) -> Result<(Option<u64>, Vec<Hold>), Error> {
        match self.fact(key).await {
            Ok(None) => Ok((None, Vec::new())),
            Ok(Some(fact)) => Ok((Some(fact.generation), read(Ok(fact)))),
            Err(unopened @ Error::Unopened { .. }) => {
                let row = self.0.store.fact(key).await?;
                Ok((row.map(|row| row.generation), read(Err(unopened))))
            }
            Err(error) => Err(error),
        }
    }

    async fn write_hold(
        &self,
        key: &FactKey,
        generation: Option<u64>,
        holds: Vec<Hold>,
    ) -> Result<bool, Error> {
        match generation {
            Some(generation) if holds.is_empty() => self.delete_fact(key, generation).await,
            generation => {
                let cannot = |_| Error::CannotSeal(format!("the hold on {}", key.tenant));
                let text = secret::to_json(&Record { holds }).map_err(cannot)?;
                self.put_fact(key, generation, &text).await
            }
        }
    }
}

/// What a fact holds. One that cannot be read holds, too.
fn read(fact: Result<Fact, Error>) -> Vec<Hold> {
    let record = fact.ok().and_then(|fact| serde_json::from_slice::<Record>(&fact.text).ok());
    let unreadable =
        || vec![Hold { source: Source::Operator, by: UNREADABLE.to_owned(), since: Timestamp::UNIX_EPOCH }];
    record.map_or_else(unreadable, |record| record.holds)
}
