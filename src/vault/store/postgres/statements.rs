//! What is asked of the database, each in one statement: one round trip, one transaction, nothing half done.
//!
//! `$1`, `$2` and `$3` are the account wherever one is meant. Where a statement depends on a lease, it locks that
//! first: a lease is given only when what its former holder had begun is there to be seen, or can no longer come.

/// The header, if there is one.
pub(super) const HEADER: &str = "SELECT header FROM keybearer.header";

/// `$1` header.
pub(super) const CREATE_HEADER: &str =
    "INSERT INTO keybearer.header (header) VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1";

/// `$1` tenant.
pub(super) const DATA_KEY: &str = "SELECT sealed FROM keybearer.data_keys WHERE tenant = $1";

/// All, in the order of the tenants.
pub(super) const DATA_KEYS: &str = "SELECT tenant, sealed FROM keybearer.data_keys ORDER BY tenant";

/// `$1` tenant, `$2` sealed, `$3` the header under whose key it was sealed. [`LOCK_HEADER`] keeps it out.
pub(super) const CREATE_DATA_KEY: &str = "
    INSERT INTO keybearer.data_keys (tenant, sealed)
    SELECT $1, $2 FROM keybearer.header WHERE header = $3 FOR SHARE
    ON CONFLICT DO NOTHING RETURNING 1";

/// `$1` the header that must be there.
pub(super) const LOCK_HEADER: &str = "SELECT 1 FROM keybearer.header WHERE header = $1 FOR UPDATE";

/// `$1` header.
pub(super) const UPDATE_HEADER: &str = "UPDATE keybearer.header SET header = $1";

/// `$1` tenants, `$2` their data keys.
pub(super) const UPDATE_DATA_KEYS: &str = "
    UPDATE keybearer.data_keys SET sealed = new.sealed
    FROM unnest($1::text[], $2::bytea[]) AS new (tenant, sealed) WHERE data_keys.tenant = new.tenant";

/// Generation and bytes.
pub(super) const ROW: &str = "
    SELECT generation, sealed FROM keybearer.accounts WHERE tenant = $1 AND connector = $2 AND principal = $3";

/// `$1` a tenant, or null for all.
pub(super) const ROWS: &str = "
    SELECT generation, sealed, tenant, connector, principal FROM keybearer.accounts
    WHERE $1::text IS NULL OR tenant = $1";

/// `$4` generation, `$5` sealed.
pub(super) const INSERT: &str = "
    INSERT INTO keybearer.accounts (tenant, connector, principal, generation, sealed)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING 1";

/// `$4` generation, `$5` sealed, `$6` the generation before.
pub(super) const UPDATE: &str = "
    UPDATE keybearer.accounts SET generation = $4, sealed = $5
    WHERE tenant = $1 AND connector = $2 AND principal = $3 AND generation = $6 RETURNING 1";

/// `$4` generation. Lease and intent go with the account; the lease is locked first, as everywhere.
pub(super) const DELETE: &str = "
    WITH held AS (
        SELECT 1 FROM keybearer.leases WHERE tenant = $1 AND connector = $2 AND principal = $3 FOR UPDATE)
    DELETE FROM keybearer.accounts
    WHERE tenant = $1 AND connector = $2 AND principal = $3 AND generation = $4
        AND (SELECT count(*) FROM held) >= 0
    RETURNING 1";

/// `$1` tenant, `$2` kind, `$3` name, as in the next ones.
pub(super) const FACT: &str = "
    SELECT generation, sealed FROM keybearer.facts WHERE tenant = $1 AND kind = $2 AND name = $3";

/// `$4` generation, `$5` sealed.
pub(super) const INSERT_FACT: &str = "
    INSERT INTO keybearer.facts (tenant, kind, name, generation, sealed)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING 1";

/// `$4` generation, `$5` sealed, `$6` the generation before.
pub(super) const UPDATE_FACT: &str = "
    UPDATE keybearer.facts SET generation = $4, sealed = $5
    WHERE tenant = $1 AND kind = $2 AND name = $3 AND generation = $6 RETURNING 1";

/// `$4` generation.
pub(super) const DELETE_FACT: &str = "
    DELETE FROM keybearer.facts
    WHERE tenant = $1 AND kind = $2 AND name = $3 AND generation = $4 RETURNING 1";

/// `$1` kind, `$2` a tenant, or null for all.
pub(super) const FACTS: &str = "
    SELECT generation, sealed, tenant, name FROM keybearer.facts
    WHERE kind = $1 AND ($2::text IS NULL OR tenant = $2)";

/// `$4` holder, `$5` seconds. The fence is taken when the row is ours: who waited for it comes after whom it waited for.
pub(super) const LEASE: &str = "
    INSERT INTO keybearer.leases (tenant, connector, principal, fence, holder, until)
    SELECT tenant, connector, principal, nextval('keybearer.fences'), $4,
        clock_timestamp() + make_interval(secs => $5)
    FROM keybearer.accounts WHERE tenant = $1 AND connector = $2 AND principal = $3
    ON CONFLICT (tenant, connector, principal) DO UPDATE
    SET fence = nextval('keybearer.fences'), holder = excluded.holder,
        until = clock_timestamp() + make_interval(secs => $5)
    WHERE leases.until <= clock_timestamp()
    RETURNING fence";

/// `$4` holder, `$5` seconds. For a holder whose lease was given and whose answer was lost: whatever it had before is
/// fenced out.
pub(super) const RETAKE: &str = "
    UPDATE keybearer.leases
    SET fence = nextval('keybearer.fences'), until = clock_timestamp() + make_interval(secs => $5)
    WHERE tenant = $1 AND connector = $2 AND principal = $3 AND holder = $4
    RETURNING fence";

/// `$4` fence, `$5` seconds.
pub(super) const RENEW: &str = "
    UPDATE keybearer.leases SET until = clock_timestamp() + make_interval(secs => $5)
    WHERE tenant = $1 AND connector = $2 AND principal = $3 AND fence = $4 RETURNING 1";

/// `$4` fence.
pub(super) const RELEASE: &str = "
    DELETE FROM keybearer.leases WHERE tenant = $1 AND connector = $2 AND principal = $3 AND fence = $4";

/// `$4` fence, `$5` sealed.
pub(super) const INTEND: &str = "
    INSERT INTO keybearer.intents (tenant, connector, principal, fence, sealed)
    SELECT tenant, connector, principal, fence, $5 FROM keybearer.leases
    WHERE tenant = $1 AND connector = $2 AND principal = $3 AND fence = $4 FOR UPDATE
    ON CONFLICT (tenant, connector, principal) DO UPDATE SET fence = excluded.fence, sealed = excluded.sealed
    WHERE intents.answer IS NULL
    RETURNING 1";

/// `$4` fence, `$5` sealed. Without the lease: it is about the intent alone.
pub(super) const QUARANTINE: &str = "
    UPDATE keybearer.intents SET answer = $5
    WHERE tenant = $1 AND connector = $2 AND principal = $3 AND fence = $4 RETURNING 1";

/// `$4` fence, `$5` the generation before, `$6` generation, `$7` sealed, `$8` a note or null, `$9` whose note it is.
pub(super) const COMMIT: &str = "
    WITH held AS (
        SELECT 1 FROM keybearer.leases
        WHERE tenant = $1 AND connector = $2 AND principal = $3 AND fence = $4 FOR UPDATE),
    written AS (
        UPDATE keybearer.accounts SET generation = $6, sealed = $7
        WHERE tenant = $1 AND connector = $2 AND principal = $3 AND generation = $5
            AND EXISTS (SELECT FROM held) RETURNING 1),
    settled AS (
        DELETE FROM keybearer.intents
        WHERE tenant = $1 AND connector = $2 AND principal = $3 AND EXISTS (SELECT FROM written)),
    noted AS (
        INSERT INTO keybearer.outbox (origin, tenant, connector, principal, sealed)
        SELECT $9, $1, $2, $3, $8 WHERE $8 IS NOT NULL AND EXISTS (SELECT FROM written))
    SELECT 1 FROM written";

/// `$4` fence, `$5` a note or null, `$6` whose note it is.
pub(super) const DROP_INTENT: &str = "
    WITH held AS (
        SELECT 1 FROM keybearer.leases
        WHERE tenant = $1 AND connector = $2 AND principal = $3 AND fence = $4 FOR UPDATE),
    settled AS (
        DELETE FROM keybearer.intents
        WHERE tenant = $1 AND connector = $2 AND principal = $3 AND EXISTS (SELECT FROM held)),
    noted AS (
        INSERT INTO keybearer.outbox (origin, tenant, connector, principal, sealed)
        SELECT $6, $1, $2, $3, $5 WHERE $5 IS NOT NULL AND EXISTS (SELECT FROM held))
    SELECT 1 FROM held";

/// One account's.
pub(super) const INTENT: &str = "
    SELECT fence, sealed, answer FROM keybearer.intents WHERE tenant = $1 AND connector = $2 AND principal = $3";

/// Everybody's.
pub(super) const INTENTS: &str =
    "SELECT fence, sealed, answer, tenant, connector, principal FROM keybearer.intents";

/// `$1` who asks, `$2` how many. A process hands on what it wrote itself, as long as it is connected.
pub(super) const OUTBOX: &str = "
    SELECT id, sealed, tenant, connector, principal FROM keybearer.outbox
    WHERE origin = $1 OR NOT EXISTS (
        SELECT FROM pg_stat_activity WHERE application_name = 'keybearer ' || outbox.origin)
    ORDER BY id LIMIT $2";

/// `$1` numbers.
pub(super) const DELIVERED: &str = "DELETE FROM keybearer.outbox WHERE id = ANY ($1)";
