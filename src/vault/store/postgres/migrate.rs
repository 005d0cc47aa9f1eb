//! The schema, brought up to date at start by whoever comes first.

use tokio_postgres::{Client, Error as Fault, types::Type};

use super::Error;

/// Each is applied once, in order; a released one is never changed.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql")];

/// The version that this program knows.
const KNOWN: i32 = 1;

/// Two keybearers must not make a schema, or a vault, at once. The number stands for nothing: it is `keybeare`.
const LOCK: i64 = 0x6b65_7962_6561_7265;

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    Missing,
    Outdated,
    Current,
}

/// Keeps others from making or changing the schema until the connection is closed.
pub(super) async fn lock(client: &Client) -> Result<(), Fault> {
    client.query_typed("SELECT pg_advisory_lock($1)", &[(&LOCK, Type::INT8)]).await.map(drop)
}

/// Looks at the schema. It takes no rights but to read, and no lock.
pub(super) async fn look(client: &Client, place: &str) -> Result<Schema, Error> {
    let failed = |fault| Error::of_database(place, &fault);
    let there = "SELECT to_regclass('keybearer.migrations') IS NOT NULL";
    if !client.query_one(there, &[]).await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(Schema::Missing);
    }
    match version(client).await.map_err(failed)? {
        found if found > KNOWN => Err(Error::Newer { database: place.to_owned(), found, known: KNOWN }),
        KNOWN => Ok(Schema::Current),
        _ => Ok(Schema::Outdated),
    }
}

/// Applies what is missing, all or nothing. To be called under [`lock`].
pub(super) async fn migrate(client: &mut Client) -> Result<(), Fault> {
    let transaction = client.transaction().await?;
    // Asked for first: with `IF NOT EXISTS`, too, only who may make schemas may say CREATE.
    let there = "SELECT to_regnamespace('keybearer') IS NOT NULL";
    if !transaction.query_one(there, &[]).await?.get::<_, bool>(0) {
        transaction.batch_execute("CREATE SCHEMA keybearer").await?;
    }
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS keybearer.migrations \
             (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let done = version(transaction.client()).await?;
    for (version, sql) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > done) {
        transaction.batch_execute(sql).await?;
        let record = "INSERT INTO keybearer.migrations (version) VALUES ($1)";
        transaction.query_typed(record, &[(&version, Type::INT4)]).await?;
        tracing::info!(version, "made the vault's schema in PostgreSQL");
    }
    transaction.commit().await
}

async fn version(client: &Client) -> Result<i32, Fault> {
    let row = client.query_one("SELECT coalesce(max(version), 0) FROM keybearer.migrations", &[]).await?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_is_known() {
        assert_eq!(usize::try_from(KNOWN), Ok(MIGRATIONS.len()));
    }
}
