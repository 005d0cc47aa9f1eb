//! Accounts of a broker: another process has the vault, its key and the refresh tokens.

mod error;

pub use self::error::Error;
