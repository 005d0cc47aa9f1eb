//! The background: each account is refreshed when its time has come, and nobody has to ask for it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};

use super::{
    Engine, Landing, Minting, Priority, Token, Want,
    clock::after,
    note::Told,
    schedule::{self, Spread},
    state::{self, Reason},
};
use crate::{
    catalog::Connector,
    id::AccountKey,
    vault::{Account, Change, Material},
};

/// How often the timetable is looked at, at least: the calendar may be corrected.
const TICK: Duration = Duration::from_mins(1);
/// How often it is looked at for what metrics show of it, at most: every account is, then.
const SHOW: Duration = Duration::from_secs(1);
/// No account is tried again in the background before.
const REST: Duration = Duration::from_secs(5);

/// What is planned for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Planned {
    refresh: Option<(Timestamp, Reason)>,
    /// When its owner is to be told that it ends, and how many days before.
    warning: Option<(Timestamp, u64)>,
    /// When the token in use ends, if it is to be refreshed ahead of that.
    expires: Option<Timestamp>,
}

impl Planned {
    fn first(&self) -> Option<Timestamp> {
        let refresh = self.refresh.map(|(at, _)| at);
        refresh.into_iter().chain(self.warning.map(|(at, _)| at)).min()
    }
}

/// What is planned, by time and by account.
#[derive(Debug, Default)]
struct Timetable {
    due: BTreeSet<(Timestamp, AccountKey)>,
    of: HashMap<AccountKey, Planned>,
    /// Begun from here and not ended: nothing is planned for these, or one account would take the room of two.
    under_way: HashSet<AccountKey>,
}

impl Timetable {
    fn set(&mut self, key: &AccountKey, planned: Planned) {
        self.remove(key);
        if let Some(at) = planned.first().filter(|_| !self.under_way.contains(key)) {
            self.due.insert((at, key.clone()));
            self.of.insert(key.clone(), planned);
        }
    }

    fn remove(&mut self, key: &AccountKey) {
        if let Some(at) = self.of.remove(key).and_then(|planned| planned.first()) {
            self.due.remove(&(at, key.clone()));
        }
    }

    fn first(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next account whose time has come.
    fn take(&mut self, now: Timestamp) -> Option<(AccountKey, Planned)> {
        if self.first()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let planned = self.of.remove(&key)?;
        Some((key, planned))
    }

    /// When the first token in use ends.
    fn expires(&self) -> Option<Timestamp> {
        self.of.values().filter_map(|planned| planned.expires).min()
    }
}

impl Engine {
    /// Refreshes accounts as their times come, until the process stops.
    pub(super) async fn schedule(self) {
        let parts = &self.0.parts;
        let mut changes = parts.vault.changes();
        let mut table = Timetable::default();
        let at_once = parts.config.at_once.get() as usize;
        let (landed, mut landings) = mpsc::unbounded_channel();
        let woken = super::lock(&self.0.woken).take();
        let Some(mut woken) = woken else { return }; // it runs already
        self.plan_all(&mut table).await;
        let mut shown = None::<Instant>;
        loop {
            if shown.is_none_or(|at| at.elapsed() >= SHOW) {
                self.show(&table);
                shown = Some(Instant::now());
            }
            let now = parts.clock.now();
            let wake = parts.clock.instant(table.first().unwrap_or(Timestamp::MAX).min(after(now, TICK)));
            tokio::select! {
                told = changes.recv() => match told {
                    Ok(Change::Account(key)) => self.plan(&key, Timestamp::MIN, &mut table).await,
                    Ok(Change::Whole(_) | Change::Unknown) | Err(RecvError::Lagged(_)) => self.plan_all(&mut table).await,
                    Err(RecvError::Closed) => return,
                },
                Some((key, landing)) = landings.recv() => {
                    table.under_way.remove(&key);
                    let rest = Landing::err(landing).map_or(REST, |trouble| trouble.retry_after().max(REST));
                    self.plan(&key, after(parts.clock.now(), rest), &mut table).await;
                }
                Some(key) = woken.recv() => {
                    super::lock(&self.0.waiting).remove(&key);
                    self.plan(&key, Timestamp::MIN, &mut table).await;
                }
                () = tokio::time::sleep_until(wake), if table.under_way.len() < at_once => {
                    while table.under_way.len() < at_once
                        && let Some((key, planned)) = table.take(parts.clock.now())
                    {
                        self.begin(key, planned, &mut table, &landed).await;
                    }
                }
                () = parts.drain.begun() => return,
            }
        }
    }

    async fn begin(
        &self,
        key: AccountKey,
        planned: Planned,
        table: &mut Timetable,
        landed: &mpsc::UnboundedSender<(AccountKey, Landing)>,
    ) {
        let now = self.0.parts.clock.now();
        if let Some((_, days)) = planned.warning.filter(|(at, _)| *at <= now) {
            self.warn(&key, days);
        }
        let Some((_, reason)) = planned.refresh.filter(|(at, _)| *at <= now) else {
            self.plan(&key, Timestamp::MIN, table).await;
            return;
        };
        let (flight, landed) = (self.join(&key, reason), landed.clone());
        table.under_way.insert(key.clone());
        self.0.parts.drain.spawn(async move {
            let _ = landed.send((key, flight.landed().await)); // an error says that the process stops
        });
    }

    /// Plans every account.
    async fn plan_all(&self, table: &mut Timetable) {
        match self.0.parts.vault.each(None).await {
            Ok(accounts) => {
                *table =
                    Timetable { under_way: std::mem::take(&mut table.under_way), ..Timetable::default() };
                for (key, account) in accounts {
                    match account {
                        Ok(_) if self.is_held(&key).await => {}
                        Ok(account) => table.set(&key, self.planned(&account, Timestamp::MIN)),
                        Err(error) => tracing::warn!(account = %key, %error, "an account is not refreshed"),
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the accounts could not be read to plan their refreshes"),
        }
    }

    async fn plan(&self, key: &AccountKey, not_before: Timestamp, table: &mut Timetable) {
        match self.0.parts.vault.account(key).await {
            Ok(Some(_)) if self.is_held(key).await => table.remove(key),
            Ok(Some(account)) => table.set(key, self.planned(&account, not_before)),
            Ok(None) => {
                self.forget(key);
                table.remove(key);
            }
            Err(error) => tracing::warn!(account = %key, %error, "an account is not refreshed"),
        }
    }

    /// Whether its user or tenant is frozen as a whole, or nobody can tell.
    async fn is_held(&self, key: &AccountKey) -> bool {
        !matches!(self.0.parts.vault.held(key).await, Ok(None))
    }

    fn planned(&self, account: &Account, not_before: Timestamp) -> Planned {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let mut planned = Planned { refresh: None, warning: None, expires: None };
        let Some(connector) = (parts.connectors)(&account.key.connector) else { return planned };
        if matches!(account.material, Material::Seed { .. }) {
            return self.planned_to_mint(account, &connector, not_before).unwrap_or(planned);
        }
        let Material::Oauth(grant) = &account.material else { return planned };
        let Some(provider) = &connector.auth.provider else { return planned };
        let spread = Spread::of(&account.key, account.generation, &parts.replica);
        let is_used = self.is_used(&account.key);
        let next = state::next(account, &provider.dialect, is_used, now, spread);
        planned.refresh = next.map(|(at, reason)| (at.max(not_before), reason));
        planned.expires = grant
            .access
            .as_ref()
            .and_then(|access| access.expires)
            .filter(|_| next.is_some_and(|(_, reason)| reason.priority == Priority::Ahead));
        planned.warning = grant.deadline.and_then(|deadline| schedule::warnings(deadline, now).next());
        planned
    }

    /// A minted token is replaced ahead of its end if it was used, and only then: the next one costs whoever needs it
    /// one question, and nothing is lost by not having it.
    fn planned_to_mint(
        &self,
        account: &Account,
        connector: &Connector,
        not_before: Timestamp,
    ) -> Option<Planned> {
        let Minting::Live(minted) = self.minting(account, connector) else { return None };
        let Token { obtained, expires, .. } = minted.token;
        let due = self.due_between(account, obtained, expires).filter(|_| self.is_used(&account.key))?;
        let reason = Reason { priority: Priority::Ahead, want: Want::Newer(obtained) };
        Some(Planned { refresh: Some((due.max(not_before), reason)), warning: None, expires })
    }

    fn warn(&self, key: &AccountKey, days: u64) {
        tracing::warn!(account = %key, days, "this account's authorization ends for good; somebody has to connect it again");
        let detail = format!("its authorization ends in {days} days; connect it again before");
        self.tell(key, Told::new("account.expiring").with_detail(Some(&detail)));
    }

    fn show(&self, table: &Timetable) {
        let now = self.0.parts.clock.now();
        let left = table.expires().map(|expires| expires.duration_since(now).as_secs());
        self.0.parts.metrics.first_end(left);
    }
}
