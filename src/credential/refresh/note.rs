//! What there is to tell of a refresh. It is put into the vault's outbox in the same step as the change it tells of,
//! and goes from there into the audit log: at least once, under an id that shows a repetition.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    audit::{Event, Kind},
    id::{AccountKey, ActionId, Scope},
    vault::Account,
};

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    id: ActionId,
    event: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// What a note says: everything of one commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    told: Vec<Told>,
    generation: u64,
    authorization: Option<String>,
    scopes: Option<Vec<Scope>>,
}

impl Told {
    pub(super) fn new(event: &'static str) -> Self {
        Self { id: ActionId::now(), event: Cow::Borrowed(event), cause: None, detail: None }
    }

    pub(super) fn with_cause(self, cause: &str) -> Self {
        Self { cause: Some(cause.to_owned()), ..self }
    }

    pub(super) fn with_detail(self, detail: Option<&str>) -> Self {
        Self { detail: detail.map(str::to_owned), ..self }
    }

    pub(super) fn event(&self) -> &str {
        &self.event
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    fn into_event(self, key: &AccountKey) -> Event {
        Event {
            id: Some(self.id),
            event: Some(self.event),
            error: self.cause.map(Cow::Owned),
            detail: self.detail.map(Cow::Owned),
            tenant: Some(key.tenant.clone()),
            connector: Some(key.connector.clone()),
            principal: Some(key.principal.clone()),
            account: Some(key.to_string().into()),
            kind: Kind::Account,
            ..Event::default()
        }
    }
}

impl Note {
    /// The note of a commit; `None` where there is nothing to tell.
    pub(super) fn of(told: &[Told], next: &Account, generation: u64) -> Option<Vec<u8>> {
        if told.is_empty() {
            return None;
        }
        let note = Self {
            told: told.to_vec(),
            generation,
            authorization: next.authorization.clone(),
            scopes: next.scopes.clone().map(Vec::from_iter),
        };
        serde_json::to_vec(&note).ok() // names and numbers, which always can be written
    }

    /// The events of a note, as the vault gives it back.
    ///
    /// # Errors
    /// Where it is none: a newer keybearer wrote it.
    pub(super) fn events(key: &AccountKey, text: &[u8]) -> Result<Vec<Event>, serde_json::Error> {
        let note: Self = serde_json::from_slice(text)?;
        let authorization: Option<Arc<str>> = note.authorization.map(Arc::from);
        let complete = |told: Told| Event {
            generation: Some(note.generation),
            authorization: authorization.clone(),
            scopes_granted: note.scopes.clone(),
            ..told.into_event(key)
        };
        Ok(note.told.into_iter().map(complete).collect())
    }
}

/// What is told of an account without a change of it.
pub(super) fn event_of(key: &AccountKey, told: Told) -> Event {
    told.into_event(key)
}
