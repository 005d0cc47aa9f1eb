//! Each hand-out and each refusal, on the disk before it is answered.

use std::{borrow::Cow, sync::Arc};

use super::{Broker, refusal::Refusal};
use crate::{
    audit::{Decision, Event, Kind},
    credential::wire::{Answer, Code, Question},
    id::ActionId,
    identity::Workload,
};

/// An account's secrets were handed out.
const GIVEN: &str = "credential.given";
/// They were asked for, and were not.
const WITHHELD: &str = "credential.withheld";

/// Who asked for what, by which rules.
pub(super) struct Asked<'a> {
    pub(super) workload: &'a Workload,
    pub(super) question: &'a Question,
    pub(super) revision: &'a Arc<str>,
}

impl Broker {
    /// Records that the secrets are handed out.
    ///
    /// # Errors
    /// Where that cannot be recorded: then they are not.
    pub(super) async fn record_given(&self, asked: Asked<'_>, answer: &Answer) -> Result<(), Refusal> {
        let event = Event {
            decision: Some(Decision::Allow),
            generation: Some(answer.generation),
            authorization: answer.authorization.as_deref().map(Arc::from),
            ..asked.event(GIVEN)
        };
        self.parts().audit.record(event).await.map_err(|error| {
            tracing::error!(%error, "a hand-out could not be recorded, and was not made");
            Refusal::new(Code::AuditUnavailable, "the broker cannot record the hand-out, so it is not made")
        })
    }

    /// Records that they are not. It is not done either where that cannot be recorded.
    pub(super) async fn record_withheld(&self, asked: Asked<'_>, why: &'static str, detail: Option<String>) {
        let event = Event {
            decision: Some(Decision::Deny),
            error: Some(Cow::Borrowed(why)),
            detail: detail.map(Cow::Owned),
            ..asked.event(WITHHELD)
        };
        if let Err(error) = self.parts().audit.record(event).await {
            tracing::error!(%error, "a refusal could not be recorded");
        }
    }
}

impl Asked<'_> {
    fn event(&self, name: &'static str) -> Event {
        let Question { account, subject, .. } = self.question;
        Event {
            id: Some(ActionId::now()),
            tenant: Some(subject.tenant.clone()),
            role: Some(subject.role.clone()),
            user: subject.user.clone(),
            workload: Some(self.workload.to_string().into()),
            connector: Some(account.connector.clone()),
            principal: Some(account.principal.clone()),
            account: Some(account.to_string().into()),
            policy_revision: Some(Arc::clone(self.revision)),
            ..Event::of(Kind::Account, name)
        }
    }
}
