//! The way from a permit to a credential: what is known, or else the vault, or else the provider.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Credential, Error, Needles, Permit, Signer, Trouble,
    cache::{Cache, Draft, Entry, Holder, Withheld},
    refresh::{Clock, Engine, Minted, Minting, Standing, standing, token_host},
};
use crate::{
    catalog::{AuthType, Connector, Injection, Template},
    id::AccountKey,
    secret::Secret,
    vault::{self, Account, Material, Status, Vault, Whole},
};

/// Resolves permits to credentials. Cloning is cheap.
#[derive(Clone)]
pub struct Resolver {
    vault: Arc<Vault>,
    cache: Arc<Cache>,
    engine: Option<Engine>,
}

impl Resolver {
    /// A resolver that reads accounts from this vault when they are first used, and refreshes nothing.
    #[must_use]
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault, cache: Arc::default(), engine: None }
    }

    /// The same with an engine, which gives it tokens where the vault's have ended.
    #[must_use]
    pub fn refreshing(self, engine: Engine) -> Self {
        Self { engine: Some(engine), ..self }
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
        let entry = self.entry(permit.account(), connector).await?;
        let credential = given(&entry)?;
        check(&entry.holder, permit, captured)?;
        if entry.touch()
            && let Some(engine) = &self.engine
        {
            engine.wake(permit.account());
        }
        Ok(credential)
    }

    /// Another credential for a request that the provider refused with 401, to send it once more; `None` where there
    /// is none, or another token would be refused as well.
    ///
    /// The vault is read first: another process may have replaced the token. Only if it has not, one refresh is asked
    /// for, and none for a token that is too young to have ended.
    pub async fn challenged(
        &self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
        refused: &Credential,
    ) -> Option<Arc<Credential>> {
        let key = permit.account();
        let now = self.vault.account(key).await.ok()??;
        let is_forced = !self.is_newer(&now, connector, refused);
        if is_forced {
            self.engine.as_ref()?.replaced(key, refused.obtained?).await.then_some(())?;
        }
        self.cache.forget(key);
        let credential = self.resolve(permit, connector, captured).await.ok()?;
        if is_forced && let (Some(engine), Some(obtained)) = (&self.engine, credential.obtained) {
            engine.was_forced(key, obtained);
        }
        (credential.obtained.is_none() || credential.obtained != refused.obtained).then_some(credential)
    }

    /// As [`Resolver::resolve`], with what the vault holds and nothing else: no provider is asked. Where the token has
    /// ended and a request would wait for another, the credential is an empty one, which says only where it goes.
    pub(super) async fn look(
        &self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
    ) -> Result<Arc<Credential>, Error> {
        if connector.auth.kind == AuthType::None {
            return Ok(Arc::new(nothing(connector)));
        }
        let key = permit.account();
        if let Some(entry) = self.cache.get(key).filter(|entry| entry.serves(connector)) {
            check(&entry.holder, permit, captured)?;
            return given(&entry);
        }
        let account = self.usable(key).await?;
        let found = self.found(&account, connector)?;
        let looked = match found.standing {
            Standing::Live(_) => render(&account, connector, found.minted.as_deref()),
            Standing::Closed(closed) => Err(Error::Closed { account: account.key.clone(), closed }),
            Standing::Over => {
                let target = connector.target(&account.metadata);
                Ok(Credential { target, ..nothing(connector) })
            }
        };
        check(&account.into(), permit, captured)?;
        looked.map(Arc::new)
    }

    /// Forgets every account: some have changed, and nobody knows which.
    pub async fn all_changed(&self) {
        self.drop_all_minted(|_| true);
        for key in self.cache.forget_all(|_| true) {
            self.end_unless_usable(&key).await;
        }
    }

    /// Forgets an account that has changed; if it may no longer be used, ends its open streams.
    pub async fn changed(&self, key: &AccountKey) {
        if let Some(engine) = &self.engine {
            engine.drop_minted(key);
        }
        if self.cache.forget(key) {
            self.end_unless_usable(key).await;
        }
    }

    /// Forgets all accounts of a tenant or user that was frozen or unfrozen as a whole; ends their open streams if it
    /// is frozen, or nobody can tell.
    pub async fn whole_changed(&self, whose: &Whole) {
        self.drop_all_minted(|known| whose.has(known));
        let known = self.cache.forget_all(|known| whose.has(known));
        match self.vault.holds_of(whose).await {
            Ok(holds) if holds.is_empty() => {}
            Err(error) if error.is_of_the_moment() => {}
            Ok(_) | Err(_) => self.cache.end(&known),
        }
    }

    /// Forgets accounts that no request has used since this was called before: their secrets, and what it takes to
    /// hold them. The next request reads them again. Open streams still end when their account is frozen.
    pub fn tidy(&self) {
        self.cache.tidy();
        if let Some(engine) = &self.engine {
            engine.tidy();
        }
    }

    /// What was minted for accounts that have changed is of no use to anybody.
    fn drop_all_minted(&self, is_meant: impl Fn(&AccountKey) -> bool) {
        if let Some(engine) = &self.engine {
            engine.drop_all_minted(is_meant);
        }
    }

    /// While the vault is away, streams go on: it tells of a change when it is back.
    async fn end_unless_usable(&self, key: &AccountKey) {
        let is_usable = async {
            let is_active = self.vault.account(key).await?.is_some_and(|now| now.status == Status::Active);
            Ok::<_, vault::Error>(is_active && self.vault.held(key).await?.is_none())
        };
        match is_usable.await {
            Ok(true) => {}
            Err(error) if error.is_of_the_moment() => {}
            Ok(false) | Err(_) => self.cache.end(std::slice::from_ref(key)),
        }
    }

    async fn entry(&self, key: &AccountKey, connector: &Arc<Connector>) -> Result<Arc<Entry>, Error> {
        let entry = match self.cache.get(key).filter(|entry| entry.serves(connector)) {
            Some(entry) => entry,
            None => Box::pin(self.read(key, connector)).await?,
        };
        if let Some(engine) = &self.engine
            && entry.falls_due()
        {
            engine.wake(key);
        }
        Ok(entry)
    }

    /// Reads the account, and waits for a token where it has none that works.
    async fn read(&self, key: &AccountKey, connector: &Arc<Connector>) -> Result<Arc<Entry>, Error> {
        if let Some(engine) = &self.engine {
            engine.recovered(key).await;
        }
        let mut trouble = None;
        loop {
            let before = self.cache.forgotten(key);
            let account = self.usable(key).await?;
            let found = self.found(&account, connector)?;
            if found.standing == Standing::Over && trouble.is_none() {
                trouble = Some(self.renewed(key).await);
                continue;
            }
            let kept =
                self.cache.remember(self.draft(account, connector, &found, trouble.flatten())?, before);
            if let Some(entry) = kept {
                return Ok(entry);
            }
        }
    }

    /// The account, if it may be used at all. Nothing that is held gets into the cache, so that a request finds it out
    /// there, without a lock.
    async fn usable(&self, key: &AccountKey) -> Result<Account, Error> {
        if let Some(hold) = self.vault.held(key).await? {
            return Err(Error::Frozen { by: hold.by });
        }
        let account = self.vault.account(key).await?.ok_or_else(|| Error::Missing(key.clone()))?;
        usable(&account)?;
        Ok(account)
    }

    /// What the account has to give. One that does not hold what its connector is made for gives nothing.
    fn found(&self, account: &Account, connector: &Connector) -> Result<Found, Error> {
        match &account.material {
            Material::Seed { .. } if connector.auth.may_mint() => Ok(self.minting(account, connector)),
            _ if connector.auth.kind.mints() => Err(Error::Unminted(connector.auth.kind)),
            Material::Static { .. } | Material::Seed { .. } => Ok(Found::of(Standing::Live(None))),
            Material::Oauth(grant) => Ok(Found::of(standing(grant, self.clock().now()))),
        }
    }

    fn minting(&self, account: &Account, connector: &Connector) -> Found {
        match self.engine.as_ref().map(|engine| engine.minting(account, connector)) {
            Some(Minting::Live(minted)) => {
                let standing = Standing::Live(minted.token.expires);
                Found { minted: Some(minted), ..Found::of(standing) }
            }
            Some(Minting::Refused(closed, until)) => {
                Found { until: Some(until), ..Found::of(Standing::Closed(closed)) }
            }
            Some(Minting::Over) | None => Found::of(Standing::Over),
        }
    }

    /// Waits for a token; says why there will be none for now.
    async fn renewed(&self, key: &AccountKey) -> Option<Trouble> {
        match &self.engine {
            Some(engine) => engine.renewed(key).await.err(),
            None => Some(Trouble::NoApp),
        }
    }

    fn draft(
        &self,
        account: Account,
        connector: &Arc<Connector>,
        found: &Found,
        trouble: Option<Trouble>,
    ) -> Result<Draft, Error> {
        let clock = self.clock();
        let minted = found.minted.as_deref();
        let account = narrowed(account, connector, minted);
        let (given, until) = match found.standing {
            Standing::Live(until) => {
                (Ok(render(&account, connector, minted)?), until.map(|until| clock.instant(until)))
            }
            Standing::Closed(closed) => (Err(Withheld::Closed(closed)), found.until),
            Standing::Over => {
                let trouble = trouble.unwrap_or(Trouble::Busy);
                (Err(Withheld::Trouble(trouble)), Some(Instant::now() + trouble.rest()))
            }
        };
        let engine = self.engine.as_ref().filter(|_| given.is_ok());
        let due = engine.and_then(|engine| match minted {
            Some(Minted { token, .. }) => engine.due_between(&account, token.obtained, token.expires),
            None => engine.due(&account),
        });
        let used = engine
            .filter(|_| !matches!(account.material, Material::Static { .. }))
            .map(|engine| engine.usage(&account.key));
        Ok(Draft {
            due: due.map(|due| clock.instant(due)),
            holder: account.into(),
            connector: Arc::clone(connector),
            given,
            until,
            used,
            superseded: minted.map(|minted| Arc::clone(&minted.superseded)),
        })
    }

    /// Whether there is another secret by now than the one that was refused.
    fn is_newer(&self, now: &Account, connector: &Connector, refused: &Credential) -> bool {
        let minted = match &now.material {
            Material::Seed { .. } => self.minting(now, connector).minted,
            Material::Static { .. } | Material::Oauth(_) => None,
        };
        match refused.obtained {
            Some(obtained) => obtained_at(now, minted.as_deref()) != Some(obtained),
            None => Some(now.generation) != refused.generation,
        }
    }

    fn clock(&self) -> Cow<'_, Clock> {
        self.engine
            .as_ref()
            .map_or_else(|| Cow::Owned(Clock::system()), |engine| Cow::Borrowed(engine.clock()))
    }
}

/// What an account has to give at present.
struct Found {
    standing: Standing,
    /// Until when the provider is not asked again, where it refuses.
    until: Option<Instant>,
    minted: Option<Arc<Minted>>,
}

impl Found {
    const fn of(standing: Standing) -> Self {
        Self { standing, until: None, minted: None }
    }
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

fn obtained_at(account: &Account, minted: Option<&Minted>) -> Option<Timestamp> {
    match &account.material {
        Material::Oauth(grant) => grant.access.as_ref().map(|access| access.obtained),
        Material::Seed { .. } => minted.map(|minted| minted.token.obtained),
        Material::Static { .. } => None,
    }
}

/// The account as far as what was minted for it goes: a provider may give fewer scopes than were asked for, and whoever
/// needs the others is told so by us.
fn narrowed(account: Account, connector: &Connector, minted: Option<&Minted>) -> Account {
    let Some(minted) = minted else { return account };
    let Some(given) = &minted.token.scopes else { return account };
    let is_missing = |scope: &String| minted.asked.contains(scope) && !given.contains(scope);
    if !minted.asked.iter().any(is_missing) {
        return account;
    }
    let ours = connector.scopes.iter().filter(|(_, needed)| !needed.iter().any(is_missing));
    let ours = ours.map(|(scope, _)| scope.clone());
    let held = ours.filter(|scope| account.scopes.as_ref().is_none_or(|held| held.contains(scope)));
    Account { scopes: Some(held.collect()), ..account }
}

fn usable(account: &Account) -> Result<(), Error> {
    match &account.status {
        Status::Active => Ok(()),
        Status::Frozen { by } => Err(Error::Frozen { by: by.clone() }),
        Status::Revoked => Err(Error::Revoked(account.key.clone())),
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

/// The credential of a connector that takes none: everything of the agent's is stripped, nothing is put in.
fn nothing(connector: &Connector) -> Credential {
    Credential {
        label: None,
        generation: None,
        authorization: None,
        obtained: None,
        headers: Vec::new(),
        query: Vec::new(),
        signer: None,
        target: connector.target(&BTreeMap::new()),
        needles: Arc::new(Needles::new([])),
        ended: Arc::default(),
    }
}

fn render(account: &Account, connector: &Connector, minted: Option<&Minted>) -> Result<Credential, Error> {
    let fields =
        minted.map_or_else(|| account.material.fields(), |minted| Cow::Borrowed(&minted.token.fields));
    let mut echoes: Vec<Secret> = fields.values().cloned().collect();
    let mut headers = Vec::with_capacity(connector.inject.len()); // one, mostly; left to itself it takes room for four
    let mut query = Vec::new();
    for injection in &connector.inject {
        match injection {
            Injection::Header(name, template) => {
                let value = fill(template, &fields, &mut echoes)?;
                headers.push((name.clone(), header(name, &value)?));
            }
            Injection::Query(name, template) => {
                query.push((name.clone(), fill(template, &fields, &mut echoes)?));
            }
        }
    }
    let signer = match connector.auth.kind {
        AuthType::AwsSigv4 => Some(Signer::new(&fields)?),
        _ => None,
    };
    Ok(Credential {
        label: Some(account.key.to_string().into()),
        generation: Some(account.generation),
        authorization: account.authorization.as_deref().map(Arc::from),
        obtained: obtained_at(account, minted),
        headers,
        query,
        signer,
        target: connector.target(&account.metadata),
        needles: Arc::new(Needles::new(&echoes)),
        ended: Arc::default(),
    })
}

#[expect(clippy::disallowed_methods, reason = "this is where a header credential is made")]
fn header(name: &HeaderName, value: &Secret) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_bytes(value.expose()).map_err(|_| Error::Unwritable(name.clone()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Fills a template. The last word of what it gives joins what is looked for in answers: it may be an encoding
/// of a secret, as in `Basic dXNlcjpwYXNz`.
#[expect(clippy::disallowed_methods, reason = "this is where a credential is put together")]
fn fill(
    template: &Template,
    fields: &BTreeMap<String, Secret>,
    echoes: &mut Vec<Secret>,
) -> Result<Secret, Error> {
    let value = template.render(|name| fields.get(name).map(Secret::expose))?;
    let last = value.rsplit(|byte| *byte == b' ').next().unwrap_or(&value);
    echoes.push(Secret::new(last.to_vec()));
    Ok(Secret::new(value.to_vec()))
}
