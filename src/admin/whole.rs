//! Freezing, unfreezing and revoking as a whole: a tenant, or one of its users.

use std::borrow::Cow;

use jiff::Timestamp;

use super::{Desk, Error, Listed, Reply, command::Held};
use crate::{
    audit::{Event, Kind},
    id::{ActionId, TenantId},
    vault::{self, Change, Hold, Lift, Source, Whole},
};

impl Desk {
    /// Freezes all accounts of a tenant or user. Says whether this source had not done so before. Recorded, on the
    /// disk, and known to the next request when this returns; made to its end even if the caller goes away.
    pub(super) async fn hold(&self, whose: &Whole, hold: Hold) -> Result<bool, Error> {
        let whose = whose.clone();
        self.alone(|desk| async move {
            let before = desk.vault().holds_of(&whose).await?;
            if !before.iter().any(|other| other.source == hold.source) {
                let detail = format!("all accounts, by {}", hold.by);
                desk.record_whole(&whose, "frozen", detail).await?;
            }
            let made = desk.vault().hold(&whose, hold).await;
            desk.made_whole(&whose, made).await
        })
        .await
    }

    /// Lifts holds, and returns those that it lifted.
    pub(super) async fn lift(&self, whose: &Whole, lift: Lift) -> Result<Vec<Hold>, Error> {
        let whose = whose.clone();
        self.alone(|desk| async move {
            let before = desk.vault().holds_of(&whose).await?;
            let lifted: Vec<&Hold> = before.iter().filter(|hold| lift.lifts(hold)).collect();
            if lifted.is_empty() {
                return Ok(Vec::new());
            }
            let detail =
                lifted.iter().map(|hold| format!("frozen by {}", hold.by)).collect::<Vec<_>>().join(", ");
            desk.record_whole(&whose, "unfrozen", detail).await?;
            let made = desk.vault().lift(&whose, &lift).await;
            desk.made_whole(&whose, made).await
        })
        .await
    }

    pub(super) async fn freeze_all(&self, whose: Whole, by: String) -> Result<Reply, Error> {
        let hold = Hold { source: Source::Operator, by, since: Timestamp::now() };
        self.hold(&whose, hold).await?;
        self.holds_of(whose).await
    }

    /// Lifts what operators did, or all.
    pub(super) async fn unfreeze_all(&self, whose: Whole, force: bool) -> Result<Reply, Error> {
        let lift = if force { Lift::All } else { Lift::Of { source: Source::Operator, until: None } };
        self.lift(&whose, lift).await?;
        self.holds_of(whose).await
    }

    /// Revokes every account that there is. One that cannot be revoked does not save the others.
    pub(super) async fn revoke_all(&self, whose: Whole) -> Result<Reply, Error> {
        let reply = self.alone(|desk| async move {
            let keys = desk.vault().keys(whose.tenant()).await?;
            let (mut revoked, mut failed) = (Vec::new(), None);
            for key in keys.into_iter().filter(|key| whose.has(key)) {
                match desk.revoke(key).await {
                    Ok(account) => revoked.push(Listed::from(&account)),
                    Err(error) => failed = Some(error),
                }
            }
            failed.map_or(Ok(Reply::Accounts(revoked)), Err)
        });
        reply.await
    }

    /// What is frozen as a whole.
    pub(super) async fn holds(&self, tenant: Option<&TenantId>) -> Result<Reply, Error> {
        let holds = self.vault().holds(tenant).await?;
        Ok(Reply::Holds(holds.iter().map(|(whose, hold)| Held::new(whose, hold)).collect()))
    }

    async fn holds_of(&self, whose: Whole) -> Result<Reply, Error> {
        let holds = self.vault().holds_of(&whose).await?;
        Ok(Reply::Holds(holds.iter().map(|hold| Held::new(&whose, hold)).collect()))
    }

    async fn record_whole(&self, whose: &Whole, done: &str, detail: String) -> Result<(), Error> {
        let event = Event { detail: Some(Cow::Owned(detail)), ..about(whose, done) };
        Ok(self.audit().record(event).await?)
    }

    /// Makes the change known to the next request. One that was recorded and then not made is recorded as that.
    async fn made_whole<T>(&self, whose: &Whole, outcome: Result<T, vault::Error>) -> Result<T, Error> {
        // Also where the store failed: it may have been made.
        self.resolver().follow(&Change::Whole(whose.clone())).await;
        if let Err(error) = &outcome {
            self.record_failure(about(whose, "failed"), error).await;
        }
        Ok(outcome?)
    }
}

/// `tenant.frozen`, `user.unfrozen`.
fn about(whose: &Whole, done: &str) -> Event {
    let what = if whose.user().is_some() { "user" } else { "tenant" };
    Event {
        id: Some(ActionId::now()),
        event: Some(Cow::Owned(format!("{what}.{done}"))),
        tenant: Some(whose.tenant().clone()),
        user: whose.user().cloned(),
        ..Event::of(Kind::Account, "")
    }
}
