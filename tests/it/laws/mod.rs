//! The laws (contract §2), each in a file named after it.

mod law_01_one_destination;
mod law_02_one_decision;
mod law_03_one_owner;
mod law_04_nothing_from_the_agent_authenticates;
mod law_05_deny_by_default;
mod law_06_fail_closed;
mod law_07_what_was_judged_is_what_is_sent;
mod law_08_recorded_or_refused;
mod law_09_no_secret_leaves;
mod law_10_no_credential_on_cleartext;
mod law_11_streams_stream;
mod law_12_decided_per_request;
pub(crate) mod wire;
