//! One attempt, from the lease to the commit. The order of the steps is the point of it: `docs/refresh.md`.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::{sync::Notify, time::Instant};

use super::{
    Engine, Landing, Reason, Trouble, Want,
    apps::AppKey,
    bucket::Priority,
    clock::{after, between},
    exchange::Server,
    lock,
    note::{Note, Told},
    outcome::{Attempt, Verdict},
    schedule::Spread,
    state::{Turn, turn},
    way::Way,
};
use crate::{
    catalog::Connector,
    id::AccountKey,
    oauth::{self, AppFault, Failure, Hint, Provider, RawAnswer, Reach, Rotates, Tokens, Values},
    secret::Secret,
    vault::{Account, Committed, Grant, GrantState, Intent, Lease, Material, Status},
};

/// An attempt that brought no answer to what became of an earlier one is tried again after so long.
const IN_DOUBT: Duration = Duration::from_secs(15);
/// An answer that cannot be read is looked at again after so long; sooner when the connectors change.
const UNREADABLE: Duration = Duration::from_mins(1);
/// How often a failure's consequence is written again where the vault does not take it. A rotated token is written
/// until the vault takes it.
const WRITES: u32 = 5;
/// How long between two tries to write.
const WRITE_AGAIN: Duration = Duration::from_millis(250);
/// At most so long.
const WRITE_AGAIN_CAP: Duration = Duration::from_secs(5);
/// How long to wait between two looks at what another replica does.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What an attempt needs, as it was when it was read.
struct Ready {
    account: Account,
    provider: Arc<Provider>,
    app: Arc<oauth::App>,
    way: Way,
}

impl Ready {
    fn server(&self) -> Server<'_> {
        Server { provider: &self.provider, app: &self.app, metadata: &self.account.metadata }
    }

    fn rotates(&self) -> bool {
        self.provider.dialect.rotation.rotates != Rotates::Never
    }

    fn grant(&self) -> Option<&Grant> {
        grant(&self.account)
    }
}

impl Engine {
    /// Obtains a token: where they are minted, by minting one; else by a refresh.
    pub(super) async fn attempt(&self, key: &AccountKey, reason: Reason, urgent: &Notify) -> Landing {
        match (self.0.parts.connectors)(&key.connector) {
            Some(connector) if connector.auth.may_mint() => self.mint(key, connector, reason, urgent).await,
            _ => self.refresh(key, reason, urgent).await,
        }
    }

    /// Takes its turn, takes the account, and refreshes it if that is still of use then.
    async fn refresh(&self, key: &AccountKey, reason: Reason, urgent: &Notify) -> Landing {
        let patience = self.0.parts.config.timeout * 6; // two leases: another one's, and one of who comes before us
        let looked = tokio::time::timeout(patience, self.take(key, reason, urgent)).await;
        let Some((lease, ready)) = looked.unwrap_or(Err(Trouble::Busy))? else { return Ok(()) };
        let held = Held { engine: self, lease, reason };
        held.refresh(ready).await
    }

    /// Waits for the turn, then for the lease. `None` where there is nothing to do any more.
    async fn take(
        &self,
        key: &AccountKey,
        reason: Reason,
        urgent: &Notify,
    ) -> Result<Option<(Lease, Ready)>, Trouble> {
        let Some(ready) = self.ready(key, reason.want).await? else { return Ok(None) };
        self.room(&ready.way, reason.priority, urgent).await;
        loop {
            let Some(ready) = self.ready(key, reason.want).await? else { return Ok(None) };
            let vault = &self.0.parts.vault;
            let ttl = self.lease_time();
            if let Some(lease) = vault.lease(key, &self.0.parts.replica, ttl).await.map_err(vault_trouble)? {
                return Ok(Some((lease, ready)));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The account as it is, if it is this attempt's turn and the app and its token host are not to be left alone.
    async fn ready(&self, key: &AccountKey, want: Want) -> Result<Option<Ready>, Trouble> {
        if let Some((until, trouble)) = lock(&self.0.paced).get(key)
            && *until > Instant::now()
            && want != Want::Recovery
        {
            return Err(*trouble);
        }
        let account = self.0.parts.vault.account(key).await.map_err(vault_trouble)?;
        let Some(account) = account else { return Ok(None) };
        if self.0.parts.vault.held(key).await.map_err(vault_trouble)?.is_some() {
            return Ok(None);
        }
        let now = self.0.parts.clock.now();
        match turn(&account, want, now) {
            // An interrupted attempt is looked into whatever the account says of itself.
            Turn::Pass if want != Want::Recovery || grant(&account).is_none() => return Ok(None),
            Turn::NotBefore(until) => return Err(Trouble::Unreachable { retry_after: between(now, until) }),
            Turn::Pass | Turn::Go => {}
        }
        let Some(connector) = (self.0.parts.connectors)(&key.connector) else { return Ok(None) };
        let Some(provider) = connector.auth.provider.clone() else { return Ok(None) };
        let app = self.0.parts.apps.of(&key.connector, &key.tenant).ok_or(Trouble::NoApp)?;
        let name = AppKey::Shared { connector: key.connector.clone(), client: app.client_id.clone() };
        let host = token_host(&connector, &|name| account.metadata.get(name).map(String::as_str));
        let shared = self.0.shared.app(&name);
        let ready = Ready { app: Arc::clone(app), account, provider, way: Way { connector, shared, host } };
        self.peek(&ready.way)?;
        Ok(Some(ready))
    }

    fn lease_time(&self) -> Duration {
        self.0.parts.config.timeout * 3
    }

    fn pace(&self, key: &AccountKey, wait: Duration, trouble: Trouble) -> Trouble {
        lock(&self.0.paced).insert(key.clone(), (Instant::now() + wait, trouble));
        trouble
    }
}

/// An attempt that has the lease.
struct Held<'a> {
    engine: &'a Engine,
    lease: Lease,
    reason: Reason,
}

impl Held<'_> {
    /// Reads the account again, now that nobody else refreshes it; ends what an earlier holder began; then sends,
    /// unless that turns out to be of no use.
    async fn refresh(mut self, ready: Ready) -> Landing {
        let landing = self.under_lease(ready).await;
        if let Err(error) = self.engine.0.parts.vault.release(&self.lease).await {
            tracing::warn!(account = %self.lease.key(), %error, "a lease was not given back; it ends by itself");
        }
        landing
    }

    async fn under_lease(&mut self, before: Ready) -> Landing {
        let parts = &self.engine.0.parts;
        let account = parts.vault.account(self.lease.key()).await.map_err(vault_trouble)?;
        let Some(account) = account else { return Ok(()) };
        let ready = Ready { account, ..before };
        let Some(token) = ready.grant().and_then(|grant| grant.refresh.clone()) else {
            // It was revoked or is another kind of account by now: nothing of an earlier attempt is about it.
            return parts.vault.drop_intent(&self.lease, None).await.map(drop).map_err(vault_trouble);
        };
        let mut doubt = match ready.grant().map(|grant| grant.state) {
            Some(GrantState::Ambiguous { since }) => Some(since),
            _ => None,
        };
        if let Some(orphan) = self.lease.orphan() {
            if orphan.intent.token_hash != hash(&token) {
                parts.vault.drop_intent(&self.lease, None).await.map_err(vault_trouble)?;
            } else if let Some(answer) = &orphan.answer {
                // It was never read, or could not be: that is tried now, and nothing is sent meanwhile.
                let outcome = RawAnswer::from_secret(answer)
                    .ok_or(Failure::Unreadable(oauth::Unreadable::Syntax))
                    .and_then(|answer| answer.read(&ready.provider.dialect));
                return self.settle(&ready, &token, doubt, outcome).await;
            } else {
                doubt = doubt.or(Some(orphan.intent.started));
            }
        }
        let now = parts.clock.now();
        let doubt = doubt.filter(|_| ready.rotates());
        match turn(&ready.account, self.reason.want, now) {
            Turn::Go => {}
            Turn::NotBefore(until) => return Err(Trouble::Unreachable { retry_after: between(now, until) }),
            Turn::Pass if doubt.is_some() && ready.account.status == Status::Active => {}
            Turn::Pass => return Ok(()),
        }
        self.engine.admit(&ready.way)?;
        self.send(&ready, &token, doubt, now).await
    }

    /// Writes down what is about to be sent, sends it once, and puts the answer away before reading it.
    async fn send(
        &mut self,
        ready: &Ready,
        token: &Secret,
        doubt: Option<Timestamp>,
        now: Timestamp,
    ) -> Landing {
        let parts = &self.engine.0.parts;
        let intent = Intent {
            generation: ready.account.generation,
            token_hash: hash(token),
            started: doubt.unwrap_or(now),
            deadline: after(now, parts.config.timeout),
            replica: parts.replica.clone(),
        };
        if !parts.vault.intend(&self.lease, &intent).await.map_err(vault_trouble)? {
            return Err(Trouble::Busy);
        }
        let scopes = ready.grant().map_or(&[][..], |grant| &grant.provider_scopes);
        let answer = self.watched(parts.exchange.refresh(ready.server(), token, scopes)).await;
        if let Ok(answer) = &answer
            && answer.may_hold_tokens()
        {
            match parts.vault.quarantine(&self.lease, &answer.to_secret()).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(account = %self.lease.key(), "an answer came after its lease was another's");
                }
                Err(error) => {
                    tracing::error!(account = %self.lease.key(), %error, "an answer could not be put away");
                }
            }
        }
        let outcome = answer.and_then(|answer| answer.read(&ready.provider.dialect));
        self.engine.learn(&ready.way, "refreshed", &outcome);
        self.settle(ready, token, doubt, outcome).await
    }

    /// Waits for an answer, and keeps the lease meanwhile (F3). It is not cut short where the lease is lost: what was
    /// sent cannot be taken back, and its answer is of use to whoever has the lease then.
    async fn watched(
        &self,
        answer: impl Future<Output = Result<RawAnswer, Failure>>,
    ) -> Result<RawAnswer, Failure> {
        let (vault, ttl) = (&self.engine.0.parts.vault, self.engine.lease_time());
        let watchdog = async {
            loop {
                tokio::time::sleep(ttl / 3).await;
                if let Err(error) = vault.renew(&self.lease, ttl).await {
                    tracing::warn!(account = %self.lease.key(), %error, "a lease could not be renewed");
                }
            }
        };
        tokio::select! {
            answer = answer => answer,
            () = watchdog => Err(Failure::Ambiguous),
        }
    }

    /// Writes what the outcome means over the account as it is now, however often that is another one meanwhile: a
    /// freeze that came in between stays, and another consent wins (F4, F37).
    async fn settle(
        &mut self,
        ready: &Ready,
        token: &Secret,
        doubt: Option<Timestamp>,
        outcome: Result<Tokens, Failure>,
    ) -> Landing {
        let mut tries = 0;
        let landing = loop {
            match self.write(ready, token, doubt, &outcome).await {
                Written::Done(landing) => break landing,
                Written::Again => {}
                Written::Failed if outcome.is_err() && tries >= WRITES => break Err(Trouble::Vault),
                Written::Failed => {
                    if tries == 0 && outcome.is_ok() {
                        self.engine.0.parts.metrics.unpersisted.inc();
                    }
                    tries += 1;
                    let wait = WRITE_AGAIN.saturating_mul(1 << tries.min(8)).min(WRITE_AGAIN_CAP);
                    tokio::time::sleep(wait).await;
                    let _ = self.engine.0.parts.vault.renew(&self.lease, self.engine.lease_time()).await;
                }
            }
        };
        if tries > 0 && outcome.is_ok() {
            self.engine.0.parts.metrics.unpersisted.dec();
        }
        landing
    }

    async fn write(
        &mut self,
        ready: &Ready,
        token: &Secret,
        doubt: Option<Timestamp>,
        outcome: &Result<Tokens, Failure>,
    ) -> Written {
        let (engine, key) = (self.engine, self.lease.key().clone());
        let parts = &engine.0.parts;
        let account = match parts.vault.account(&key).await {
            Ok(Some(account)) => account,
            Ok(None) => {
                self.discard(ready, outcome).await;
                return Written::Done(Ok(()));
            }
            Err(error) => return failed(&key, &error),
        };
        let now = parts.clock.now();
        let attempt = Attempt {
            connector: &ready.way.connector,
            rotates: ready.rotates(),
            sent: token,
            doubt,
            now,
            spread: Spread::of(&key, account.generation, &parts.replica),
            is_used: engine.is_used(&key) || self.reason.is_for_a_request(),
            keeps_alive: self.reason.priority == Priority::KeepAlive,
        };
        match attempt.verdict(&account, outcome) {
            Verdict::Next(next, told) => self.commit(&account, *next, told, outcome, now).await,
            Verdict::App(fault) => self.pause(ready, fault).await,
            Verdict::Unreadable => {
                tracing::error!(account = %key, "a token was given in a form that the connector's dialect does not describe; it is kept until it can be read");
                Written::Done(Err(engine.pace(&key, UNREADABLE, Trouble::Unreadable)))
            }
            Verdict::Superseded => {
                if account.status == Status::Revoked {
                    self.discard(ready, outcome).await;
                }
                match parts.vault.drop_intent(&self.lease, None).await {
                    Ok(_) => Written::Done(Ok(())),
                    Err(error) => failed(&key, &error),
                }
            }
        }
    }

    async fn commit(
        &mut self,
        before: &Account,
        mut next: Account,
        told: Vec<Told>,
        outcome: &Result<Tokens, Failure>,
        now: Timestamp,
    ) -> Written {
        let (engine, key) = (self.engine, self.lease.key().clone());
        let parts = &engine.0.parts;
        let is_held = !matches!(parts.vault.held(&key).await, Ok(None));
        let dropped = if is_held || next.status != Status::Active { unusable(&mut next) } else { None };
        let note = Note::of(&told, &next, before.generation + 1);
        let committed = parts.vault.commit(&self.lease, before.generation, next, note.as_deref()).await;
        let account = match committed {
            Ok(Committed::Done(account)) => account,
            Ok(Committed::Moved) => return Written::Again,
            Ok(Committed::Fenced) => return self.lease_again(&key).await,
            Err(error) => return failed(&key, &error),
        };
        for told in &told {
            tracing::info!(account = %key, event = told.event(), cause = told.cause(), "refreshed");
        }
        engine.0.noted.notify_one();
        lock(&engine.0.paced).remove(&key);
        if outcome.is_ok() {
            engine.is_used_no_more(&key);
            let (account, token) = (account.clone(), dropped);
            self.after_refresh(*account, token).await;
        }
        Written::Done(self.landing(&account, now))
    }

    fn landing(&self, account: &Account, now: Timestamp) -> Landing {
        match grant(account).map(|grant| grant.state) {
            Some(GrantState::Backoff { until, .. }) => {
                Err(Trouble::Unreachable { retry_after: between(now, until) })
            }
            Some(GrantState::Ambiguous { .. }) => {
                let trouble = Trouble::Unreachable { retry_after: IN_DOUBT };
                Err(self.engine.pace(self.lease.key(), IN_DOUBT, trouble))
            }
            _ => Ok(()),
        }
    }

    /// The lease ran out, and another one was given meanwhile. What came for ours may still be the newest token: with
    /// a lease of our own again, the account itself says whether it is.
    async fn lease_again(&mut self, key: &AccountKey) -> Written {
        let parts = &self.engine.0.parts;
        match parts.vault.lease(key, &parts.replica, self.engine.lease_time()).await {
            Ok(Some(lease)) => {
                self.lease = lease;
                Written::Again
            }
            Ok(None) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                Written::Again
            }
            Err(error) => failed(key, &error),
        }
    }

    /// The provider refuses the app itself: that is nobody's account's fault, and no account changes (F24).
    async fn pause(&mut self, ready: &Ready, fault: AppFault) -> Written {
        let parts = &self.engine.0.parts;
        let note = self.engine.refused(&ready.way, &ready.app.client_id, fault);
        let note = note.and_then(|told| Note::of(&[told], &ready.account, ready.account.generation));
        match parts.vault.drop_intent(&self.lease, note.as_deref()).await {
            Ok(_) => {
                self.engine.0.noted.notify_one();
                let wait = ready.way.shared.peek(Instant::now()).err().unwrap_or_default();
                Written::Done(Err(Trouble::AppPaused { retry_after: wait }))
            }
            Err(error) => failed(self.lease.key(), &error),
        }
    }

    /// What is left to do when the new tokens are safe: to learn an end that the answer did not name (F15), and to end
    /// a token that nobody may use.
    async fn after_refresh(&self, account: Account, dropped: Option<Secret>) {
        let parts = &self.engine.0.parts;
        let key = self.lease.key();
        let Some(connector) = (parts.connectors)(&key.connector) else { return };
        let Some(app) = parts.apps.of(&key.connector, &key.tenant) else { return };
        let Some(provider) = &connector.auth.provider else { return };
        let server = Server { provider, app, metadata: &account.metadata };
        if let Some(token) = dropped {
            if provider.dialect.revocation_reach == Reach::Token {
                let _ = parts.exchange.revoke(server, &token, Hint::AccessToken).await;
            }
            return;
        }
        let Some(grant) = grant(&account) else { return };
        let Some(access) = grant.access.as_ref().filter(|access| access.expires.is_none()) else { return };
        if provider.dialect.introspect_url.is_none() {
            return;
        }
        let Ok(learnt) = self.watched_introspection(server, &access.token).await else { return };
        let Some(expires) = learnt.expires.filter(|_| learnt.active) else { return };
        let mut next = grant.clone();
        if let Some(access) = &mut next.access {
            access.expires = Some(expires);
        }
        let before = account.generation;
        let account = Account { material: Material::Oauth(Box::new(next)), ..account.clone() };
        if let Err(error) = parts.vault.commit(&self.lease, before, account, None).await {
            tracing::warn!(account = %key, %error, "a token's end could not be written down");
        }
    }

    async fn watched_introspection(
        &self,
        server: Server<'_>,
        token: &Secret,
    ) -> Result<oauth::Introspection, Failure> {
        let limit = self.engine.0.parts.config.timeout;
        let asked = self.engine.0.parts.exchange.introspect(server, token);
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(Failure::Ambiguous))
    }

    /// Ends tokens that came for an account which is gone: nobody will ever use or revoke them otherwise (F37).
    async fn discard(&self, ready: &Ready, outcome: &Result<Tokens, Failure>) {
        let Ok(tokens) = outcome else { return };
        let exchange = &self.engine.0.parts.exchange;
        for (token, hint) in tokens
            .refresh
            .iter()
            .map(|token| (token, Hint::RefreshToken))
            .chain([(&tokens.access, Hint::AccessToken)])
        {
            if let Err(error) = exchange.revoke(ready.server(), token, hint).await {
                tracing::warn!(account = %self.lease.key(), %error, "a token of an account that is gone was not revoked");
            }
        }
    }
}

/// What became of writing an outcome down.
enum Written {
    Done(Landing),
    /// The account is another one by now.
    Again,
    /// The vault did not take it.
    Failed,
}

fn failed(key: &AccountKey, error: &crate::vault::Error) -> Written {
    tracing::error!(account = %key, %error, "what a refresh brought cannot be written down yet");
    Written::Failed
}

/// Takes the access token out of an account that may not be used now; what refreshes it is kept.
fn unusable(account: &mut Account) -> Option<Secret> {
    match &mut account.material {
        Material::Oauth(grant) => grant.access.take().map(|access| access.token),
        Material::Static { .. } | Material::Seed { .. } => None,
    }
}

fn grant(account: &Account) -> Option<&Grant> {
    match &account.material {
        Material::Oauth(grant) => Some(grant),
        Material::Static { .. } | Material::Seed { .. } => None,
    }
}

fn hash(token: &Secret) -> [u8; 32] {
    #[expect(clippy::disallowed_methods, reason = "only its digest is kept, to know it again")]
    Sha256::digest(token.expose()).into()
}

#[expect(clippy::needless_pass_by_value, reason = "it takes the place of the error that it logs")]
pub(super) fn vault_trouble(error: crate::vault::Error) -> Trouble {
    tracing::error!(%error, "the vault cannot be used for a refresh");
    Trouble::Vault
}

/// The name of the host that gives an account with this metadata its tokens, as people are told it.
#[must_use]
pub(in crate::credential) fn token_host(connector: &Connector, metadata: Values<'_>) -> String {
    let provider = connector.auth.provider.as_ref();
    let url =
        provider.and_then(|provider| provider.dialect.refresh_url.as_ref().or(provider.token_url.as_ref()));
    let filled = url.and_then(|url| url.fill(metadata).ok());
    filled.map_or_else(|| connector.name.to_string(), |url| url.target().host.to_string())
}
