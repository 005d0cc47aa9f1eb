//! Accounts of the vault that this process has, and tokens from the engine that keeps them alive.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Error, Trouble,
    cache::raise,
    found::{Fields, Found, Gives},
    refresh::{Clock, Engine, Minted, Minting, Standing, standing},
    render::render,
    source::{Asked, Refused, Source},
    wire,
};
use crate::{
    catalog::Connector,
    id::AccountKey,
    policy::Permit,
    secret::Secret,
    vault::{self, Account, Change, Material, Status, Vault, Whole},
};

/// A vault and, where tokens are refreshed, an engine. Cloning is cheap.
#[derive(Clone)]
pub struct Local {
    vault: Arc<Vault>,
    engine: Option<Engine>,
}

impl Local {
    /// Accounts as they lie in the vault; nothing is refreshed.
    #[must_use]
    pub const fn new(vault: Arc<Vault>) -> Self {
        Self { vault, engine: None }
    }

    /// The same with an engine, which gives tokens where the vault's have ended.
    #[must_use]
    pub fn refreshing(self, engine: Engine) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// What a broker says to a sidecar's question about the permit's account.
    ///
    /// Only [`wire::Ask::Give`] is answered with secrets; it waits for a token as a request here would, and counts as
    /// a use of the account.
    ///
    /// # Errors
    /// [`Error`], which [`wire::Problem`] writes down.
    pub async fn answer(
        &self,
        permit: &Permit,
        question: &wire::Question,
        connector: &Arc<Connector>,
    ) -> Result<wire::Answer, Error> {
        let asked = Asked::by(permit, connector);
        let found = match question.ask {
            wire::Ask::Give => self.given(asked).await?,
            wire::Ask::Look => self.looked(asked).await?,
            wire::Ask::Challenged => {
                if let Some(refused) = question.refused {
                    self.challenged(asked, refused).await;
                }
                self.look(asked).await?.unseen()
            }
            wire::Ask::Ahead => {
                let found = self.look(asked).await?;
                self.wake(asked);
                found.unseen()
            }
        };
        Ok(wire::Answer::of(found, self.clock().now()))
    }

    /// Accounts have changed: tokens that were minted for them are dropped, and whoever uses one gets another.
    pub fn changed(&self, change: &Change) {
        Source::changed(self, change);
    }

    /// Forgets what the engine noted of accounts that nobody uses.
    pub fn tidy(&self) {
        Source::tidy(self, &|_| false);
    }

    /// As the resolver does for a request.
    async fn given(&self, asked: Asked<'_>) -> Result<Found, Error> {
        self.settled(asked.key).await;
        let mut found = self.find(asked).await?;
        if matches!(found.gives, Gives::Over(None)) {
            let trouble = self.renewed(asked.key).await;
            found = self.find(asked).await?;
            if matches!(found.gives, Gives::Over(None)) {
                found.gives = Gives::Over(Some(trouble.unwrap_or(Trouble::Busy)));
            }
        }
        if let Gives::Fields(Fields { used: Some(used), .. }) = &found.gives
            && raise(used)
        {
            self.wake(asked);
        }
        Ok(found)
    }

    /// As a preflight does: secrets that could not be injected are none.
    async fn looked(&self, asked: Asked<'_>) -> Result<Found, Error> {
        let found = self.look(asked).await?;
        if let Gives::Fields(Fields { secrets: Some(secrets), obtained, .. }) = &found.gives {
            render(&found.account, asked.connector, secrets, *obtained)?;
        }
        Ok(found.unseen())
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
    fn found(&self, mut account: Account, connector: &Connector) -> Result<Found, Error> {
        let gives = match &mut account.material {
            Material::Seed { .. } if connector.auth.may_mint() => return Ok(self.minted(account, connector)),
            _ if connector.auth.kind.mints() => return Err(Error::Unminted(connector.auth.kind)),
            Material::Static { fields } => Gives::Fields(Fields::lasting(std::mem::take(fields))),
            Material::Seed { .. } => Gives::Fields(Fields::lasting(BTreeMap::new())),
            Material::Oauth(grant) => match standing(grant, self.clock().now()) {
                Standing::Live(until) => Gives::Fields(Fields {
                    secrets: Some(account.material.fields().into_owned()),
                    until: until.map(|until| self.clock().instant(until)),
                    ..self.fields(&account, None)
                }),
                Standing::Closed(closed) => Gives::Closed(closed, None),
                Standing::Over => Gives::Over(None),
            },
        };
        Ok(Found::of(account, gives))
    }

    fn minted(&self, account: Account, connector: &Connector) -> Found {
        match self.engine.as_ref().map(|engine| engine.minting(&account, connector)) {
            Some(Minting::Live(minted)) => {
                let fields = Fields {
                    secrets: Some(minted.token.fields.clone()),
                    until: minted.token.expires.map(|until| self.clock().instant(until)),
                    superseded: Some(Arc::clone(&minted.superseded)),
                    ..self.fields(&account, Some(&minted))
                };
                Found::of(narrowed(account, connector, &minted), Gives::Fields(fields))
            }
            Some(Minting::Refused(closed, until)) => Found::of(account, Gives::Closed(closed, Some(until))),
            Some(Minting::Over) | None => Found::of(account, Gives::Over(None)),
        }
    }

    /// What there is to say of a token, but for itself.
    fn fields(&self, account: &Account, minted: Option<&Minted>) -> Fields {
        let due = self.engine.as_ref().and_then(|engine| match minted {
            Some(Minted { token, .. }) => engine.due_between(account, token.obtained, token.expires),
            None => engine.due(account),
        });
        Fields {
            obtained: obtained_at(account, minted),
            due: due.map(|due| self.clock().instant(due)),
            ..Fields::default()
        }
    }

    /// When the token was obtained that the account has, whether or not it has ended.
    fn obtained(&self, account: &Account, connector: &Connector) -> Option<Timestamp> {
        let minting = match &account.material {
            Material::Seed { .. } => self.engine.as_ref().map(|engine| engine.minting(account, connector)),
            Material::Static { .. } | Material::Oauth(_) => None,
        };
        let Some(Minting::Live(minted)) = minting else { return obtained_at(account, None) };
        obtained_at(account, Some(&minted))
    }

    fn clock(&self) -> Cow<'_, Clock> {
        self.engine
            .as_ref()
            .map_or_else(|| Cow::Owned(Clock::system()), |engine| Cow::Borrowed(engine.clock()))
    }
}

#[async_trait]
impl Source for Local {
    async fn settled(&self, key: &AccountKey) {
        if let Some(engine) = &self.engine {
            engine.recovered(key).await;
        }
    }

    async fn find(&self, asked: Asked<'_>) -> Result<Found, Error> {
        let mut found = self.look(asked).await?;
        if let (Gives::Fields(fields), Some(engine)) = (&mut found.gives, &self.engine)
            && fields.obtained.is_some()
        {
            fields.used = Some(engine.usage(asked.key));
        }
        Ok(found)
    }

    async fn look(&self, asked: Asked<'_>) -> Result<Found, Error> {
        self.found(self.usable(asked.key).await?, asked.connector)
    }

    async fn renewed(&self, key: &AccountKey) -> Option<Trouble> {
        match &self.engine {
            Some(engine) => engine.renewed(key).await.err(),
            None => Some(Trouble::NoApp),
        }
    }

    /// The vault is read first: another process may have replaced the token.
    async fn challenged(&self, asked: Asked<'_>, refused: Refused) -> bool {
        let Asked { key, connector, .. } = asked;
        let Ok(Some(now)) = self.vault.account(key).await else { return false };
        let is_newer = match refused.obtained {
            Some(obtained) => self.obtained(&now, connector) != Some(obtained),
            None => Some(now.generation) != refused.generation,
        };
        if is_newer {
            return true;
        }
        let (Some(engine), Some(obtained)) = (&self.engine, refused.obtained) else { return false };
        if !engine.replaced(key, obtained).await {
            return false;
        }
        if let Ok(Some(now)) = self.vault.account(key).await
            && let Some(obtained) = self.obtained(&now, connector)
        {
            engine.was_forced(key, obtained);
        }
        true
    }

    fn wake(&self, asked: Asked<'_>) {
        if let Some(engine) = &self.engine {
            engine.wake(asked.key);
        }
    }

    /// While the vault is away, streams go on: it tells of a change when it is back.
    async fn is_over(&self, key: &AccountKey) -> bool {
        let is_usable = async {
            let is_active = self.vault.account(key).await?.is_some_and(|now| now.status == Status::Active);
            Ok::<_, vault::Error>(is_active && self.vault.held(key).await?.is_none())
        };
        match is_usable.await {
            Ok(is_usable) => !is_usable,
            Err(error) => !error.is_of_the_moment(),
        }
    }

    async fn are_over(&self, whose: &Whole) -> Option<bool> {
        Some(match self.vault.holds_of(whose).await {
            Ok(holds) => !holds.is_empty(),
            Err(error) => !error.is_of_the_moment(),
        })
    }

    fn changed(&self, change: &Change) {
        let Some(engine) = &self.engine else { return };
        match change {
            Change::Account(key) => engine.drop_minted(key),
            Change::Whole(whose) => engine.drop_all_minted(|known| whose.has(known)),
            Change::Unknown => engine.drop_all_minted(|_| true),
        }
    }

    fn tidy(&self, _: &dyn Fn(&AccountKey) -> bool) {
        if let Some(engine) = &self.engine {
            engine.tidy();
        }
    }

    fn reconnect_url(&self, _: &AccountKey) -> Option<Arc<str>> {
        None
    }
}

impl Fields {
    /// Secrets that do not change by themselves.
    fn lasting(secrets: BTreeMap<String, Secret>) -> Self {
        Self { secrets: Some(secrets), ..Self::default() }
    }
}

fn usable(account: &Account) -> Result<(), Error> {
    match &account.status {
        Status::Active => Ok(()),
        Status::Frozen { by } => Err(Error::Frozen { by: by.clone() }),
        Status::Revoked => Err(Error::Revoked(account.key.clone())),
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
fn narrowed(account: Account, connector: &Connector, minted: &Minted) -> Account {
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
