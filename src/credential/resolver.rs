//! The way from a permit to a credential: what is known, or else the source of accounts, or else the provider.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Credential, Error, Local, Permit, Remote, Trouble,
    cache::{Cache, Draft, Entry, Holder, Withheld},
    found::{Fields, Found, Gives},
    refresh::token_host,
    render::{nothing, render},
    source::{Asked, Refused, Source},
};
use crate::{
    catalog::{AuthType, Connector},
    id::AccountKey,
    vault::{Change, Vault},
};

/// Resolves permits to credentials. Cloning is cheap.
#[derive(Clone)]
pub struct Resolver {
    source: Arc<dyn Source>,
    cache: Arc<Cache>,
}

impl Resolver {
    /// A resolver that reads accounts from this vault when they are first used, and refreshes nothing.
    #[must_use]
    pub fn new(vault: Arc<Vault>) -> Self {
        Self::local(Local::new(vault))
    }

    /// One that has its accounts, and its tokens where it is a refreshing one, from this process.
    #[must_use]
    pub fn local(source: Local) -> Self {
        Self::over(Arc::new(source))
    }

    /// One that has its accounts and its tokens from a broker. [`Remote::follow`] tells it of changes.
    #[must_use]
    pub fn remote(source: Remote) -> Self {
        Self::over(Arc::new(source))
    }

    /// Where a person reads how to connect the account, if not at this process.
    #[must_use]
    pub fn reconnect_url(&self, key: &AccountKey) -> Option<Arc<str>> {
        self.source.reconnect_url(key)
    }

    fn over(source: Arc<dyn Source>) -> Self {
        Self { source, cache: Arc::default() }
    }

    /// The credential of the permit's account. `captured` is what the request's host left open in the
    /// connector's pattern, and must be what the account's metadata says.
    ///
    /// While the account has a token that works, this waits for nobody and takes no lock.
    ///
    /// # Errors
    /// [`Error`], each a refusal of its own; nothing is ever injected in place of what is missing.
    pub async fn resolve(
        &self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
    ) -> Result<Arc<Credential>, Error> {
        if connector.auth.kind == AuthType::None {
            return Ok(Arc::new(nothing(connector)));
        }
        let asked = Asked::by(permit, connector);
        let entry = self.entry(asked).await?;
        let credential = given(&entry)?;
        check(&entry.holder, permit, captured)?;
        if entry.touch() {
            self.source.wake(asked);
        }
        Ok(credential)
    }

    /// Another credential for a request that the provider refused with 401, to send it once more; `None` where there
    /// is none, or another token would be refused as well.
    ///
    /// Only if nobody has replaced it, one refresh is asked for, and none for a token that is too young to have ended.
    pub async fn challenged(
        &self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
        refused: &Credential,
    ) -> Option<Arc<Credential>> {
        let before = Refused { generation: refused.generation, obtained: refused.obtained };
        let is_another = self.source.challenged(Asked::by(permit, connector), before).await;
        is_another.then_some(())?;
        self.cache.forget(permit.account());
        let credential = self.resolve(permit, connector, captured).await.ok()?;
        (credential.obtained.is_none() || credential.obtained != refused.obtained).then_some(credential)
    }

    /// The account with what there is of it and nothing else: no provider is asked. Where the token has ended and a
    /// request would wait for another, or its secrets are not for who only looks, the credential is an empty one,
    /// which says only where it goes.
    pub(super) async fn look(&self, permit: &Permit, connector: &Arc<Connector>) -> Result<Seen, Error> {
        if connector.auth.kind == AuthType::None {
            return Ok(Seen { holder: None, given: Ok(Arc::new(nothing(connector))) });
        }
        if let Some(entry) = self.cache.get(permit.account()).filter(|entry| entry.serves(connector)) {
            return Ok(Seen { holder: Some(entry.holder.clone()), given: given(&entry).map_err(Arc::new) });
        }
        let found = self.source.look(Asked::by(permit, connector)).await?;
        let given = match &found.gives {
            Gives::Fields(Fields { secrets: Some(secrets), obtained, .. }) => {
                render(&found.account, connector, secrets, *obtained)
            }
            Gives::Closed(closed, _) => {
                Err(Error::Closed { account: found.account.key.clone(), closed: *closed })
            }
            Gives::Fields(_) | Gives::Over(_) => {
                let target = connector.target(&found.account.metadata);
                Ok(Credential { target, ..nothing(connector) })
            }
        };
        Ok(Seen { holder: Some(found.account.into()), given: given.map(Arc::new).map_err(Arc::new) })
    }

    /// Forgets what has changed: the next request reads it again. Says which accounts have a place here.
    ///
    /// [`Resolver::end`] is to be called for them, which may have to wait.
    #[must_use]
    pub fn forget(&self, change: &Change) -> Vec<AccountKey> {
        self.source.changed(change);
        match change {
            Change::Account(key) if self.cache.forget(key) => vec![key.clone()],
            Change::Account(_) => Vec::new(),
            Change::Whole(whose) => self.cache.forget_all(|known| whose.has(known)),
            Change::Unknown => self.cache.forget_all(|_| true),
        }
    }

    /// Ends the open streams of those of the accounts that may no longer be used. Of a tenant or user as a whole, those
    /// end where it is frozen or nobody can tell.
    pub async fn end(&self, change: &Change, known: &[AccountKey]) {
        if let Change::Whole(whose) = change
            && let Some(are_over) = self.source.are_over(whose).await
        {
            self.cache.end(if are_over { known } else { &[] });
            return;
        }
        for key in known {
            if self.source.is_over(key).await {
                self.cache.end(std::slice::from_ref(key));
            }
        }
    }

    /// Forgets an account that has changed; if it may no longer be used, ends its open streams.
    pub async fn changed(&self, key: &AccountKey) {
        self.follow(&Change::Account(key.clone())).await;
    }

    /// Forgets what has changed, and ends the open streams of what may no longer be used.
    pub async fn follow(&self, change: &Change) {
        let known = self.forget(change);
        self.end(change, &known).await;
    }

    /// Forgets accounts that no request has used since this was called before: their secrets, and what it takes to
    /// hold them. The next request reads them again. Open streams still end when their account is frozen.
    pub fn tidy(&self) {
        self.cache.tidy();
        self.source.tidy(&|key| self.cache.has(key));
    }

    async fn entry(&self, asked: Asked<'_>) -> Result<Arc<Entry>, Error> {
        let entry = match self.cache.get(asked.key).filter(|entry| entry.serves(asked.connector)) {
            Some(entry) => entry,
            None => Box::pin(self.read(asked)).await?,
        };
        if entry.falls_due() {
            self.source.wake(asked);
        }
        Ok(entry)
    }

    /// Reads the account, and waits for a token where it has none that works.
    async fn read(&self, asked: Asked<'_>) -> Result<Arc<Entry>, Error> {
        self.source.settled(asked.key).await;
        let mut tried = None;
        loop {
            let before = self.cache.forgotten(asked.key);
            let found = self.source.find(asked).await?;
            if matches!(found.gives, Gives::Over(None)) && tried.is_none() {
                tried = Some(self.source.renewed(asked.key).await);
                continue;
            }
            if let Some(entry) = self.cache.remember(draft(found, asked.connector, tried.flatten())?, before)
            {
                return Ok(entry);
            }
        }
    }
}

/// An account as who only looks sees it.
pub(super) struct Seen {
    /// `None` where the connector needs no account.
    holder: Option<Holder>,
    given: Result<Arc<Credential>, Arc<Error>>,
}

impl Seen {
    /// What [`Resolver::resolve`] would say to a request.
    pub(super) fn credential(
        &self,
        permit: &Permit,
        captured: Option<(&str, &str)>,
    ) -> Result<Arc<Credential>, Arc<Error>> {
        if let Some(holder) = &self.holder {
            check(holder, permit, captured)?;
        }
        self.given.clone()
    }
}

fn draft(found: Found, connector: &Arc<Connector>, tried: Option<Trouble>) -> Result<Draft, Error> {
    let withheld = |why, until| (Err(why), Fields { until, ..Fields::default() });
    let Found { account, gives } = found;
    let (given, fields) = match gives {
        Gives::Fields(mut fields) => {
            let secrets = fields.secrets.take().unwrap_or_default();
            (Ok(render(&account, connector, &secrets, fields.obtained)?), fields)
        }
        Gives::Closed(closed, until) => withheld(Withheld::Closed(closed), until),
        Gives::Over(trouble) => {
            let trouble = trouble.or(tried).unwrap_or(Trouble::Busy);
            withheld(Withheld::Trouble(trouble), Some(Instant::now() + trouble.rest()))
        }
    };
    let Fields { until, due, used, superseded, .. } = fields;
    let connector = Arc::clone(connector);
    Ok(Draft { holder: account.into(), connector, given, until, due, used, superseded })
}

fn given(entry: &Entry) -> Result<Arc<Credential>, Error> {
    let holder = &entry.holder;
    match &entry.given {
        Ok(credential) => Ok(Arc::clone(credential)),
        Err(Withheld::Closed(closed)) => Err(Error::Closed { account: holder.key.clone(), closed: *closed }),
        Err(Withheld::Trouble(trouble)) => {
            let host = token_host(&entry.connector, &|name| holder.metadata(name));
            Err(Error::NoToken { host, trouble: *trouble })
        }
    }
}

fn check(holder: &Holder, permit: &Permit, captured: Option<(&str, &str)>) -> Result<(), Error> {
    if let Some((name, value)) = captured {
        let expected = holder.metadata(name);
        if expected.is_none_or(|expected| !expected.eq_ignore_ascii_case(value)) {
            return Err(Error::Host { name: name.to_owned(), expected: expected.map(str::to_owned) });
        }
    }
    match &holder.scopes {
        Some(granted) if !permit.scopes().iter().all(|s| granted.contains(s)) => Err(Error::Scopes {
            account: holder.key.clone(),
            required: permit.scopes().to_vec(),
            granted: granted.iter().cloned().collect(),
        }),
        _ => Ok(()),
    }
}
