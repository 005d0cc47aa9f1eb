//! What the two files say at one moment, and the name servers that they lead to.

use std::{
    fs::Metadata,
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::future::join;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf::parse_resolv_conf,
};
use tokio::fs;

use super::{Files, Unresolved};

/// Answers kept. Each is of one name and one of IPv4 and IPv6.
const ANSWERS: u64 = 1024;
/// The longest that an answer is kept, whatever its time to live: a provider that moves is found again. That there is
/// none is forgotten sooner, since somebody may be waiting for a name that was just made.
const LONGEST: Duration = Duration::from_mins(5);
const LONGEST_NONE: Duration = Duration::from_secs(10);

/// The kinds of addresses, in the order in which they are dialled.
const KINDS: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// What tells a file from what it was before: its device, number, size and times.
type Stamp = Option<(u64, u64, u64, SystemTime, i64, i64)>;

/// The files as they were read.
pub(super) struct System {
    stamps: [Stamp; 2],
    hosts: Hosts,
    servers: Result<Servers, Unresolved>,
}

struct Servers {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl Files {
    /// What the files are by now. A file that is not there has no stamp.
    pub(super) async fn stamps(&self) -> [Stamp; 2] {
        let (hosts, resolv_conf) = join(fs::metadata(&self.hosts), fs::metadata(&self.resolv_conf)).await;
        [hosts, resolv_conf].map(|found| found.ok().and_then(|metadata| stamp(&metadata)))
    }
}

fn stamp(file: &Metadata) -> Stamp {
    Some((file.dev(), file.ino(), file.len(), file.modified().ok()?, file.ctime(), file.ctime_nsec()))
}

impl System {
    /// Reads the files. What cannot be read makes no error here, but where it is needed.
    pub(super) async fn read(files: &Files, stamps: [Stamp; 2]) -> Self {
        let (hosts, resolv_conf) = join(fs::read(&files.hosts), fs::read(&files.resolv_conf)).await;
        Self {
            stamps,
            hosts: read_hosts(hosts),
            servers: Servers::read(&files.resolv_conf, resolv_conf, files.port),
        }
    }

    /// Whether the files are still the ones that were read.
    pub(super) fn is_of(&self, stamps: &[Stamp; 2]) -> bool {
        self.stamps == *stamps
    }

    /// The addresses of a name in the hosts file. They are all that it has: an alias for a test is not mixed with the
    /// addresses of the public name.
    pub(super) fn written(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let of = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found: Vec<IpAddr> =
            KINDS.into_iter().filter_map(of).flat_map(|lookup| addresses(&lookup)).collect();
        (!found.is_empty()).then_some(found)
    }

    /// The names to ask for, in this order, when one was given that may be short (resolv.conf(5)).
    pub(super) fn candidates(&self, name: Name) -> Vec<Name> {
        let Ok(servers) = &self.servers else { return vec![name] };
        if name.is_fqdn() {
            return vec![name];
        }
        let mut longer: Vec<Name> =
            servers.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let place = if dots >= servers.ndots { 0 } else { longer.len() };
        longer.insert(place, name);
        longer
    }

    /// Asks the name servers for the addresses of this name and no other.
    pub(super) async fn ask(&self, mut name: Name) -> Result<Vec<IpAddr>, Unresolved> {
        let resolver = &self.servers.as_ref().map_err(Clone::clone)?.resolver;
        name.set_fqdn(true);
        let [of_v4, of_v6] = KINDS.map(|kind| resolver.lookup(name.clone(), kind));
        let found = <[_; 2]>::from(join(of_v4, of_v6).await);
        let found = found.map(|lookup| lookup.map(|lookup| addresses(&lookup)).map_err(Unresolved::from));
        match found {
            [Ok(v4), Ok(v6)] => Ok([v4, v6].concat()),
            // Some name servers fail for a kind of address that they do not know.
            [Ok(only), Err(_)] | [Err(_), Ok(only)] => Ok(only),
            [Err(Unresolved::NoAddress), Err(why)] | [Err(why), Err(_)] => Err(why),
        }
    }
}

impl Servers {
    fn read(path: &Path, content: io::Result<Vec<u8>>, port: u16) -> Result<Self, Unresolved> {
        let wrong =
            |why: &dyn ToString| Unresolved::NoServer(format!("{}: {}", path.display(), why.to_string()));
        let content = content.map_err(|error| wrong(&error))?;
        let (config, options) = parse_resolv_conf(content).map_err(|error| wrong(&error))?;
        // Where the file says `domain`, it is in the list as well; otherwise it would be made of this machine's name.
        let (_, search, mut servers) = config.into_parts();
        for connection in servers.iter_mut().flat_map(|server| &mut server.connections) {
            connection.port = port;
        }
        let ndots = options.ndots;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = resolver.with_options(bounded(options)).build().map_err(|error| wrong(&error))?;
        Ok(Self { resolver, search, ndots })
    }
}

/// What the file says of waiting, and our own bounds.
fn bounded(options: ResolverOpts) -> ResolverOpts {
    let mut bounded = options;
    bounded.timeout = bounded.timeout.max(Duration::from_secs(1));
    // The file counts attempts, the library those after the first.
    bounded.attempts = bounded.attempts.saturating_sub(1);
    bounded.use_hosts_file = ResolveHosts::Never; // we have read it
    bounded.cache_size = ANSWERS;
    bounded.positive_max_ttl = Some(LONGEST);
    bounded.negative_max_ttl = Some(LONGEST_NONE);
    bounded.preserve_intermediates = false;
    bounded
}

fn read_hosts(content: io::Result<Vec<u8>>) -> Hosts {
    let mut hosts = Hosts::default();
    let read = content.and_then(|content| hosts.read_hosts_conf(content.as_slice()));
    if let Err(error) = read
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the hosts file cannot be read");
    }
    hosts
}

fn addresses(lookup: &hickory_resolver::lookup::Lookup) -> Vec<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}
