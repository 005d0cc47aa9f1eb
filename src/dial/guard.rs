//! Which addresses may be dialled: the internet, and what the operator lists, and never ourselves.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, RwLock},
};

use ipnet::IpNet;

/// Decides about each resolved address, right before it is dialled.
#[derive(Debug, Clone)]
pub struct AddressGuard {
    allowed: Arc<[IpNet]>,
    own: Arc<RwLock<Vec<SocketAddr>>>,
}

/// Why an address is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Private, loopback, link-local, metadata, multicast, reserved or a way to tunnel to one of them.
    #[error("{0} is {1}")]
    Special(IpAddr, &'static str),
    /// One of this process's own listeners: a request would come back to us.
    #[error("{0} is one of the proxy's own listeners")]
    Own(SocketAddr),
}

impl AddressGuard {
    /// A guard that lets public addresses and those in `allowed` pass.
    #[must_use]
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into(), own: Arc::default() }
    }

    /// Adds one of our own listeners, which no allowance opens.
    pub fn add_own(&self, listener: SocketAddr) {
        self.own.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(listener);
    }

    /// The address to dial, with an IPv4-mapped one as plain IPv4.
    ///
    /// # Errors
    /// [`Refused`], with what kind of address it is.
    pub fn check(&self, address: SocketAddr) -> Result<SocketAddr, Refused> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if self.is_own(address) {
            return Err(Refused::Own(address));
        }
        match special(address.ip()) {
            Some(kind) if !self.allowed.iter().any(|net| net.contains(&address.ip())) => {
                Err(Refused::Special(address.ip(), kind))
            }
            _ => Ok(address),
        }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let own = self.own.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        own.iter().any(|listener| {
            let same_ip = listener.ip().to_canonical() == address.ip();
            // A wildcard listener answers on every local address, and `0.0.0.0` connects to loopback.
            let any_ip = listener.ip().is_unspecified() || address.ip().is_unspecified();
            listener.port() == address.port() && (same_ip || any_ip)
        })
    }
}

/// What is special about an address that is not plainly on the internet (IANA special-purpose registries).
#[must_use]
pub fn special(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

const fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    Some(match ip.octets() {
        [0, ..] => "this host",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "a carrier-grade NAT address",
        [127, ..] => "a loopback address",
        [169, 254, 169, 254] => "the cloud metadata address",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, ..] => "an IETF protocol address",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "a documentation address",
        [192, 88, 99, _] => "a 6to4 relay address",
        [198, 18..=19, ..] => "a benchmarking address",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

#[expect(clippy::many_single_char_names, reason = "the eight groups of an address have no better names")]
fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    Some(match [a, b] {
        _ if ip.is_unspecified() => "this host",
        _ if ip.is_loopback() => "a loopback address",
        [0, 0] if [c, d, e, f] == [0, 0, 0, 0] => "an IPv4-compatible address",
        // NAT64 (RFC 6052): what counts is the IPv4 address inside.
        [0x64, 0xff9b] if [c, d, e, f] == [0, 0, 0, 0] => {
            return special_v4(Ipv4Addr::from((u32::from(g) << 16) | u32::from(h)));
        }
        [0x64, 0xff9b] => "a local NAT64 address",
        [0x100, 0] if [c, d] == [0, 0] => "a discard address",
        [0x2001, 0] => "a Teredo address",
        [0x2001, 0x10..=0x2f] => "an ORCHID address",
        [0x2001, 0xdb8] | [0x3fff, 0..=0xfff] => "a documentation address",
        [0x2001, 0x1..=0x1ff] => "an IETF protocol address",
        [0x2002, _] => "a 6to4 address",
        [0x5f00, _] => "a segment routing address",
        [0xfc00..=0xfdff, _] => "a unique local address",
        [0xfe80..=0xfebf, _] => "a link-local address",
        [0xfec0..=0xfeff, _] => "a site-local address",
        [0xff00..=0xffff, _] => "a multicast address",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> AddressGuard {
        AddressGuard::new(&allowed.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 443)
    }

    #[test]
    fn public_addresses_pass() {
        for ip in [
            "140.82.121.6",
            "1.1.1.1",
            "2606:50c0:8000::153",
            "64:ff9b::8c52:7906",
            "100.63.0.1",
            "172.32.0.1",
        ] {
            assert_eq!(guard(&[]).check(at(ip)), Ok(at(ip)), "{ip}");
        }
    }

    #[test]
    fn special_addresses_are_refused() {
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:4136:e378::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(matches!(guard(&[]).check(at(ip)), Err(Refused::Special(..))), "{ip}");
        }
    }

    #[test]
    fn allowances_open_only_what_they_name() {
        let guard = guard(&["10.0.0.0/8", "fd00::/8"]);
        assert!(guard.check(at("10.9.9.9")).is_ok());
        assert_eq!(guard.check(at("::ffff:10.9.9.9")), Ok(at("10.9.9.9")));
        assert!(guard.check(at("fd12::1")).is_ok());
        assert!(guard.check(at("192.168.0.1")).is_err());
    }

    #[test]
    fn our_own_listeners_are_refused_whatever_is_allowed() {
        let guard = guard(&["127.0.0.0/8", "0.0.0.0/8"]);
        guard.add_own("127.0.0.1:7080".parse().unwrap());
        let own: SocketAddr = "127.0.0.1:7080".parse().unwrap();
        assert_eq!(guard.check(own), Err(Refused::Own(own)));
        assert!(guard.check("[::ffff:127.0.0.1]:7080".parse().unwrap()).is_err());
        assert!(guard.check("0.0.0.0:7080".parse().unwrap()).is_err());
        assert!(guard.check("127.0.0.1:7081".parse().unwrap()).is_ok());
        guard.add_own("0.0.0.0:9000".parse().unwrap());
        assert!(guard.check("127.0.0.5:9000".parse().unwrap()).is_err());
    }
}
