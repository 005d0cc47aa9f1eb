//! Who asks: no header value panics, and what is believed is what the names allow.
#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderValue, header::PROXY_AUTHORIZATION};
use keybearer::{
    drain::Drain,
    identity::{AGENT_IDENTITY, Config, Gate, claimed},
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().unwrap());
static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let no_fetch = Arc::new(|_| unreachable!("mode open fetches nothing"));
    Gate::new(Config::default(), no_fetch, &Drain::default()).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for name in [AGENT_IDENTITY.clone(), PROXY_AUTHORIZATION] {
        let headers = HeaderMap::from_iter([(name, value.clone())]);
        let claim = claimed(&headers).expect("once").expect("there");
        let Ok(identity) = RUNTIME.block_on(GATE.identify(Some(&claim))) else { continue };
        let subject = &identity.subject;
        for name in [subject.tenant.as_str(), subject.role.as_str()] {
            assert!(!name.is_empty() && !name.contains(['/', '%', ' ', '"', '\0']), "{name:?}");
        }
    }
});
