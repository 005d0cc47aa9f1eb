//! What the tests stand on and the benchmark uses, too: the issuer of a cluster's tokens, the strict token endpoint, and a
//! PostgreSQL of our own.

#[path = "../../tests/it/support/cluster.rs"]
pub(crate) mod cluster;
#[path = "../../tests/it/support/issuer/mod.rs"]
pub(crate) mod issuer;
#[path = "../../tests/it/support/postgres.rs"]
pub(crate) mod postgres;
pub(crate) mod provider;
#[path = "../../tests/it/support/server.rs"]
pub(crate) mod server;
#[path = "../../tests/it/support/signer.rs"]
pub(crate) mod signer;
