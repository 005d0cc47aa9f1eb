//! TLS towards providers.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, client::Resumption};

/// Sessions kept to be resumed. rustls keeps up to eight for a server and allocates ahead: this is 32 servers.
const SESSIONS: usize = 256;

/// Which protocols are offered to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2, or else HTTP/1.1.
    Any,
    /// HTTP/1.1 only: for an `Upgrade`, which HTTP/2 has not.
    H1,
    /// HTTP/2 only: for who speaks nothing else.
    H2,
}

/// A client configuration that verifies providers against the roots.
///
/// Each call gives one with a session store of its own: use one a tenant, so that no session, which a provider
/// could recognise, is shared by two. Roots are shared.
#[must_use]
pub fn upstream_config(roots: &Arc<RootCertStore>, alpn: Alpn) -> ClientConfig {
    let mut config = ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.alpn_protocols = match alpn {
        Alpn::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Alpn::H1 => vec![b"http/1.1".to_vec()],
        Alpn::H2 => vec![b"h2".to_vec()],
    };
    config
}
