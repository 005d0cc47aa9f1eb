//! What a source has of an account that may be used.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Closed, Trouble,
    refresh::{Superseded, Used},
};
use crate::{
    id::{AccountKey, Scope},
    secret::Secret,
    vault::Account,
};

/// What an account has to give at present.
pub(super) struct Found {
    pub(super) account: Bare,
    pub(super) gives: Gives,
}

/// An account without its material.
pub(super) struct Bare {
    pub(super) key: AccountKey,
    pub(super) generation: u64,
    /// What the provider lets it do, in our scopes; `None` where that is not known.
    pub(super) scopes: Option<BTreeSet<Scope>>,
    /// What fills the connector's placeholders.
    pub(super) metadata: BTreeMap<String, String>,
    /// The id of the consent that created it.
    pub(super) authorization: Option<String>,
}

impl From<Account> for Bare {
    fn from(account: Account) -> Self {
        let Account { key, generation, scopes, metadata, authorization, .. } = account;
        Self { key, generation, scopes, metadata, authorization }
    }
}

/// What an account has to give.
pub(super) enum Gives {
    /// What is injected.
    Fields(Fields),
    /// Nothing until a person acts; whether one did is looked at again then.
    Closed(Closed, Option<Instant>),
    /// Nothing: its token has ended. Why there is no other, where somebody has tried to get one.
    Over(Option<Trouble>),
}

/// What is injected, and until when.
#[derive(Default)]
pub(super) struct Fields {
    /// The secrets by name, as a connector's templates use them; `None` where only their being there was asked for.
    pub(super) secrets: Option<BTreeMap<String, Secret>>,
    /// When the token was obtained; `None` where it is none that is replaced by itself.
    pub(super) obtained: Option<Timestamp>,
    /// Not after this.
    pub(super) until: Option<Instant>,
    /// When to begin to replace it.
    pub(super) due: Option<Instant>,
    /// Where requests that use it say so.
    pub(super) used: Option<Used>,
    /// Whether it is not to be used any more, read on each request.
    pub(super) superseded: Option<Superseded>,
}

impl Found {
    pub(super) fn of(account: Account, gives: Gives) -> Self {
        Self { account: account.into(), gives }
    }

    /// The same without the secrets.
    pub(super) fn unseen(mut self) -> Self {
        if let Gives::Fields(fields) = &mut self.gives {
            fields.secrets = None;
        }
        self
    }
}
