//! A sidecar's resolver against brokers that say what a test tells them, over real TLS and HTTP/2 through pipes in
//! memory: so that time is the test's alone.

mod broker;
mod changes;
mod outages;
mod questions;
mod world;
