//! One attempt to mint (F51): no lease, no intent and no vault, because what it costs can be made anew at any time.

use std::{collections::BTreeMap, fmt::Display, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::{
    Closed, Engine, Landing, Reason, Server, Trouble, Want,
    apps::AppKey,
    attempt::{token_host, vault_trouble},
    backoff, lock,
    minted::{Minting, Rest, Stamp, Token},
    note::Told,
    schedule::Spread,
    way::Way,
};
use crate::{
    catalog::Connector,
    cause::Cause,
    credential::seed::{Seed, SeedError, asking},
    id::{AccountKey, Scope},
    oauth::{self, AppFault, Failure, Hint, NotSent, Provider, Reach},
    secret::Secret,
    vault::{Account, Material, Status},
};

/// A provider that refuses an account is asked again after so long, once: somebody may have changed its mind there,
/// which nobody here is told of.
const REFUSED: Duration = Duration::from_mins(15);
/// One that says the account is gone, after so long.
const GONE: Duration = Duration::from_hours(1);
/// What only an operator can correct is looked at again after so long.
const UNUSABLE: Duration = Duration::from_mins(1);

/// What an attempt needs, as it was when it was read.
struct Ready {
    key: AccountKey,
    generation: u64,
    fields: BTreeMap<String, Secret>,
    metadata: BTreeMap<String, String>,
    stamp: Stamp,
    provider: Arc<Provider>,
    app: Arc<oauth::App>,
    /// Whether the app is the account's own, so that what is wrong with it is the account's.
    is_own: bool,
    way: Way,
}

impl Ready {
    fn seed(&self) -> Seed<'_> {
        Seed { connector: &self.way.connector, fields: &self.fields, metadata: &self.metadata }
    }

    fn server(&self) -> Server<'_> {
        Server { provider: &self.provider, app: &self.app, metadata: &self.metadata }
    }
}

impl Engine {
    /// How an account stands whose tokens are minted.
    pub(in crate::credential) fn minting(&self, account: &Account, connector: &Connector) -> Minting {
        self.stands(&account.key, &self.stamp(account, connector))
    }

    fn stands(&self, key: &AccountKey, stamp: &Stamp) -> Minting {
        self.0.minted.standing(key, stamp, self.0.parts.clock.now())
    }

    /// Drops what was minted for an account that has changed.
    pub(in crate::credential) fn drop_minted(&self, key: &AccountKey) {
        self.0.minted.forget(key);
        self.0.shared.forget(key);
    }

    /// The same for all accounts that are meant.
    pub(in crate::credential) fn drop_all_minted(&self, is_meant: impl Fn(&AccountKey) -> bool) {
        self.0.minted.forget_all(&is_meant);
        self.0.shared.forget_all(is_meant);
    }

    /// What the account's tokens depend on: among it the provider's scopes that the roles' grants need, as far as the
    /// account may have them, or those that the connector names.
    fn stamp(&self, account: &Account, connector: &Connector) -> Stamp {
        let scopes = connector.auth.asked.clone().unwrap_or_else(|| {
            let needed = (self.0.parts.needs)(&account.key, connector);
            let may = |scope: &Scope| account.scopes.as_ref().is_none_or(|held| held.contains(scope));
            let mut scopes = connector.provider_scopes(needed.iter().filter(|scope| may(scope)));
            scopes.sort_unstable();
            scopes
        });
        Stamp::of(account, connector.auth.provider.as_ref(), scopes)
    }

    /// Takes its turn, and mints if that is still of use then.
    pub(super) async fn mint(
        &self,
        key: &AccountKey,
        connector: Arc<Connector>,
        reason: Reason,
        urgent: &Notify,
    ) -> Landing {
        let patience = self.0.parts.config.timeout * 6;
        let turn = tokio::time::timeout(patience, self.minters_turn(key, &connector, reason, urgent)).await;
        let Some(ready) = turn.unwrap_or(Err(Trouble::Busy))? else { return Ok(()) };
        self.admit(&ready.way)?;
        let outcome = Box::pin(self.asked(&ready)).await;
        match outcome {
            Err(error) => Err(self.broken(key, ready.stamp, &error)),
            Ok(outcome) => {
                self.learn(&ready.way, "minted", &outcome);
                self.minted(ready, outcome).await
            }
        }
    }

    async fn minters_turn(
        &self,
        key: &AccountKey,
        connector: &Arc<Connector>,
        reason: Reason,
        urgent: &Notify,
    ) -> Result<Option<Ready>, Trouble> {
        let Some(ready) = self.mintable(key, connector, reason.want).await? else { return Ok(None) };
        self.room(&ready.way, reason.priority, urgent).await;
        self.mintable(key, connector, reason.want).await
    }

    /// The account as it is, if another token is of use and neither it nor its app is to be left alone.
    async fn mintable(
        &self,
        key: &AccountKey,
        connector: &Arc<Connector>,
        want: Want,
    ) -> Result<Option<Ready>, Trouble> {
        let Some(account) = self.usable(key).await? else { return Ok(None) };
        let Some(provider) = connector.auth.provider.clone() else { return Ok(None) };
        let stamp = self.stamp(&account, connector);
        let Account { generation, metadata, material: Material::Seed { fields }, .. } = account else {
            return Ok(None);
        };
        let is_wanted = match (want, self.stands(key, &stamp)) {
            (Want::Any | Want::Newer(_), Minting::Over) => true,
            (Want::Newer(than), Minting::Live(minted)) => minted.token.obtained == than,
            _ => false,
        };
        if !is_wanted {
            return Ok(None);
        }
        if let Some((trouble, until)) = self.0.minted.failing(key, &stamp) {
            return Err(trouble.lasting(until.saturating_duration_since(Instant::now())));
        }
        let configured = self.0.parts.apps.of(&key.connector, &key.tenant);
        let seed = Seed { connector, fields: &fields, metadata: &metadata };
        let own = seed.own_app().map_err(|error| self.broken(key, stamp.clone(), &error))?;
        let is_own = own.is_some() || configured.is_none();
        let app = asking(own, configured, connector.auth.kind).ok_or(Trouble::NoApp)?;
        let name = if is_own {
            AppKey::Own(key.clone())
        } else {
            AppKey::Shared { connector: key.connector.clone(), client: app.client_id.clone() }
        };
        let shared = self.0.shared.app(&name);
        let host = token_host(connector, &|name| metadata.get(name).map(String::as_str));
        let way = Way { connector: Arc::clone(connector), shared, host };
        self.peek(&way)?;
        Ok(Some(Ready { key: key.clone(), generation, fields, metadata, stamp, provider, app, is_own, way }))
    }

    /// The account, if it may be used.
    async fn usable(&self, key: &AccountKey) -> Result<Option<Account>, Trouble> {
        let vault = &self.0.parts.vault;
        let account = vault.account(key).await.map_err(vault_trouble)?;
        let hold = vault.held(key).await.map_err(vault_trouble)?;
        Ok(account.filter(|account| account.status == Status::Active && hold.is_none()))
    }

    /// Asks once, with what the account holds.
    async fn asked(&self, ready: &Ready) -> Result<Result<Token, Failure>, SeedError> {
        let ask = ready.seed().ask(&ready.key, &ready.app, ready.stamp.scopes.clone())?;
        let (exchange, server) = (&self.0.parts.exchange, ready.server());
        let mut outcome = exchange.mint(server, &ask).await;
        if let Ok(token) = &mut outcome
            && token.expires.is_none()
            && ready.provider.dialect.introspect_url.is_some()
            && let Some(opaque) = token.fields.get("token")
            && let Ok(learnt) = exchange.introspect(server, opaque).await
        {
            token.expires = learnt.expires.filter(|_| learnt.active);
        }
        Ok(outcome)
    }

    async fn minted(&self, ready: Ready, outcome: Result<Token, Failure>) -> Landing {
        let key = ready.key.clone();
        match outcome {
            Ok(token) => self.keep(ready, token).await,
            Err(Failure::App(fault)) if !ready.is_own && fault != AppFault::Request => {
                if let Some(told) = self.refused(&ready.way, &ready.app.client_id, fault) {
                    self.tell(&key, told);
                }
                let wait = ready.way.shared.peek(Instant::now()).err().unwrap_or_default();
                Err(Trouble::AppPaused { retry_after: wait })
            }
            Err(Failure::App(fault)) => {
                let cause = match fault {
                    AppFault::Credentials | AppFault::Forbidden => Cause::WrongClient,
                    AppFault::Request | AppFault::Redirect | AppFault::NoEndpoint => Cause::Policy,
                };
                self.close(ready, Closed::Refused(cause), REFUSED, Some(&fault.to_string()));
                Ok(())
            }
            Err(Failure::Definitive(cause) | Failure::NeedsUser { cause, .. }) => {
                self.close(ready, Closed::Refused(cause), REFUSED, None);
                Ok(())
            }
            Err(Failure::SubjectGone(cause)) => {
                self.close(ready, Closed::SubjectGone(cause), GONE, None);
                Ok(())
            }
            Err(Failure::Unreadable(why)) => {
                tracing::error!(account = %key, %why, "what was minted cannot be read");
                Err(self.put_off(&key, ready.stamp, Trouble::Unreadable, UNUSABLE))
            }
            Err(Failure::NotSent(
                why @ (NotSent::Metadata(_) | NotSent::NoUrl(_) | NotSent::Unsigned(_) | NotSent::Request),
            )) => Err(self.broken(&key, ready.stamp, &why)),
            Err(Failure::Transient { retry_after }) => Err(self.back_off(ready, retry_after)),
            Err(Failure::NotSent(_) | Failure::Ambiguous) => Err(self.back_off(ready, None)),
        }
    }

    /// Gives the token to whoever waits, unless the account is another one by now: then nobody may use it (F37).
    async fn keep(&self, ready: Ready, token: Token) -> Landing {
        let key = ready.key.clone();
        let now = self.usable(&key).await?;
        if now.is_none_or(|now| self.stamp(&now, &ready.way.connector) != ready.stamp) {
            if ready.provider.dialect.revocation_reach == Reach::Token
                && let Some(token) = token.fields.get("token")
            {
                let _ = self.0.parts.exchange.revoke(ready.server(), token, Hint::AccessToken).await;
            }
            return Ok(());
        }
        let detail =
            (!ready.stamp.scopes.is_empty()).then(|| format!("for {}", ready.stamp.scopes.join(" ")));
        self.0.minted.keep(&key, ready.stamp, token);
        self.is_used_no_more(&key);
        lock(&self.0.paced).remove(&key);
        self.tell(&key, Told::new("account.minted").with_detail(detail.as_deref()));
        Ok(())
    }

    /// Asks no more for so long, whoever comes.
    fn close(&self, ready: Ready, closed: Closed, wait: Duration, detail: Option<&str>) {
        let key = &ready.key;
        let event = match closed {
            Closed::SubjectGone(_) => "account.subject_gone",
            _ => "account.mint_refused",
        };
        let cause = closed.cause().as_str();
        tracing::warn!(account = %key, cause, detail, "the provider mints nothing for this account");
        self.tell(key, Told::new(event).with_cause(cause).with_detail(detail));
        self.0.minted.rest(key, ready.stamp, Rest::Refused(closed), Instant::now() + wait);
    }

    fn back_off(&self, ready: Ready, asked: Option<Duration>) -> Trouble {
        let key = &ready.key;
        let failures = self.0.minted.failures(key, &ready.stamp);
        if failures == 0 {
            self.tell(key, Told::new("account.refresh_failing"));
        }
        let spread = Spread::of(key, ready.generation, &self.0.parts.replica);
        let wait = backoff::wait(failures.saturating_add(1), asked, spread);
        self.put_off(key, ready.stamp, Trouble::Unreachable { retry_after: wait }, wait)
    }

    fn put_off(&self, key: &AccountKey, stamp: Stamp, trouble: Trouble, wait: Duration) -> Trouble {
        self.0.minted.rest(key, stamp, Rest::Failing(trouble), Instant::now() + wait);
        trouble
    }

    /// Only an operator can correct it.
    fn broken(&self, key: &AccountKey, stamp: Stamp, error: &dyn Display) -> Trouble {
        tracing::error!(account = %key, %error, "nothing can be minted from what the account holds");
        self.put_off(key, stamp, Trouble::Seed, UNUSABLE)
    }
}
