//! What the tests stand on: a real provider, the real app before it, and something to reach both through.

pub(crate) mod agent;
pub(crate) mod apart;
pub(crate) mod authorization_server;
pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod direct;
pub(crate) mod evidence;
pub(crate) mod issuer;
pub(crate) mod netns;
pub(crate) mod pod;
pub(crate) mod postgres;
pub(crate) mod provider;
pub(crate) mod raw;
pub(crate) mod records;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod sidecar;
pub(crate) mod signer;
pub(crate) mod stage;
