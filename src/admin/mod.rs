//! For operators: connected accounts, health and metrics. What agents may ask is in [`proxy`](crate::proxy).
//!
//! [`Desk::execute`] is the one function that changes accounts. The command line calls it in its own process, or
//! through [`Client`] over the socket of a running proxy; the admin API calls it for both listeners.
//!
//! | listener | who may | what |
//! |---|---|---|
//! | `admin.sock` (mode 0600) | the user who runs the proxy | the admin API |
//! | `listen.admin` | whoever reaches it | `/metrics`, `/healthz`, `/readyz`, `/connect/...` |
//! | `listen.admin` | whom a provider sends back, once | `/oauth/callback` |
//! | `listen.admin`, with the token of `admin.token_file` | its holder | the admin API too |
//! | `listen.admin`, with a token of `lifecycle.scim` | its holder | `/scim/v2`: one tenant's users |
//! | `listen.admin`, signed with a key of `lifecycle.ssf` | a transmitter | `/ssf/events`: what happened to users |
//!
//! Where a broker has the accounts there is no desk: the socket says where they are, and `listen.admin` has metrics and
//! health.

mod client;
mod command;
mod connect;
mod consent;
mod desk;
mod error;
mod fit;
mod health;
mod http;
mod lifecycle;
mod page;
mod scim;
mod server;
mod socket;
mod ssf;
mod token;
mod whole;
mod wire;

use std::path::PathBuf;

use serde::Deserialize;

pub use self::{
    client::Client,
    command::{Command, Held, Listed, Reply, RotatedKey, VaultOverview},
    consent::{Asked, Consents},
    desk::Desk,
    error::{Error, Fault},
    fit::{Form, Misfit, connector_to_connect, form, needed},
    http::{Site, serve_callback},
    lifecycle::{Lifecycle, LifecycleConfig, TokenSource},
    scim::{Config as ScimConfig, UserFrom},
    socket::Socket,
    ssf::{Config as SsfConfig, EventType, Naming},
    wire::{KeyText, Secrets},
};

/// The `admin:` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A file with the token that opens the admin API on the TCP listener. Without it, that API is on the socket
    /// only.
    pub token_file: Option<PathBuf>,
}
