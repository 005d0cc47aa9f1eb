//! The engine against a scripted provider, hours in milliseconds.

mod crashes;
mod failures;
mod flights;
mod mints;
mod outages;
mod outcomes;
mod times;
mod unused;
mod world;
