//! Who we are at providers, and what asks people for consents, put together.

use std::{net::SocketAddr, sync::Arc};

use rustls::RootCertStore;
use tokio::net::TcpListener;

use super::{
    Error, dialer,
    listeners::{address, bind},
};
use crate::{
    admin::Consents,
    config::Config,
    dial::Dialer,
    oauth::{Apps, Transport},
    tls::{self, Alpn},
};

/// The apps that providers know us by, and the proxy's own way to their token endpoints. People come back to the admin
/// listener where nothing else is configured.
pub(super) fn at_providers(
    config: &Config,
    admin: SocketAddr,
    (dialer, roots): (&Dialer, &Arc<RootCertStore>),
) -> Result<(Apps, Transport), Error> {
    let tls = Arc::new(tls::upstream_config(roots, Alpn::H1));
    let mut oauth = config.oauth.clone();
    oauth.redirect_url = oauth.redirect_url.or_else(|| Consents::callback_at(admin));
    Ok((Apps::load(&oauth)?, Transport::new(dialer.clone(), tls, config.refresh.timeout)))
}

/// What asks for consents where no proxy runs, with the admin listener for whoever serves the callback.
///
/// # Errors
/// [`Error`], with what to do.
pub async fn consents_alone(config: &Config) -> Result<(Consents, TcpListener), Error> {
    let listener = bind(config.listen.admin, "listen.admin").await?;
    let admin = address(&listener)?;
    let dialer = dialer(config, &[admin])?;
    let roots = config.egress.roots.load()?;
    let (apps, transport) = at_providers(config, admin, (&dialer, &roots))?;
    Ok((Consents::new(apps, transport), listener))
}
