//! The Kubernetes webhook: what a pod is given, so that its agents have a sidecar.
//!
//! [`inject`] is all of it: a pod and the settings in, a JSON patch or a [`Refusal`] out. It asks nobody and keeps
//! nothing. [`start`] serves it to API servers.
//!
//! ```text
//! wish    what the pod says of itself: labels, annotations
//! check   what cannot go together with a sidecar
//! powers  who could undo the rules, go past them or look into the sidecar
//! parts   what is injected
//! same    whether a part is there already, with what clusters add to it
//! inject  the parts put into the pod, and the difference as a patch
//! review  AdmissionReview around it
//! ```
//!
//! Where it has no certificate from somebody else, it keeps one of its own: [`SelfManaged`].

mod broker;
mod certificate;
mod check;
mod config;
mod inject;
mod mesh;
mod parts;
mod powers;
mod refusal;
mod review;
mod same;
mod server;
mod wish;

pub use self::{
    broker::Broker,
    certificate::SelfManaged,
    config::{Config, Mode, Ports, Quantity, QuantityError, Redirect, Resources},
    inject::{Mutation, inject, inject_ephemeral},
    refusal::Refusal,
    server::{Error, start},
};
