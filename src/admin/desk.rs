//! Changing accounts: checked against the policy, recorded, made, and known to the next request.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{Command, Consents, Error, KeyText, Listed, Reply, Secrets, fit};
use crate::{
    audit::{Audit, Event, Kind},
    catalog::{AuthType, Connector},
    credential::{Resolver, check_seed},
    drain::Drain,
    id::{AccountKey, ActionId, Scope},
    ruleset::Rules,
    secret::Secret,
    vault::{self, Account, KeySource, Material, NewAccount, Status, Vault},
};

/// Where accounts are changed. Cloning is cheap, and all clones are one desk.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    vault: Vault,
    audit: Audit,
    rules: Rules,
    resolver: Resolver,
    drain: Drain,
    /// Where nothing serves the callback, nobody is asked.
    consents: Option<Consents>,
    /// One change at a time: what is recorded before a change must still be true when it is made.
    changing: Mutex<()>,
}

/// What is about to be recorded and made.
pub(super) struct Change {
    pub(super) event: &'static str,
    pub(super) detail: Option<String>,
    /// The account as it is, or as it will be where it is new.
    pub(super) generation: u64,
    pub(super) authorization: Option<String>,
    pub(super) scopes: Option<BTreeSet<Scope>>,
}

/// What came of a change of one account.
enum Changed {
    Account(Account),
    Removed(AccountKey),
}

impl Desk {
    /// A desk over this vault. What it changes is recorded in `audit`, fits `rules`, and is told to `resolver`. It asks
    /// people for consents where there are `consents`.
    #[must_use]
    pub fn new(
        vault: Vault,
        audit: Audit,
        rules: Rules,
        resolver: Resolver,
        consents: Option<Consents>,
        drain: Drain,
    ) -> Self {
        Self(Arc::new(Inner { vault, audit, rules, resolver, drain, consents, changing: Mutex::default() }))
    }

    /// Does what is asked. A change is on the disk, recorded, and known to the next request when this returns;
    /// one that cannot be recorded is not made. A change that has begun is finished even if the caller goes away.
    ///
    /// # Errors
    /// [`Error`], with what to do.
    pub async fn execute(&self, command: Command) -> Result<Reply, Error> {
        let vault = &self.0.vault;
        match command {
            Command::List { tenant } => {
                let accounts = vault.list(tenant.as_ref()).await?;
                let holds = vault.holds(tenant.as_ref()).await?;
                let listed = |account: &Account| Listed::from(account).held(holds.on(&account.key));
                Ok(Reply::Accounts(accounts.iter().map(listed).collect()))
            }
            Command::Form { connector, scopes, metadata } => {
                let catalog = &self.0.rules.current().catalog;
                Ok(Reply::Form(fit::form(catalog, &connector, scopes.as_ref(), metadata.as_ref())?))
            }
            Command::Show { account } => self.reply(&self.existing(&account).await?).await,
            Command::Holds { tenant } => self.holds(tenant.as_ref()).await,
            Command::FreezeAll { whose, by } => self.freeze_all(whose, by).await,
            Command::UnfreezeAll { whose, force } => self.unfreeze_all(whose, force).await,
            Command::RevokeAll { whose } => self.revoke_all(whose).await,
            Command::RotateKey { key: KeyText(key) } => {
                self.alone(|desk| async move { desk.rotate_key(key).await }).await
            }
            Command::Connect { account, metadata } => self.ask(account, metadata).await,
            Command::Consent { id } => self.outcome(id).await,
            Command::Withdraw { id } => self.withdraw(id).await,
            Command::VaultStatus => Ok(Reply::Vault(vault.status().await?.into())),
            change => {
                let changed = self.alone(|desk| async move { desk.change(change).await }).await?;
                match changed {
                    Changed::Account(account) => self.reply(&account).await,
                    Changed::Removed(key) => Ok(Reply::Removed(key)),
                }
            }
        }
    }

    /// Does one change at a time, each to its end, even if the caller goes away.
    pub(super) async fn alone<T, F>(&self, change: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (desk, change) = (self.clone(), change(self.clone()));
        let changed = self.0.drain.spawn(async move {
            let _only = desk.0.changing.lock().await;
            change.await
        });
        changed.await.map_err(|_| Error::Interrupted)?
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    pub(super) fn audit(&self) -> &Audit {
        &self.0.audit
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.0.rules
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.0.resolver
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.0.drain
    }

    pub(super) fn consents(&self) -> Result<&Consents, Error> {
        self.0.consents.as_ref().ok_or(Error::NoRedirect)
    }

    async fn change(&self, command: Command) -> Result<Changed, Error> {
        match command {
            Command::Add { account, secrets, scopes, metadata } => {
                self.add(account, secrets, scopes, metadata).await.map(Changed::Account)
            }
            Command::Rotate { account, secrets } => self.rotate(account, secrets).await.map(Changed::Account),
            Command::Freeze { account, by } => self.freeze(account, by).await.map(Changed::Account),
            Command::Unfreeze { account } => self.unfreeze(account).await.map(Changed::Account),
            Command::Revoke { account } => self.revoke(account).await.map(Changed::Account),
            Command::Remove { account } => self.remove(account).await.map(Changed::Removed),
            Command::Form { .. }
            | Command::List { .. }
            | Command::Connect { .. }
            | Command::Consent { .. }
            | Command::Withdraw { .. }
            | Command::Show { .. }
            | Command::Holds { .. }
            | Command::FreezeAll { .. }
            | Command::UnfreezeAll { .. }
            | Command::RevokeAll { .. }
            | Command::RotateKey { .. }
            | Command::VaultStatus => Err(Error::Interrupted),
        }
    }

    async fn add(
        &self,
        key: AccountKey,
        secrets: Secrets,
        scopes: Option<BTreeSet<Scope>>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Account, Error> {
        let rules = self.0.rules.current();
        let connector = fit::connector_for(&rules.catalog, &key.connector, scopes.as_ref(), &metadata)?;
        let material = self.material(&key, connector, secrets, &metadata)?;
        if self.0.vault.account(&key).await?.is_some() {
            return Err(vault::Error::Exists(key).into());
        }
        let id = ActionId::now();
        let authorization = Some(id.to_string());
        let change = Change {
            event: "account.added",
            detail: None,
            generation: 1,
            authorization: authorization.clone(),
            scopes: scopes.clone(),
        };
        self.record(id, &key, change).await?;
        let new = NewAccount { key: key.clone(), material, scopes, metadata, authorization };
        self.made(&key, self.0.vault.add(new).await).await
    }

    async fn rotate(&self, key: AccountKey, secrets: Secrets) -> Result<Account, Error> {
        let rules = self.0.rules.current();
        let connector = fit::connector_of(&rules.catalog, &key.connector)?;
        let before = self.existing(&key).await?;
        if matches!(before.material, Material::Oauth(_)) {
            return Err(Error::Consented(key));
        }
        let material = self.material(&key, connector, secrets, &before.metadata)?;
        self.record_next(&before, "account.rotated", None).await?;
        self.made(&key, self.0.vault.replace(&key, material).await).await
    }

    /// What the account will hold, if that is what its connector wants.
    fn material(
        &self,
        key: &AccountKey,
        connector: &Connector,
        secrets: Secrets,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Material, Error> {
        let auth = &connector.auth;
        let is_seed = auth.kind.mints() || auth.may_mint() && secrets.0.is_empty();
        if !is_seed {
            let fields = secrets.checked(&auth.fields).map_err(vault::Error::Secret)?;
            return Ok(Material::Static { fields });
        }
        check_seed(connector, &secrets.0, metadata)?;
        let is_by_app = secrets.0.is_empty()
            && matches!(auth.kind, AuthType::ClientCredentials | AuthType::JwtBearer | AuthType::GithubApp);
        if let Some(consents) = self.0.consents.as_ref().filter(|_| is_by_app) {
            consents.app(&key.connector, &key.tenant)?;
        }
        Ok(Material::Seed { fields: secrets.0 })
    }

    async fn freeze(&self, key: AccountKey, by: String) -> Result<Account, Error> {
        let before = self.existing(&key).await?;
        match before.status {
            Status::Active => {}
            Status::Frozen { .. } => return Ok(before),
            Status::Revoked => return Err(vault::Error::Revoked(key).into()),
        }
        self.record_next(&before, "account.frozen", Some(format!("by {by}"))).await?;
        self.made(&key, self.0.vault.freeze(&key, &by).await).await
    }

    async fn unfreeze(&self, key: AccountKey) -> Result<Account, Error> {
        let before = self.existing(&key).await?;
        match before.status {
            Status::Frozen { .. } => {}
            Status::Active => return Ok(before),
            Status::Revoked => return Err(vault::Error::Revoked(key).into()),
        }
        self.record_next(&before, "account.unfrozen", None).await?;
        self.made(&key, self.0.vault.unfreeze(&key).await).await
    }

    pub(super) async fn revoke(&self, key: AccountKey) -> Result<Account, Error> {
        let before = self.existing(&key).await?;
        if before.status == Status::Revoked {
            return Ok(before);
        }
        self.record_next(&before, "account.revoked", None).await?;
        self.made(&key, self.0.vault.revoke(&key).await).await
    }

    /// Also removes an account that does not open: then neither its generation nor its authorization is known.
    async fn remove(&self, key: AccountKey) -> Result<AccountKey, Error> {
        match self.existing(&key).await {
            Ok(before) => {
                let change =
                    Change { generation: before.generation, ..Change::of(&before, "account.removed") };
                self.record(ActionId::now(), &key, change).await?;
            }
            Err(Error::Vault(vault::Error::Unopened { removable: true, why, .. })) => {
                let detail = Some(format!("it did not open: {why}"));
                let change = Change {
                    event: "account.removed",
                    detail,
                    generation: 0,
                    authorization: None,
                    scopes: None,
                };
                self.record(ActionId::now(), &key, change).await?;
            }
            Err(error) => return Err(error),
        }
        self.made(&key, self.0.vault.remove(&key).await).await.map(|()| key)
    }

    /// The account as people see it, frozen as a whole or not.
    pub(super) async fn reply(&self, account: &Account) -> Result<Reply, Error> {
        let holds = self.0.vault.holds(Some(&account.key.tenant)).await?;
        Ok(Reply::Account(Box::new(Listed::from(account).held(holds.on(&account.key)))))
    }

    async fn rotate_key(&self, key: Secret) -> Result<Reply, Error> {
        let vault = &self.0.vault;
        let to = KeySource::Value(key);
        let (before, after) = (vault.key(), to.fingerprint().map_err(vault::Error::Key)?);
        if before != after {
            let detail = Some(format!("from {before} to {after}").into());
            let event = Event { detail, ..Event::of(Kind::System, "vault.key_rotated") };
            self.0.audit.record(event).await?;
        }
        match vault.rotate_key(&to).await {
            Ok(done) => Ok(Reply::KeyRotated(done.into())),
            Err(error) => {
                self.record_failure(Event::of(Kind::System, "vault.failed"), &error).await;
                Err(error.into())
            }
        }
    }

    pub(super) async fn existing(&self, key: &AccountKey) -> Result<Account, Error> {
        Ok(self.0.vault.account(key).await?.ok_or_else(|| vault::Error::Missing(key.clone()))?)
    }

    async fn record_next(
        &self,
        before: &Account,
        event: &'static str,
        detail: Option<String>,
    ) -> Result<(), Error> {
        self.record(ActionId::now(), &before.key, Change { detail, ..Change::of(before, event) }).await
    }

    pub(super) async fn record(&self, id: ActionId, key: &AccountKey, change: Change) -> Result<(), Error> {
        let event = Event {
            id: Some(id),
            detail: change.detail.map(Cow::Owned),
            generation: Some(change.generation),
            authorization: change.authorization.map(Arc::from),
            scopes_granted: change.scopes.map(Vec::from_iter),
            ..about(key, change.event)
        };
        Ok(self.0.audit.record(event).await?)
    }

    /// Makes the change known to the next request. One that was recorded and then not made is recorded as that.
    pub(super) async fn made<T>(
        &self,
        key: &AccountKey,
        outcome: Result<T, vault::Error>,
    ) -> Result<T, Error> {
        self.0.resolver.changed(key).await; // also where the store failed: it may have been made
        if let Err(error) = &outcome {
            self.record_failure(about(key, "account.failed"), error).await;
        }
        Ok(outcome?)
    }

    /// A consent that connected nothing.
    pub(super) async fn record_refusal(&self, key: &AccountKey, code: &str) {
        let error = Some(Cow::Owned(code.to_owned()));
        let event = Event { id: Some(ActionId::now()), error, ..about(key, "account.not_connected") };
        if let Err(error) = self.0.audit.record(event).await {
            tracing::warn!(account = %key, code, %error, "a consent that connected nothing was not recorded");
        }
    }

    pub(super) async fn record_failure(&self, about: Event, error: &vault::Error) {
        let account = about.account.clone();
        let failed = Event {
            id: Some(ActionId::now()),
            error: Some(Cow::Borrowed("vault_unavailable")),
            detail: Some(Cow::Owned(format!("the change recorded before was not made: {error}"))),
            ..about
        };
        if let Err(unrecorded) = self.0.audit.record(failed).await {
            tracing::error!(?account, %error, %unrecorded, "a change was recorded, then not made");
        }
    }
}

impl Change {
    /// The next generation of an account.
    fn of(before: &Account, event: &'static str) -> Self {
        Self {
            event,
            detail: None,
            generation: before.generation + 1,
            authorization: before.authorization.clone(),
            scopes: before.scopes.clone(),
        }
    }
}

fn about(key: &AccountKey, event: &'static str) -> Event {
    Event {
        tenant: Some(key.tenant.clone()),
        connector: Some(key.connector.clone()),
        principal: Some(key.principal.clone()),
        account: Some(key.to_string().into()),
        ..Event::of(Kind::Account, event)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;
    use crate::{audit, catalog::Catalog, ruleset::Ruleset, secret::Secret};

    const CONNECTOR: &str = "{hosts: [api.crm.test], auth: {type: static}, \
         inject: [{header: Authorization, value: 'Bearer {token}'}], scopes: {}}";

    /// A desk whose audit log has room for so many events at a time, and waits for it only a moment.
    async fn desk(folder: &std::path::Path, room: usize) -> Desk {
        let drain = Drain::default();
        let vault = Vault::in_memory(&drain).await.unwrap();
        let config = audit::Config { room, patience: Duration::from_millis(20), ..audit::Config::default() };
        let metrics = audit::Metrics::register(&Registry::new()).unwrap();
        let audit = Audit::open(&config, folder, &metrics).unwrap();
        let mut rules = Ruleset::default();
        let crm = ("crm".parse().unwrap(), serde_saphyr::from_str(CONNECTOR).unwrap());
        rules.catalog = Catalog::compile(vec![crm]).unwrap();
        let resolver = Resolver::new(vault.clone().into());
        Desk::new(vault, audit, Rules::fixed(rules), resolver, None, drain)
    }

    fn secrets(field: &str, value: &str) -> Secrets {
        Secrets([(field.to_owned(), Secret::new(value.into()))].into())
    }

    fn add(account: &str, secrets: Secrets) -> Command {
        Command::Add { account: account.parse().unwrap(), secrets, scopes: None, metadata: BTreeMap::new() }
    }

    fn recorded(desk: &Desk) -> Vec<String> {
        let filter = audit::Filter { kind: Some(Kind::Account), ..audit::Filter::default() };
        let found = audit::query(desk.audit().path(), &filter, usize::MAX).unwrap();
        found.events.into_iter().map(|found| found.event.event.unwrap().into_owned()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_cannot_be_recorded_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let desk = desk(folder.path(), 1).await;
        let the_only_room = desk.audit().reserve().await.unwrap();
        let refused = desk.execute(add("acme/crm/tenant", secrets("token", "kb-0123456789"))).await;
        assert!(matches!(refused, Err(Error::Audit(_))), "{refused:?}");
        assert_eq!(desk.execute(Command::List { tenant: None }).await.unwrap(), Reply::Accounts(vec![]));
        drop(the_only_room);
        desk.execute(add("acme/crm/tenant", secrets("token", "kb-0123456789"))).await.unwrap();
        assert_eq!(recorded(&desk), ["account.added"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_refused_beforehand_is_not_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let desk = desk(folder.path(), 1).await;
        for wrong in [
            add("acme/crm/tenant", secrets("token", "short")),
            add("acme/crm/tenant", secrets("tokn", "kb-0123456789")),
            add("acme/crm/tenant", Secrets(BTreeMap::new())),
            add("acme/crn/tenant", secrets("token", "kb-0123456789")),
            Command::Revoke { account: "acme/crm/tenant".parse().unwrap() },
        ] {
            assert!(desk.execute(wrong).await.is_err());
        }
        assert_eq!(recorded(&desk), Vec::<String>::new());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_that_add_the_same_account_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let desk = desk(folder.path(), 8).await;
        let all = (0..8).map(|_| desk.execute(add("acme/crm/tenant", secrets("token", "kb-0123456789"))));
        let done = futures_util::future::join_all(all).await;
        assert_eq!(done.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert_eq!(recorded(&desk), ["account.added"]);
    }
}
