//! What asks people for consents, put together.

use std::{net::SocketAddr, sync::Arc};

use rustls::RootCertStore;
use tokio::net::TcpListener;

use super::{Error, address, bind};
use crate::{
    admin::Consents,
    config::Config,
    dial::{AddressGuard, Dialer},
    oauth::{Apps, Transport},
    proxy,
    tls::{self, Alpn},
};

/// Consents whose people come back to the admin listener, and whose codes are exchanged by the proxy's own way to providers.
pub(super) fn consents(
    config: &Config,
    admin: SocketAddr,
    (dialer, roots): (&Dialer, &Arc<RootCertStore>),
) -> Result<Consents, Error> {
    let tls = Arc::new(tls::upstream_config(roots, Alpn::H1));
    let mut oauth = config.oauth.clone();
    oauth.redirect_url = oauth.redirect_url.or_else(|| Consents::callback_at(admin));
    let redirect_url = oauth.redirect_url.clone();
    let transport = Transport::new(dialer.clone(), tls, config.refresh.timeout);
    Ok(Consents::new(Apps::load(&oauth)?, transport, redirect_url))
}

/// The same without a proxy, with the admin listener for whoever serves the callback.
///
/// # Errors
/// [`Error`], with what to do.
pub async fn consents_alone(config: &Config) -> Result<(Consents, TcpListener), Error> {
    let listener = bind(config.listen.admin, "listen.admin").await?;
    let admin = address(&listener)?;
    let guard = AddressGuard::new(&config.egress.allow_addresses);
    guard.add_own(admin);
    let overrides = proxy::overrides(&config.egress).map_err(Error::Config)?;
    let dialer = Dialer::new(overrides, guard, config.limits.connect_timeout);
    let roots = config.egress.roots.load()?;
    Ok((consents(config, admin, (&dialer, &roots))?, listener))
}
