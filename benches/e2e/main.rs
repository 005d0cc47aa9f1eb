//! End to end: what a request through keybearer costs beside a bare relay, Envoy and mitmproxy, in one run; what happens
//! when ten thousand tokens end together; how fast a freeze reaches another replica.
//!
//! Prints tables and fails on no figure: a measurement, never a timed test. It fails where a token was spent twice. `docs/benchmarks.md` says how to
//! read it. The same program is also the relay it compares with (`e2e relay …`), as a process of its own so
//! that its CPU can be read like everyone else's.

mod certs;
mod driver;
mod freeze;
mod herd;
mod idle;
mod load;
mod peers;
mod process;
mod provider;
mod relay;
mod report;
mod sections;
#[expect(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::assigning_clones,
    reason = "the tests' own, of which the benchmark needs a part"
)]
mod support;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo itself adds `--bench`, which is no role.
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["relay", listen, routes @ ..] => relay::run(listen, routes),
        _ => driver::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
