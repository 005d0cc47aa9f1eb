//! What is redirected, what is rejected, and what is left alone: rules before they are any tool's.

use std::fmt;

use ipnet::IpNet;

/// DNS, which is left alone: agents look names up as ever, and what they find is not what is dialled.
const DNS: u16 = 53;
/// HTTP/3 runs over UDP here. A client that is refused at once falls back to TCP.
const QUIC: u16 = 443;

/// What happens to what the processes of a network namespace send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The port of the transparent listener.
    pub port: u16,
    /// Users whose connections are left alone: the proxy's own among them, or it would be redirected to itself.
    pub uids: Vec<u32>,
    /// TCP ports that are left alone, besides DNS.
    pub ports: Vec<u16>,
    /// Networks that are left alone.
    pub networks: Vec<IpNet>,
    /// What becomes of what is not TCP.
    pub udp: Udp,
}

/// What of UDP is rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Udp {
    /// Port 443: HTTP/3 would go around the proxy.
    #[default]
    Quic,
    /// All but DNS, and every other protocol but TCP and ICMP.
    All,
}

/// Where a rule stands. Both see what processes of this namespace send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Where destinations are rewritten: the first packet of each connection comes by.
    Nat,
    /// Where packets are let pass or not.
    Filter,
}

/// One rule: the first whose test fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: Chain,
    pub(super) test: Test,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Uid(u32),
    Loopback,
    Network(IpNet),
    Tcp,
    TcpPort(u16),
    UdpPort(u16),
    Icmp,
    Anything,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Leave,
    Redirect(u16),
    Reject,
}

impl Plan {
    /// The rules, in order.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut add = |chain, test, then| rules.push(Rule { chain, test, then });
        for chain in [Chain::Nat, Chain::Filter] {
            self.uids.iter().for_each(|uid| add(chain, Test::Uid(*uid), Then::Leave));
            add(chain, Test::Loopback, Then::Leave);
            self.networks.iter().for_each(|network| add(chain, Test::Network(*network), Then::Leave));
        }
        let ports = [DNS].iter().chain(self.ports.iter().filter(|port| **port != DNS));
        ports.for_each(|port| add(Chain::Nat, Test::TcpPort(*port), Then::Leave));
        add(Chain::Nat, Test::Tcp, Then::Redirect(self.port));
        if self.udp == Udp::All {
            for test in [Test::Tcp, Test::Icmp, Test::UdpPort(DNS)] {
                add(Chain::Filter, test, Then::Leave);
            }
            add(Chain::Filter, Test::Anything, Then::Reject);
        } else {
            add(Chain::Filter, Test::UdpPort(QUIC), Then::Reject);
        }
        rules
    }

    /// The rules of one chain, in order.
    pub(super) fn rules_of(&self, chain: Chain) -> Vec<Rule> {
        self.rules().into_iter().filter(|rule| rule.chain == chain).collect()
    }
}

impl fmt::Display for Rule {
    /// In words: each rule's comment, by which it is known again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.then {
            Then::Leave => write!(f, "leave {} alone", self.test),
            Then::Redirect(port) => write!(f, "redirect {} to port {port}", self.test),
            Then::Reject => write!(f, "reject {}", self.test),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Loopback => f.write_str("this machine"),
            Self::Network(network) => network.fmt(f),
            Self::Tcp => f.write_str("TCP"),
            Self::TcpPort(port) => write!(f, "TCP port {port}"),
            Self::UdpPort(port) => write!(f, "UDP port {port}"),
            Self::Icmp => f.write_str("ICMP"),
            Self::Anything => f.write_str("anything else"),
        }
    }
}
