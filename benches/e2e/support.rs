//! What the tests stand on and the benchmark uses, too: the strict token endpoint, and a PostgreSQL of our own.

#[path = "../../tests/it/support/issuer/mod.rs"]
pub(crate) mod issuer;
#[path = "../../tests/it/support/postgres.rs"]
pub(crate) mod postgres;
pub(crate) mod provider;
#[path = "../../tests/it/support/server.rs"]
pub(crate) mod server;
