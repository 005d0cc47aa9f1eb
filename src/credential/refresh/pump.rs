//! From the vault's outbox into the audit log.

use std::time::Duration;

use super::{
    Engine,
    note::{Note, Told, event_of},
};
use crate::{
    audit::{self, Audit, Event},
    vault,
};

/// How many notes are taken at a time.
const BATCH: usize = 64;
/// How often the outbox is looked at for what another process left in it, or what could not be told before.
const LOOK: Duration = Duration::from_secs(30);

/// Why an outbox was not emptied.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Vault(#[from] vault::Error),
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

impl Engine {
    /// Sets the background going: the scheduler, and what takes the vault's notes to the audit log.
    pub fn run(&self, audit: Audit) {
        let drain = &self.0.parts.drain;
        drain.spawn(self.clone().schedule());
        drain.spawn(self.clone().pump(audit));
    }

    async fn pump(self, audit: Audit) {
        loop {
            if let Err(error) = self.deliver(&audit).await {
                tracing::error!(%error, "what refreshes have to tell could not be recorded yet");
            }
            tokio::select! {
                () = self.0.noted.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = self.0.parts.drain.begun() => {
                    let _ = self.deliver(&audit).await; // the rest stays in the outbox
                    return;
                }
            }
        }
    }

    /// Records every note. One that was recorded and could not be removed is recorded again, under the same id.
    pub(super) async fn deliver(&self, audit: &Audit) -> Result<(), Error> {
        while let Some(told) = self.next_untold() {
            let recorded = audit.record(told.clone()).await;
            recorded.inspect_err(|_| super::lock(&self.0.untold).push_front(told))?;
        }
        loop {
            let notes = self.0.parts.vault.outbox(BATCH).await?;
            self.0.parts.metrics.undelivered.set(i64::try_from(notes.len()).unwrap_or(i64::MAX));
            if notes.is_empty() {
                return Ok(());
            }
            let mut recorded = Vec::with_capacity(notes.len());
            for note in notes {
                for event in events(&note) {
                    audit.record(event).await?;
                }
                recorded.push(note.id);
            }
            self.0.parts.vault.delivered(&recorded).await?;
        }
    }

    fn next_untold(&self) -> Option<Event> {
        super::lock(&self.0.untold).pop_front()
    }
}

fn events(note: &vault::Note) -> Vec<Event> {
    let read = match &note.text {
        Ok(text) => Note::events(&note.account, text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|why| {
        tracing::error!(account = %note.account, why, "a note of the vault's does not open");
        let told = Told::new("account.refreshed").with_detail(Some("what there was to tell cannot be read"));
        vec![event_of(&note.account, told)]
    })
}
