//! Where accounts come from: the vault of this process, or a broker's.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, Trouble, found::Found};
use crate::{
    catalog::Connector,
    id::{AccountKey, Subject},
    policy::Permit,
    vault::{Change, Whole},
};

/// Which account is asked for, for whom and for what.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The account.
    pub(super) key: &'a AccountKey,
    /// Who is to use it.
    pub(super) subject: &'a Subject,
    /// What it is injected as.
    pub(super) connector: &'a Arc<Connector>,
}

impl<'a> Asked<'a> {
    pub(super) const fn by(permit: &'a Permit, connector: &'a Arc<Connector>) -> Self {
        Self { key: permit.account(), subject: permit.subject(), connector }
    }
}

/// A credential that a provider refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The generation of its account.
    pub generation: Option<u64>,
    /// When it was obtained; `None` where it is no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obtained: Option<Timestamp>,
}

/// Gives accounts to the resolver, which keeps what it was given until it is told to forget it. Nothing here is called
/// by a request whose account is known.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// Waits, within bounds, until it is known what became of an attempt that was interrupted.
    async fn settled(&self, key: &AccountKey);

    /// What the account gives to a request, which uses it.
    async fn find(&self, asked: Asked<'_>) -> Result<Found, Error>;

    /// The same for who only asks how it stands: no provider is asked, and secrets may be left out.
    async fn look(&self, asked: Asked<'_>) -> Result<Found, Error>;

    /// Waits for another token, within bounds, where [`Source::find`] found that there is none and nobody has tried to
    /// get one; says why there will be none for now.
    async fn renewed(&self, key: &AccountKey) -> Option<Trouble>;

    /// Whether there is something else by now than what a provider refused with 401. Where there is not, one attempt is
    /// made to get it, unless it is too young to have ended.
    async fn challenged(&self, asked: Asked<'_>, refused: Refused) -> bool;

    /// A request uses the account for the first time since it was refreshed, or its token ends soon. Nobody waits for
    /// what is done then.
    fn wake(&self, asked: Asked<'_>);

    /// Whether the account may not be used any more, so that open streams end. Not where nobody can tell for now.
    async fn is_over(&self, key: &AccountKey) -> bool;

    /// The same of all these accounts, where they can be told together.
    async fn are_over(&self, whose: &Whole) -> Option<bool>;

    /// Accounts have changed: what was made for them is dropped.
    fn changed(&self, change: &Change);

    /// Forgets what is noted of accounts, but for those.
    fn tidy(&self, is_known: &dyn Fn(&AccountKey) -> bool);

    /// Where a person reads how to connect the account, if that is somewhere else.
    fn reconnect_url(&self, key: &AccountKey) -> Option<Arc<str>>;
}
