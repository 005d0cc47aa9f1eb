//! keybearer from outside: real clients, real TLS, real providers.

// `cfg(test)` is always true here. It is said so that clippy takes the fixtures, too, for test code.
#[cfg(test)]
mod admin;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod authorization_server;
#[cfg(test)]
mod aws;
#[cfg(test)]
mod broker;
#[cfg(test)]
mod bundle;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod fetch;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod image;
#[cfg(test)]
mod issuer;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod mint;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod preflight;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod race;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod rekey;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod run;
#[cfg(test)]
mod smoke;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transparent;
#[cfg(test)]
mod webhook;
