//! Network namespaces: a machine of its own as far as the network goes, with one wire between two of them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use keybearer::drain::Drain;
use nix::sched::{CloneFlags, setns};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

/// A namespace that is deleted when dropped, with what it is told of DNS.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with a loopback. `Err` says why this machine lets us make none.
    pub(crate) fn new(what: &str) -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("kb-{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip("link set lo up");
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Configures it: the words of an `ip` command.
    pub(crate) fn ip(&self, words: &str) {
        let all: Vec<&str> = ["-n", &self.name].into_iter().chain(words.split(' ')).collect();
        ip(&all).unwrap();
    }

    /// Whom programs in it ask for names.
    pub(crate) fn resolve_at(&self, server: &str) {
        let dir = format!("/etc/netns/{}", self.name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(format!("{dir}/resolv.conf"), format!("nameserver {server}\noptions timeout:2\n")).unwrap();
    }

    /// Does something in it, in a thread that ends with it. A socket stays where it was made.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// A listener in it.
    pub(crate) fn listener(&self, address: &str) -> TcpListener {
        let listener = self.within(|| std::net::TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// A connection from it, as root.
    pub(crate) fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let stream = self.within(|| std::net::TcpStream::connect(address))?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    /// A name server on port 53 that knows these names and no others.
    pub(crate) fn name_server(&self, names: &[(&str, &[&str])]) -> NameServer {
        let socket = self.within(|| std::net::UdpSocket::bind("[::]:53").unwrap());
        socket.set_nonblocking(true).unwrap();
        let socket = UdpSocket::from_std(socket).unwrap();
        let addresses = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect();
        let zone = names.iter().map(|(name, all)| ((*name).to_owned(), addresses(all))).collect();
        NameServer(Drain::default().spawn(answer_all(socket, zone)))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
        let _ = fs::remove_dir_all(format!("/etc/netns/{}", self.name));
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", words.join(" "), said.trim())) }
}

/// A name server; it stops when dropped.
pub(crate) struct NameServer(JoinHandle<()>);

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Zone = BTreeMap<String, Vec<IpAddr>>;

async fn answer_all(socket: UdpSocket, zone: Zone) {
    let mut query = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut query).await {
        if let Some(answer) = answer(&query[..length], &zone) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a query for addresses (RFC 1035 §4): those of the name, none, or no such name.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let (mut labels, mut at) = (Vec::new(), HEADER);
    while *query.get(at)? != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(query.get(at + 1..end)?).to_ascii_lowercase());
        at = end;
    }
    let question = query.get(HEADER..at + 5)?;
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let known = zone.get(&labels.join("."));
    let addresses: Vec<Vec<u8>> = known.into_iter().flatten().filter_map(|ip| octets(*ip, kind)).collect();
    let no_such_name = if known.is_none() { 3 } else { 0 };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | no_such_name, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for octets in addresses {
        answer.extend([0xc0, 12]); // the name of the question
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(octets.len()).ok()?]);
        answer.extend(octets);
    }
    Some(answer)
}

fn octets(ip: IpAddr, kind: u16) -> Option<Vec<u8>> {
    match (ip, kind) {
        (IpAddr::V4(ip), 1) => Some(ip.octets().to_vec()),
        (IpAddr::V6(ip), 28) => Some(ip.octets().to_vec()),
        _ => None,
    }
}
