//! A host and an authority have one spelling, which reads as itself.
#![no_main]

use keybearer::host::{Authority, Host, HostPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(host) = Host::parse(text) {
        let shown = host.to_string();
        assert_eq!(Host::parse(&shown).as_ref(), Ok(&host));
        assert!(shown.is_ascii() && !shown.contains(['@', '%', '/', ' ']) && !shown.ends_with('.'));
        assert_eq!(shown, shown.to_ascii_lowercase());
        // What looks like an IPv4 address to anybody is one.
        let last = shown.rsplit('.').next().unwrap_or_default();
        assert!(host.name().is_none() || !last.bytes().all(|byte| byte.is_ascii_digit()));
    }
    if let Ok(Authority { host, port }) = Authority::parse(text) {
        let shown = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        assert_eq!(Authority::parse(&shown), Ok(Authority { host, port }));
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
    }
});
