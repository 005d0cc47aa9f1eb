//! The broker, and sidecars that have their accounts from it.

mod serve;
mod sidecar;
