//! The shared store: PostgreSQL, open in many processes at once.
//!
//! - A change is one statement, so no connection that breaks leaves half of one: see [`statements`].
//! - A trigger tells of each changed account, and [`listen`] hears it: see there for what is believed meanwhile.
//! - The schema is made at start, under a lock: see [`migrate`].

mod database;
mod listen;
mod migrate;
mod names;
mod reach;
mod statements;
mod url;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_postgres::{Row as Found, types::Type};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::url::{DatabaseUrl, UrlError};
use self::{
    database::{Database, Parameter},
    listen::Heard,
    migrate::Schema,
    names::{FactName, Name},
    statements as sql,
};
use super::{Committed, Error, Rewrapped, Row, Store, StoredIntent, StoredNote};
use crate::{
    drain::Drain,
    id::{AccountKey, Principal, TenantId},
    vault::{Change, Config, FactKey, FactKind},
};

/// How many changes may wait to be taken.
const CHANGES: usize = 64;

/// Accounts in a database that other processes have open, too.
pub(in crate::vault) struct PostgresStore {
    database: Database,
    changes: Mutex<Option<mpsc::Receiver<Change>>>,
    heard: Heard,
    offline_use: Duration,
    /// Ends what listens.
    _open: DropGuard,
}

/// Keeps others from making the same vault meanwhile.
pub(in crate::vault) struct Entering {
    _session: deadpool_postgres::ClientWrapper,
}

impl PostgresStore {
    /// Connects to the database, and listens to what others change in it.
    pub(in crate::vault) async fn open(
        url: &DatabaseUrl,
        config: &Config,
        drain: &Drain,
    ) -> Result<Self, Error> {
        let database = Database::new(url, config)?;
        let open = CancellationToken::new();
        let (tell, changes) = mpsc::channel(CHANGES);
        let (begun, listening) = oneshot::channel();
        let (closed, stopping) = (open.clone(), drain.clone());
        let (heard, offline_use) = (Heard::new(Instant::now()), config.offline_use());
        let following = listen::follow(database.clone(), tell, heard.clone(), offline_use, begun);
        drain.spawn(async move {
            tokio::select! {
                () = following => {}
                () = closed.cancelled() => {}
                () = stopping.begun() => {}
            }
        });
        let open = open.drop_guard();
        listening.await.map_err(|_| Error::Interrupted)??;
        let changes = Mutex::new(Some(changes));
        Ok(Self { database, changes, heard, offline_use, _open: open })
    }

    /// Whether a vault's tables were ever made here. Brings them up to date.
    pub(in crate::vault) async fn exists(&self) -> Result<bool, Error> {
        let session = self.database.session().await?;
        match migrate::look(&session, self.database.place()).await? {
            Schema::Missing => Ok(false),
            Schema::Current => Ok(true),
            Schema::Outdated => self.enter().await.map(|_| true),
        }
    }

    /// Makes the tables where there are none, or brings them up to date.
    pub(in crate::vault) async fn enter(&self) -> Result<Entering, Error> {
        let place = self.database.place();
        let mut session = self.database.session().await?;
        migrate::lock(&session).await.map_err(|fault| Error::of_database(place, &fault))?;
        if migrate::look(&session, place).await? != Schema::Current {
            migrate::migrate(&mut session).await.map_err(|fault| Error::of_database(place, &fault))?;
        }
        Ok(Entering { _session: session })
    }

    /// Runs a conditional change. Says whether it was made.
    async fn change(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Made, Error> {
        let answer = self.database.ask(statement, parameters).await?;
        Ok(match (answer.rows.is_empty(), answer.is_repeated) {
            (false, _) => Made::Yes,
            (true, false) => Made::No,
            (true, true) => Made::Perhaps,
        })
    }

    async fn rows_of(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Found>, Error> {
        Ok(self.database.ask(statement, parameters).await?.rows)
    }

    /// What the database holds is not what was written.
    fn torn(&self, what: &str) -> Error {
        Error::Database { database: self.database.place().to_owned(), why: what.to_owned() }
    }
}

/// Whether a conditional change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Yes,
    No,
    /// The connection broke, and it could not be made again: because it had been, or because others were first.
    Perhaps,
}

#[async_trait]
impl Store for PostgresStore {
    async fn header(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.rows_of(sql::HEADER, &[]).await?.first().map(|row| row.get(0)))
    }

    async fn create_header(&self, header: Vec<u8>) -> Result<bool, Error> {
        Ok(self.change(sql::CREATE_HEADER, &[(&header, Type::BYTEA)]).await? == Made::Yes)
    }

    async fn data_key(&self, tenant: &TenantId) -> Result<Option<Vec<u8>>, Error> {
        let rows = self.rows_of(sql::DATA_KEY, &[(&tenant.as_str(), Type::TEXT)]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    async fn data_keys(&self) -> Result<Vec<(TenantId, Vec<u8>)>, Error> {
        let rows = self.rows_of(sql::DATA_KEYS, &[]).await?;
        rows.iter().map(|row| Ok((self.tenant(row, 0)?, row.get(1)))).collect()
    }

    async fn create_data_key(
        &self,
        tenant: &TenantId,
        sealed: Vec<u8>,
        header: &[u8],
    ) -> Result<bool, Error> {
        let parameters: [Parameter<'_>; 3] =
            [(&tenant.as_str(), Type::TEXT), (&sealed, Type::BYTEA), (&header, Type::BYTEA)];
        Ok(self.change(sql::CREATE_DATA_KEY, &parameters).await? == Made::Yes)
    }

    async fn rewrap(&self, rewrapped: Rewrapped) -> Result<bool, Error> {
        let mut session = self.database.session().await?;
        let rewrapping = rewrap(&mut session, &rewrapped);
        rewrapping.await.map_err(|fault| Error::of_database(self.database.place(), &fault))
    }

    async fn row(&self, key: &AccountKey) -> Result<Option<Row>, Error> {
        let rows = self.rows_of(sql::ROW, &Name::from(key).and([])).await?;
        rows.first().map(|row| self.account(row, 0)).transpose()
    }

    async fn put(&self, key: &AccountKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        let (name, generation) = (Name::from(key), number(row.generation)?);
        let new: [Parameter<'_>; 2] = [(&generation, Type::INT8), (&row.sealed, Type::BYTEA)];
        let made = match expected.map(number).transpose()? {
            None => self.change(sql::INSERT, &name.and(new)).await?,
            Some(before) => {
                let parameters = [name.and(new), vec![(&before, Type::INT8)]].concat();
                self.change(sql::UPDATE, &parameters).await?
            }
        };
        match made {
            Made::Yes => Ok(true),
            Made::No => Ok(false),
            Made::Perhaps => Ok(self.row(key).await? == Some(row)), // no two rows are sealed to the same bytes
        }
    }

    async fn delete(&self, key: &AccountKey, expected: u64) -> Result<bool, Error> {
        let expected = number(expected)?;
        match self.change(sql::DELETE, &Name::from(key).and([(&expected, Type::INT8)])).await? {
            Made::Yes => Ok(true),
            Made::No => Ok(false),
            Made::Perhaps => Ok(self.row(key).await?.is_none()),
        }
    }

    async fn rows(&self, tenant: Option<&TenantId>) -> Result<Vec<(AccountKey, Row)>, Error> {
        let found = self.rows_of(sql::ROWS, &[(&tenant.map(TenantId::as_str), Type::TEXT)]).await?;
        let rows = found.iter().map(|row| Ok((self.name(row, 2)?, self.account(row, 0)?)));
        sorted(rows)
    }

    async fn fact(&self, key: &FactKey) -> Result<Option<Row>, Error> {
        let rows = self.rows_of(sql::FACT, &FactName::from(key).and([])).await?;
        rows.first().map(|row| self.account(row, 0)).transpose()
    }

    async fn put_fact(&self, key: &FactKey, expected: Option<u64>, row: Row) -> Result<bool, Error> {
        let (name, generation) = (FactName::from(key), number(row.generation)?);
        let new: [Parameter<'_>; 2] = [(&generation, Type::INT8), (&row.sealed, Type::BYTEA)];
        let made = match expected.map(number).transpose()? {
            None => self.change(sql::INSERT_FACT, &name.and(new)).await?,
            Some(before) => {
                let parameters = [name.and(new), vec![(&before, Type::INT8)]].concat();
                self.change(sql::UPDATE_FACT, &parameters).await?
            }
        };
        match made {
            Made::Yes => Ok(true),
            Made::No => Ok(false),
            Made::Perhaps => Ok(self.fact(key).await? == Some(row)),
        }
    }

    async fn delete_fact(&self, key: &FactKey, expected: u64) -> Result<bool, Error> {
        let expected = number(expected)?;
        let name = FactName::from(key);
        match self.change(sql::DELETE_FACT, &name.and([(&expected, Type::INT8)])).await? {
            Made::Yes => Ok(true),
            Made::No => Ok(false),
            Made::Perhaps => Ok(self.fact(key).await?.is_none()),
        }
    }

    async fn facts(&self, kind: FactKind, tenant: Option<&TenantId>) -> Result<Vec<(FactKey, Row)>, Error> {
        let parameters: [Parameter<'_>; 2] =
            [(&kind.as_str(), Type::TEXT), (&tenant.map(TenantId::as_str), Type::TEXT)];
        let found = self.rows_of(sql::FACTS, &parameters).await?;
        let named = |row: &Found| {
            let name = String::from_utf8(row.get(3)).map_err(|_| self.torn("a fact's name is no text"))?;
            Ok((FactKey { tenant: self.tenant(row, 2)?, kind, name }, self.account(row, 0)?))
        };
        sorted(found.iter().map(named))
    }

    async fn lease(&self, key: &AccountKey, holder: &str, ttl: Duration) -> Result<Option<u64>, Error> {
        let parameters = [(&holder as _, Type::TEXT), (&ttl.as_secs_f64() as _, Type::FLOAT8)];
        let name = Name::from(key);
        let parameters = name.and(parameters);
        let mut given = self.database.ask(sql::LEASE, &parameters).await?;
        if given.rows.is_empty() && given.is_repeated {
            // Perhaps it was given at the first time, and would be in its own holder's way.
            given = self.database.ask(sql::RETAKE, &parameters).await?;
        }
        given.rows.first().map(|row| self.number(row, 0)).transpose()
    }

    async fn renew(&self, key: &AccountKey, fence: u64, ttl: Duration) -> Result<bool, Error> {
        let parameters = [(&number(fence)? as _, Type::INT8), (&ttl.as_secs_f64() as _, Type::FLOAT8)];
        Ok(self.change(sql::RENEW, &Name::from(key).and(parameters)).await? == Made::Yes)
    }

    async fn release(&self, key: &AccountKey, fence: u64) -> Result<(), Error> {
        self.rows_of(sql::RELEASE, &Name::from(key).and([(&number(fence)?, Type::INT8)])).await.map(drop)
    }

    async fn intend(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        let parameters = [(&number(fence)? as _, Type::INT8), (&sealed as _, Type::BYTEA)];
        Ok(self.change(sql::INTEND, &Name::from(key).and(parameters)).await? == Made::Yes)
    }

    async fn quarantine(&self, key: &AccountKey, fence: u64, sealed: Vec<u8>) -> Result<bool, Error> {
        let parameters = [(&number(fence)? as _, Type::INT8), (&sealed as _, Type::BYTEA)];
        Ok(self.change(sql::QUARANTINE, &Name::from(key).and(parameters)).await? == Made::Yes)
    }

    async fn commit(
        &self,
        key: &AccountKey,
        expected: u64,
        fence: u64,
        row: Row,
        note: Option<Vec<u8>>,
    ) -> Result<Committed, Error> {
        let (expected, fence, generation) = (number(expected)?, number(fence)?, number(row.generation)?);
        let parameters: [Parameter<'_>; 6] = [
            (&fence, Type::INT8),
            (&expected, Type::INT8),
            (&generation, Type::INT8),
            (&row.sealed, Type::BYTEA),
            (&note, Type::BYTEA),
            (&self.database.origin(), Type::TEXT),
        ];
        if self.change(sql::COMMIT, &Name::from(key).and(parameters)).await? == Made::Yes {
            return Ok(Committed::Done);
        }
        // Asked anew: while the statement waited for another one, what it saw at its beginning grew old.
        match self.row(key).await? {
            Some(now) if now == row => Ok(Committed::Done), // at the first time, whose answer was lost
            Some(now) if number(now.generation)? == expected => Ok(Committed::Fenced),
            _ => Ok(Committed::Moved),
        }
    }

    async fn drop_intent(&self, key: &AccountKey, fence: u64, note: Option<Vec<u8>>) -> Result<bool, Error> {
        let parameters: [Parameter<'_>; 3] =
            [(&number(fence)?, Type::INT8), (&note, Type::BYTEA), (&self.database.origin(), Type::TEXT)];
        Ok(self.change(sql::DROP_INTENT, &Name::from(key).and(parameters)).await? == Made::Yes)
    }

    async fn intent(&self, key: &AccountKey) -> Result<Option<StoredIntent>, Error> {
        let rows = self.rows_of(sql::INTENT, &Name::from(key).and([])).await?;
        rows.first().map(|row| self.stored_intent(row)).transpose()
    }

    async fn intents(&self) -> Result<Vec<(AccountKey, StoredIntent)>, Error> {
        let found = self.rows_of(sql::INTENTS, &[]).await?;
        let intents = found.iter().map(|row| Ok((self.name(row, 3)?, self.stored_intent(row)?)));
        sorted(intents)
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<StoredNote>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters: [Parameter<'_>; 2] = [(&self.database.origin(), Type::TEXT), (&limit, Type::INT8)];
        let found = self.rows_of(sql::OUTBOX, &parameters).await?;
        let note = |row: &Found| {
            Ok(StoredNote { id: self.number(row, 0)?, sealed: row.get(1), account: self.name(row, 2)? })
        };
        found.iter().map(note).collect()
    }

    async fn delivered(&self, ids: &[u64]) -> Result<(), Error> {
        let ids = ids.iter().copied().map(number).collect::<Result<Vec<_>, _>>()?;
        self.rows_of(sql::DELIVERED, &[(&ids, Type::INT8_ARRAY)]).await.map(drop)
    }

    fn changes(&self) -> Option<mpsc::Receiver<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_heard(&self) -> bool {
        self.heard.borrow().elapsed() < self.offline_use
    }
}

/// The one change of more than one statement: what it compares must be read after the header is locked.
async fn rewrap(
    session: &mut tokio_postgres::Client,
    rewrapped: &Rewrapped,
) -> Result<bool, tokio_postgres::Error> {
    let transaction = session.transaction().await?;
    let locked = transaction.query_typed(sql::LOCK_HEADER, &[(&rewrapped.old_header, Type::BYTEA)]).await?;
    let found = transaction.query_typed(sql::DATA_KEYS, &[]).await?;
    let found = found.iter().map(|row| (row.get::<_, &str>(0), row.get::<_, &[u8]>(1)));
    let read = rewrapped.data_keys.iter().map(|(tenant, old, _)| (tenant.as_str(), old.as_slice()));
    if locked.is_empty() || !found.eq(read) {
        return Ok(false);
    }
    let (tenants, keys): (Vec<&str>, Vec<&[u8]>) =
        rewrapped.data_keys.iter().map(|(tenant, _, new)| (tenant.as_str(), new.as_slice())).unzip();
    let parameters: [Parameter<'_>; 2] = [(&tenants, Type::TEXT_ARRAY), (&keys, Type::BYTEA_ARRAY)];
    transaction.query_typed(sql::UPDATE_DATA_KEYS, &parameters).await?;
    transaction.query_typed(sql::UPDATE_HEADER, &[(&rewrapped.header, Type::BYTEA)]).await?;
    transaction.commit().await?;
    Ok(true)
}

/// What was found in a row; `at` is the first of its columns.
impl PostgresStore {
    fn account(&self, row: &Found, at: usize) -> Result<Row, Error> {
        Ok(Row { generation: self.number(row, at)?, sealed: row.get(at + 1) })
    }

    fn stored_intent(&self, row: &Found) -> Result<StoredIntent, Error> {
        Ok(StoredIntent { fence: self.number(row, 0)?, sealed: row.get(1), answer: row.get(2) })
    }

    fn number(&self, row: &Found, at: usize) -> Result<u64, Error> {
        u64::try_from(row.get::<_, i64>(at)).map_err(|_| self.torn("a number is negative"))
    }

    fn tenant(&self, row: &Found, at: usize) -> Result<TenantId, Error> {
        row.get::<_, &str>(at).parse().map_err(|_| self.torn("a row's key names no tenant"))
    }

    fn name(&self, row: &Found, at: usize) -> Result<AccountKey, Error> {
        let (connector, principal): (&str, &str) = (row.get(at + 1), row.get(at + 2));
        match (self.tenant(row, at)?, connector.parse(), principal.parse::<Principal>()) {
            (tenant, Ok(connector), Ok(principal)) => Ok(AccountKey { tenant, connector, principal }),
            _ => Err(self.torn("a row's key names no account")),
        }
    }
}

/// As text, principals sort otherwise.
fn sorted<K: Ord, T>(found: impl Iterator<Item = Result<(K, T), Error>>) -> Result<Vec<(K, T)>, Error> {
    let mut found = found.collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// PostgreSQL has no unsigned numbers. A generation a nanosecond fills its own in 292 years.
fn number(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Interrupted)
}
