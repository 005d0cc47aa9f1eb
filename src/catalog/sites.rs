//! From host and port to the connectors that are there.

use std::{collections::HashMap, sync::Arc};

use super::{Connector, routes::Routes};
use crate::host::{Host, HostMatch, HostPattern};

/// Host patterns, indexed by what is literal in them: looking one up costs a hash lookup per label of the
/// host, however many patterns there are.
#[derive(Debug, Default)]
pub(super) struct Sites {
    exact: HashMap<Host, Vec<Site>>,
    suffix: HashMap<String, Vec<Site>>,
}

/// One host pattern on one port.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) pattern: HostPattern,
    pub(super) port: u16,
    /// Those whose hosts include the pattern, in the order of their names' files; at least one.
    pub(super) connectors: Vec<Arc<Connector>>,
    pub(super) routes: Arc<Routes>,
}

impl Sites {
    /// The site of a pattern, as the index has it.
    pub(super) fn at(&mut self, pattern: &HostPattern) -> &mut Vec<Site> {
        match (pattern.exact(), pattern.literal().name()) {
            (None, Some(suffix)) => self.suffix.entry(suffix.to_owned()).or_default(),
            _ => self.exact.entry(pattern.literal().clone()).or_default(),
        }
    }

    /// The most specific host wins: the exact one, then the longest suffix. A port that it does not have is not
    /// looked for elsewhere.
    pub(super) fn locate<'a>(
        &'a self,
        host: &'a Host,
        port: Option<u16>,
    ) -> Option<(&'a Site, HostMatch<'a>)> {
        if let Some(sites) = self.exact.get(host) {
            return Some((on_port(sites, port)?, HostMatch::Whole));
        }
        let mut rest = host.name()?;
        while let Some((_, suffix)) = rest.split_once('.') {
            rest = suffix;
            let Some(sites) = self.suffix.get(suffix) else { continue };
            // All patterns of one suffix are alike but for their ports, or else the catalog is refused.
            let Some(found) = sites.first().and_then(|site| site.pattern.matches(host)) else { continue };
            return Some((on_port(sites, port)?, found));
        }
        None
    }
}

/// The site on that port; without one, the only site or that on 443.
fn on_port(sites: &[Site], port: Option<u16>) -> Option<&Site> {
    match (port, sites) {
        (None, [only]) => Some(only),
        (port, sites) => sites.iter().find(|site| site.port == port.unwrap_or(443)),
    }
}
