//! The users that identity providers told of, kept in the vault, and what follows for their accounts.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Client, attributes::Attributes, error::Error, filter::Equals};
use crate::{
    admin::{Desk, Error as AdminError},
    audit::{Event, Kind},
    drain::Drain,
    id::{TenantId, UserId},
    secret,
    vault::{self, Fact, FactKey, FactKind, Hold, Lift, Source, Whole},
};

/// How often a change is tried again when another replica's came in between.
const ATTEMPTS: usize = 8;

/// A user as kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) attributes: Attributes,
    /// The names that this user has and had here: who is renamed leaves accounts behind under the old name. A name
    /// that another user takes is that one's.
    names: BTreeSet<UserId>,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
}

/// A user with what names the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: String,
    generation: u64,
    pub(super) record: Record,
}

impl User {
    pub(super) fn fits(&self, filter: &Equals) -> bool {
        filter.fits_id(&self.id) || filter.fits(self.record.attributes.as_map())
    }

    fn read(fact: &Fact) -> Result<Self, Error> {
        // The reader's error is dropped: it may quote what it read.
        let record = serde_json::from_slice(&fact.text).map_err(|_| {
            tracing::error!(
                user = fact.key.name,
                "a user that SCIM told of was written by a newer keybearer"
            );
            Error::Unavailable
        })?;
        Ok(Self { id: fact.key.name.clone(), generation: fact.generation, record })
    }
}

/// Every tenant's users. Cloning is cheap.
#[derive(Clone)]
pub(in crate::admin) struct Directory {
    pub(in crate::admin) desk: Desk,
    drain: Drain,
    /// One change at a time: what follows for the accounts must follow from the last one.
    changing: Arc<Mutex<()>>,
}

impl Directory {
    pub(in crate::admin) fn new(desk: Desk, drain: Drain) -> Self {
        Self { desk, drain, changing: Arc::default() }
    }

    /// The names of the users whom an identifier or address means; none where nobody told of such a user.
    pub(in crate::admin) async fn named(
        &self,
        tenant: &TenantId,
        text: &str,
    ) -> Result<BTreeSet<UserId>, AdminError> {
        let users = self.users(tenant).await.map_err(|_| AdminError::Interrupted)?;
        let means = |user: &User| {
            let attributes = &user.record.attributes;
            let mut texts = attributes.emails();
            texts.push(attributes.user_name());
            attributes.external_id() == Some(text) || texts.iter().any(|one| one.eq_ignore_ascii_case(text))
        };
        Ok(users.into_iter().filter(means).flat_map(|user| user.record.names).collect())
    }

    pub(super) async fn users(&self, tenant: &TenantId) -> Result<Vec<User>, Error> {
        let facts = self.desk.vault().facts(FactKind::User, Some(tenant)).await.map_err(unavailable)?;
        facts.iter().map(User::read).collect()
    }

    pub(super) async fn user(&self, tenant: &TenantId, id: &str) -> Result<Option<User>, Error> {
        let Some(key) = key(tenant, id) else { return Ok(None) };
        let fact = self.desk.vault().fact(&key).await.map_err(unavailable)?;
        fact.as_ref().map(User::read).transpose()
    }

    pub(super) async fn create(&self, client: Client, attributes: Attributes) -> Result<User, Error> {
        self.uncancelled(|directory| async move {
            let users = directory.users(&client.tenant).await?;
            unique(&users, None, &attributes)?;
            let (now, names) = (Timestamp::now(), client.user.name(&attributes).into_iter().collect());
            let record = Record { attributes, names, created: now, modified: now };
            let user = User { id: Uuid::now_v7().to_string(), generation: 1, record };
            directory.settle(&client, &users, user, None, "scim.user_added").await?.ok_or(Error::Unavailable)
        })
        .await
    }

    /// Changes a user; `edit` makes the attributes anew from those before.
    pub(super) async fn change<F>(&self, client: Client, id: String, edit: F) -> Result<User, Error>
    where
        F: Fn(&Attributes) -> Result<Attributes, Error> + Send + Sync + 'static,
    {
        self.uncancelled(|directory| async move {
            for _ in 0..ATTEMPTS {
                let mut user = directory.user(&client.tenant, &id).await?.ok_or(Error::Missing)?;
                let before = user.generation;
                user.record.attributes = edit(&user.record.attributes)?;
                user.record.names.extend(client.user.name(&user.record.attributes));
                user.record.modified = Timestamp::now();
                user.generation += 1;
                let users = directory.users(&client.tenant).await?;
                unique(&users, Some(&user.id), &user.record.attributes)?;
                let settled =
                    directory.settle(&client, &users, user, Some(before), "scim.user_changed").await?;
                if let Some(user) = settled {
                    return Ok(user);
                }
            }
            Err(Error::Unavailable)
        })
        .await
    }

    /// Forgets a user, whose accounts stay frozen until SCIM tells of such a user again or an operator releases them.
    pub(super) async fn delete(&self, client: Client, id: String) -> Result<(), Error> {
        self.uncancelled(|directory| async move {
            for _ in 0..ATTEMPTS {
                let user = directory.user(&client.tenant, &id).await?.ok_or(Error::Missing)?;
                directory.freeze(&client.tenant, &user.record.names).await?;
                directory.record(&client, &user, "scim.user_removed").await?;
                let key = key(&client.tenant, &id).ok_or(Error::Missing)?;
                let deleted = directory.desk.vault().delete_fact(&key, user.generation).await;
                if deleted.map_err(unavailable)? {
                    return Ok(());
                }
            }
            Err(Error::Unavailable)
        })
        .await
    }

    /// Freezes, keeps, unfreezes, in this order: whatever fails, nobody is left free who should not be. `None` where
    /// another replica was first.
    async fn settle(
        &self,
        client: &Client,
        users: &[User],
        user: User,
        expected: Option<u64>,
        event: &'static str,
    ) -> Result<Option<User>, Error> {
        let (tenant, record) = (&client.tenant, &user.record);
        if !record.attributes.is_active() {
            self.freeze(tenant, &record.names).await?;
        }
        self.record(client, &user, event).await?;
        if !self.keep(tenant, &user, expected).await? {
            return Ok(None);
        }
        self.take_names(tenant, users, &user).await?;
        if record.attributes.is_active() {
            self.unfreeze(tenant, &record.names).await?;
        }
        Ok(Some(user))
    }

    /// Takes this user's names from those who had them before.
    async fn take_names(&self, tenant: &TenantId, users: &[User], user: &User) -> Result<(), Error> {
        let others = users.iter().filter(|other| other.id != user.id);
        for other in others.filter(|other| !other.record.names.is_disjoint(&user.record.names)) {
            let mut other = other.clone();
            other.record.names.retain(|name| !user.record.names.contains(name));
            let before = other.generation;
            other.generation += 1;
            self.keep(tenant, &other, Some(before)).await?;
        }
        Ok(())
    }

    async fn keep(&self, tenant: &TenantId, user: &User, expected: Option<u64>) -> Result<bool, Error> {
        let key = key(tenant, &user.id).ok_or(Error::Missing)?;
        let text = secret::to_json(&user.record).map_err(|_| Error::Unavailable)?;
        self.desk.vault().put_fact(&key, expected, &text).await.map_err(unavailable)
    }

    async fn freeze(&self, tenant: &TenantId, names: &BTreeSet<UserId>) -> Result<(), Error> {
        for name in names {
            let whose = Whole::of_user(tenant, name);
            let hold = Hold { source: Source::Scim, by: "scim".to_owned(), since: Timestamp::now() };
            self.desk.hold(&whose, hold).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn unfreeze(&self, tenant: &TenantId, names: &BTreeSet<UserId>) -> Result<(), Error> {
        for name in names {
            let lift = Lift::Of { source: Source::Scim, until: None };
            self.desk.lift(&Whole::of_user(tenant, name), lift).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn record(&self, client: &Client, user: &User, event: &'static str) -> Result<(), Error> {
        let state = if user.record.attributes.is_active() { "active" } else { "not active" };
        let event = Event {
            tenant: Some(client.tenant.clone()),
            user: client.user.name(&user.record.attributes),
            detail: Some(format!("user {} ({state})", user.id).into()),
            ..Event::of(Kind::Account, event)
        };
        self.desk.audit().record(event).await.map_err(|error| {
            tracing::error!(%error, "what SCIM told cannot be recorded, so it is not done");
            Error::Unavailable
        })
    }

    /// Runs a change to its end, even if the client hangs up.
    async fn uncancelled<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (changing, work) = (Arc::clone(&self.changing), work(self.clone()));
        let done = self.drain.spawn(async move {
            let _only = changing.lock().await;
            work.await
        });
        done.await.map_err(|_| Error::Unavailable)?
    }
}

fn unique(users: &[User], own: Option<&str>, attributes: &Attributes) -> Result<(), Error> {
    let name = attributes.user_name().to_lowercase();
    let others = users.iter().filter(|user| Some(user.id.as_str()) != own);
    let taken =
        others.map(|user| user.record.attributes.user_name().to_lowercase()).any(|other| other == name);
    if taken { Err(Error::Uniqueness) } else { Ok(()) }
}

/// `None` for what is none of our identifiers.
fn key(tenant: &TenantId, id: &str) -> Option<FactKey> {
    let id: Uuid = id.parse().ok()?;
    Some(FactKey { tenant: tenant.clone(), kind: FactKind::User, name: id.to_string() })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: vault::Error) -> Error {
    tracing::error!(%error, "what SCIM told could not be done");
    Error::Unavailable
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: AdminError) -> Error {
    tracing::error!(%error, "what SCIM told could not be done");
    Error::Unavailable
}
