//! Names and their addresses, as `/etc/hosts` and `/etc/resolv.conf` say.
//!
//! Not by the C library: it would append the domains of `search` to a provider's name too, which is not the name that
//! policy judged; and what it can do in a static program, as in the container image, is another thing in each version.

#[cfg(test)]
pub(crate) mod fixture;
mod system;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::rr::Name,
};

use self::system::System;

/// Finds the addresses of names. Cloning is cheap, and clones share what was found.
///
/// Both files are looked at on every search, and read anew where they have changed. What name servers answer is kept as
/// long as they say, but not longer than five minutes, and not more than a thousand answers.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

struct Inner {
    files: Files,
    /// Nothing is read before the first search.
    latest: ArcSwapOption<System>,
}

/// Where it is written how to find a name.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) hosts: PathBuf,
    pub(crate) resolv_conf: PathBuf,
    /// Where name servers listen, which the file cannot say.
    pub(crate) port: u16,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Whoever knows the name says that it does not exist, or has no address.
    #[error("it has no address")]
    NoAddress,
    /// No name server said anything.
    #[error("no name server answered in time")]
    Timeout,
    /// A name server said that it cannot say, or none was reached.
    #[error("the name servers failed: {0}")]
    Failed(String),
    /// There is no name server to ask.
    #[error("no name server can be asked: {0}")]
    NoServer(String),
}

impl Names {
    /// Names as this system knows them.
    #[must_use]
    pub fn system() -> Self {
        Self::of(Files {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            port: hickory_resolver::config::ProtocolConfig::Udp.default_port(),
        })
    }

    pub(crate) fn of(files: Files) -> Self {
        Self(Arc::new(Inner { files, latest: ArcSwapOption::empty() }))
    }

    /// The addresses of this very name, IPv4 before IPv6: the domains of `search` are not appended.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub async fn exact(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        self.find(name, |name, _| vec![name]).await
    }

    /// The addresses of a name that may be short, as in `db` for `db.shop.svc.cluster.local`: with the domains of
    /// `search`, as `ndots` says.
    ///
    /// # Errors
    /// [`Unresolved`]. A name server that fails says nothing of a name, so that the search ends there: a name that is
    /// further down the list may be somebody else's.
    pub async fn search(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        self.find(name, |name, system| system.candidates(name)).await
    }

    async fn find(
        &self,
        text: &str,
        candidates: impl FnOnce(Name, &System) -> Vec<Name>,
    ) -> Result<Vec<IpAddr>, Unresolved> {
        if let Ok(ip) = text.parse() {
            return Ok(vec![ip]);
        }
        let name = Name::from_ascii(text).map_err(|_| Unresolved::NoAddress)?;
        if name.is_localhost() {
            // RFC 6761 §6.3, whatever the files say: credentials in clear text go there.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let system = self.latest().await;
        if let Some(written) = system.written(&name) {
            return Ok(written);
        }
        for candidate in candidates(name, &system) {
            match system.ask(candidate).await {
                Err(Unresolved::NoAddress) => {}
                decided => return decided,
            }
        }
        Err(Unresolved::NoAddress)
    }

    /// The files as they are now.
    async fn latest(&self) -> Arc<System> {
        let stamps = self.0.files.stamps().await;
        if let Some(known) = self.0.latest.load_full().filter(|known| known.is_of(&stamps)) {
            return known;
        }
        let read = Arc::new(System::read(&self.0.files, stamps).await);
        self.0.latest.store(Some(Arc::clone(&read)));
        read
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Names").field(&self.0.files).finish()
    }
}

impl From<NetError> for Unresolved {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => Self::NoAddress,
            NetError::Timeout => Self::Timeout,
            other => Self::Failed(other.to_string()),
        }
    }
}
