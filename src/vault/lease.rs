//! What a refresh leaves on disk, step by step: a lease, the intent before the request is sent, the raw answer before
//! it is read, and the new generation with what there is to tell of it.
//!
//! Whoever is killed in between leaves an [`Orphan`], and the next one to lease the account is handed it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Account, Error, Vault,
    seal::{Bound, Key},
    store::{self, StoredIntent},
};
use crate::{
    id::AccountKey,
    secret::{Secret, to_json},
};

/// The right to refresh one account. Dropping it gives nothing up: [`Vault::release`] does, or its time.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    key: AccountKey,
    fence: u64,
    orphan: Option<Orphan>,
}

impl Lease {
    /// Whose it is.
    #[must_use]
    pub const fn key(&self) -> &AccountKey {
        &self.key
    }

    /// Its number: greater than that of every lease which the account had before.
    #[must_use]
    pub const fn fence(&self) -> u64 {
        self.fence
    }

    /// What an earlier holder began and did not end.
    #[must_use]
    pub const fn orphan(&self) -> Option<&Orphan> {
        self.orphan.as_ref()
    }
}

/// What is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The generation whose refresh token is sent.
    pub generation: u64,
    /// SHA-256 of that token.
    pub token_hash: [u8; 32],
    /// When.
    pub started: Timestamp,
    /// When whoever sends it will have given up.
    pub deadline: Timestamp,
    /// Who sends it.
    pub replica: String,
}

/// An intent that was neither committed nor dropped: of a process that ended, or that is still at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The fence under which it was written.
    pub fence: u64,
    /// What was about to be sent.
    pub intent: Intent,
    /// What came back, as it came; `None` where nothing did.
    pub answer: Option<Secret>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// This is the account now.
    Done(Box<Account>),
    /// Nothing was written: somebody froze, changed or removed the account in between.
    Moved,
    /// Nothing was written: the lease is another one's by now.
    Fenced,
}

/// Something to tell of a change that was made.
#[derive(Debug)]
pub struct Note {
    /// What [`Vault::delivered`] takes. Rises from note to note.
    pub id: u64,
    /// The account that was changed.
    pub account: AccountKey,
    /// What was handed to the commit; an error where it does not open.
    pub text: Result<Vec<u8>, Error>,
}

impl Vault {
    /// Leases an account for so long; `None` while another lease lasts, or where there is no such account. `holder`
    /// is for people to read. What is to be refreshed must be read after this.
    ///
    /// # Errors
    /// Where the store fails, or an earlier holder's intent does not open.
    pub async fn lease(&self, key: &AccountKey, holder: &str, ttl: Duration) -> Result<Option<Lease>, Error> {
        let Some(fence) = self.0.store.lease(key, holder, ttl).await? else { return Ok(None) };
        match self.orphan(key).await {
            Ok(orphan) => Ok(Some(Lease { key: key.clone(), fence, orphan })),
            Err(error) => {
                self.0.store.release(key, fence).await?;
                Err(error)
            }
        }
    }

    /// Lets the lease last for so long from now. `false` where it is another one's by now: whatever is sent after
    /// that cannot be committed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, Error> {
        Ok(self.0.store.renew(&lease.key, lease.fence, ttl).await?)
    }

    /// Gives the lease up.
    ///
    /// # Errors
    /// Where the store fails; then it ends with its time.
    pub async fn release(&self, lease: &Lease) -> Result<(), Error> {
        Ok(self.0.store.release(&lease.key, lease.fence).await?)
    }

    /// Writes what is about to be sent, over an [`Orphan`] without an answer. `false` where the lease is another
    /// one's by now, or an answer lies there that must be committed or dropped first: nothing may be sent then.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn intend(&self, lease: &Lease, intent: &Intent) -> Result<bool, Error> {
        let cannot = || Error::CannotSeal(format!("the intent of {}", lease.key));
        let text = to_json(intent).map_err(|_| cannot())?;
        let bound = Bound::intent(&lease.key, lease.fence);
        let sealed = self.key_of(&lease.key).await?.seal(&bound, &text).map_err(|_| cannot())?;
        Ok(self.0.store.intend(&lease.key, lease.fence, sealed).await?)
    }

    /// Keeps the raw answer beside the intent, before anybody reads it. That succeeds also where the lease has run
    /// out, unless the next holder has sent something itself: then it is `false`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn quarantine(&self, lease: &Lease, answer: &Secret) -> Result<bool, Error> {
        let bound = Bound::answer(&lease.key, lease.fence);
        #[expect(clippy::disallowed_methods, reason = "this is where it is sealed")]
        let sealed = self.key_of(&lease.key).await?.seal(&bound, answer.expose());
        let sealed = sealed.map_err(|_| Error::CannotSeal(format!("the answer for {}", lease.key)))?;
        let (key, fence) = (lease.key.clone(), lease.fence);
        self.uncancelled(|vault| async move { Ok(vault.0.store.quarantine(&key, fence, sealed).await?) })
            .await
    }

    /// Writes `next` over the generation before it, removes the intent and its answer, and keeps what there is to
    /// tell: all of it or nothing. Number and time of the new generation are set here.
    ///
    /// # Errors
    /// [`Error::Secret`], or where the store fails: then look what became of it.
    pub async fn commit(
        &self,
        lease: &Lease,
        before: u64,
        next: Account,
        note: Option<&[u8]>,
    ) -> Result<Committed, Error> {
        next.material.check()?;
        let note = self.sealed_note(&lease.key, note).await?;
        let fence = lease.fence;
        let account =
            Account { key: lease.key.clone(), generation: before + 1, updated: Timestamp::now(), ..next };
        self.uncancelled(move |vault| async move {
            let row = vault.sealed_row(&account).await?;
            let outcome = vault.0.store.commit(&account.key, before, fence, row, note).await;
            let changed = outcome.map(|outcome| (outcome == store::Committed::Done, outcome));
            match vault.told(&account.key, changed)? {
                store::Committed::Done => Ok(Committed::Done(Box::new(account))),
                store::Committed::Moved => Ok(Committed::Moved),
                store::Committed::Fenced => Ok(Committed::Fenced),
            }
        })
        .await
    }

    /// Removes the intent and its answer, and keeps what there is to tell. `false` where the lease is another one's
    /// by now.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn drop_intent(&self, lease: &Lease, note: Option<&[u8]>) -> Result<bool, Error> {
        let note = self.sealed_note(&lease.key, note).await?;
        let (key, fence) = (lease.key.clone(), lease.fence);
        self.uncancelled(|vault| async move { Ok(vault.0.store.drop_intent(&key, fence, note).await?) }).await
    }

    /// All intents, in the order of their accounts' keys: those that are being carried out, and orphans.
    ///
    /// # Errors
    /// Where the store fails. One that does not open is no error here.
    pub async fn intents(&self) -> Result<Vec<(AccountKey, Result<Orphan, Error>)>, Error> {
        let stored = self.0.store.intents().await?;
        let mut intents = Vec::with_capacity(stored.len());
        for (key, intent) in stored {
            let opened = match self.key_of(&key).await {
                Ok(data_key) => open_intent(&data_key, &key, intent),
                Err(error @ (Error::Store(_) | Error::WrongKey { .. })) => return Err(error),
                Err(error) => Err(error),
            };
            intents.push((key, opened));
        }
        Ok(intents)
    }

    /// The oldest notes, at most so many, in their order.
    ///
    /// # Errors
    /// Where the store fails. One that does not open is no error here.
    pub async fn outbox(&self, limit: usize) -> Result<Vec<Note>, Error> {
        let stored = self.0.store.outbox(limit).await?;
        let mut notes = Vec::with_capacity(stored.len());
        for note in stored {
            let text = match self.key_of(&note.account).await {
                Ok(key) => key.open(&Bound::note(&note.account), &note.sealed).map_err(|error| {
                    Error::unopened(format!("a note about the account {}", note.account), error.to_string())
                }),
                Err(error @ (Error::Store(_) | Error::WrongKey { .. })) => return Err(error),
                Err(error) => Err(error),
            };
            notes.push(Note { id: note.id, account: note.account, text: text.map(|text| text.to_vec()) });
        }
        Ok(notes)
    }

    /// Removes notes that were told.
    ///
    /// # Errors
    /// Where the store fails; then they will be told once more.
    pub async fn delivered(&self, ids: &[u64]) -> Result<(), Error> {
        Ok(self.0.store.delivered(ids).await?)
    }

    async fn orphan(&self, key: &AccountKey) -> Result<Option<Orphan>, Error> {
        let Some(stored) = self.0.store.intent(key).await? else { return Ok(None) };
        open_intent(&self.key_of(key).await?, key, stored).map(Some)
    }

    async fn sealed_note(&self, key: &AccountKey, note: Option<&[u8]>) -> Result<Option<Vec<u8>>, Error> {
        let Some(text) = note else { return Ok(None) };
        let sealed = self.key_of(key).await?.seal(&Bound::note(key), text);
        sealed.map(Some).map_err(|_| Error::CannotSeal(format!("a note about {key}")))
    }

    /// The data key of an account that is there.
    async fn key_of(&self, key: &AccountKey) -> Result<Key, Error> {
        let what = || format!("the data key of {}", key.tenant);
        self.data_key(&key.tenant).await?.map_err(|why| Error::unopened(what(), why))
    }
}

fn open_intent(data_key: &Key, key: &AccountKey, stored: StoredIntent) -> Result<Orphan, Error> {
    let unopened = |why: String| Error::Unopened {
        what: format!("the intent of the account {key}"),
        why,
        removable: true,
    };
    let text = data_key
        .open(&Bound::intent(key, stored.fence), &stored.sealed)
        .map_err(|error| unopened(error.to_string()))?;
    let intent =
        serde_json::from_slice(&text).map_err(|_| unopened("a newer keybearer wrote it".to_owned()))?;
    let answer = match stored.answer {
        Some(sealed) => {
            let opened = data_key.open(&Bound::answer(key, stored.fence), &sealed);
            Some(Secret::new(opened.map_err(|error| unopened(error.to_string()))?.to_vec()))
        }
        None => None,
    };
    Ok(Orphan { fence: stored.fence, intent, answer })
}
