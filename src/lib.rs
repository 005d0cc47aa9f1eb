//! keybearer: a sidecar egress proxy that holds the credentials, so that agent code never does.
//!
//! # The way of one request
//!
//! Every way in (absolute-form, CONNECT, a connector's name, transparent) becomes the same thing before the first line of
//! policy; then each step takes what the step before made, so that the compiler keeps the order:
//!
//! ```text
//! normalize   one destination, one path, one method               proxy::arrival
//! identify    who asks, and may this workload say so              identity::Gate
//! classify    host + method + path → connector and operation      catalog::Catalog
//! decide      may this role do that, as whose account → Permit    policy::Policy::decide
//! resolve     &Permit → Credential of that account, no other      credential::Resolver
//! inject      everything of the agent's that authenticates out,   proxy::strip, proxy::outbound
//!             the credential in
//! forward     a verified connection of this tenant's own          proxy::upstream
//! scrub       an echoed credential is masked on its way back      proxy::scrub
//! recorded    the body owns the record; dropping it emits it      proxy::record, audit
//! ```
//!
//! # Rooms and floors
//!
//! A module imports only from strictly lower floors; siblings are strangers. `tests/it/architecture.rs` says so.
//!
//! | floor | modules |
//! |---|---|
//! | 0 words | [`secret`] [`host`] [`id`] [`path`] [`cause`] [`document`] |
//! | 1 plumbing | `regular`, above it [`drain`] [`telemetry`] [`tls`] [`clients`], above them [`names`], above that [`dial`] [`fetch`] |
//! | 2 domain | [`identity`] who asks · [`policy`] may they · [`vault`] at rest · [`oauth`] the protocol · [`audit`] what happened |
//! | 3 | [`catalog`] connectors and their operations |
//! | 4 | [`ruleset`] the policy folder read whole · [`credential`] permit → credential |
//! | 5 surfaces | [`proxy`] for agents · [`broker`] for sidecars · [`admin`] for operators · [`admission`] for Kubernetes · [`redirect`] for the system |
//! | 6–8 | [`config`] → [`app`] the composition root → [`cli`] |
//!
//! # Laws
//!
//! 1. **One destination.** CONNECT, SNI, `Host`, URI and the certificate name the same host, on every request.
//! 2. **One decision.** Only a [`policy::Permit`] obtains a credential, and only `decide` makes one:
//!    ```compile_fail,E0451
//!    # fn forge(subject: keybearer::id::Subject) -> keybearer::policy::Permit {
//!    keybearer::policy::Permit { subject, ..unreachable!() }
//!    # }
//!    ```
//! 3. **One owner.** Every row, cache entry and connection is keyed by tenant first.
//! 4. **Nothing from the agent authenticates.** Every carrier is removed before injection.
//! 5. **Deny by default.** An empty policy refuses everything.
//! 6. **Fail closed.** What cannot be read, decided or recorded is refused, never forwarded bare.
//! 7. **What was judged is what is sent.** Ambiguous paths are refused, canonical bytes go out.
//! 8. **Recorded or refused.** A request whose event cannot be recorded is not sent.
//! 9. **No secret leaves.** Not in logs, errors, metrics, events, `Debug`, core dumps, argv or echoes.
//! 10. **No credential on cleartext**, unless the connector says so.
//! 11. **Streams stream.** No body is collected, except a form that may carry a token.
//! 12. **Decided per request.** Changes reach open connections at their next request; a freeze ends streams.
//!
//! Each has its own test file in `tests/it/laws/`.

pub mod admin;
pub mod admission;
pub mod app;
pub mod audit;
mod braces;
pub mod broker;
pub mod catalog;
pub mod cause;
pub mod cli;
pub mod clients;
pub mod config;
pub mod credential;
pub mod dial;
pub mod document;
pub mod drain;
mod duration;
pub mod fetch;
pub mod host;
pub mod id;
pub mod identity;
pub mod names;
pub mod oauth;
pub mod path;
pub mod policy;
pub mod proxy;
pub mod redirect;
mod regular;
pub mod ruleset;
pub mod secret;
pub mod telemetry;
pub mod tls;
pub mod vault;
