//! The authority of the tests' providers, without the providers.

#[path = "../../../tests/it/support/provider/cert.rs"]
mod cert;

pub(crate) use cert::{TestAuthority, Validity};
