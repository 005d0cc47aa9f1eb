//! The process around a command: what runs it, and what of it nobody may see.

use std::process::ExitCode;

use nix::sys::{
    prctl::{set_dumpable, set_thp_disable},
    resource::{Resource, getrlimit, setrlimit},
};

use super::{failure::Failure, run};
use crate::tls;

// Memory comes from the C library. mimalloc costs 1 us less a request, but an idle sidecar 5 MB and a busy one 10 to 15 MB
// more; and since its blocks begin where pages do, as TLS records then do, copying a record meets the worst case of
// `rep movsb` on AMD's Zen 3 and 4 (16 KiB in 4.7 us instead of 0.2), a third of a large answer's whole cost.
/// The whole program.
pub fn main() -> ExitCode {
    keep_memory_private();
    keep_memory_small();
    tls::init_crypto();
    match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("keybearer").build() {
        Ok(runtime) => runtime.block_on(Box::pin(run(std::env::args_os()))),
        Err(error) => Failure::new(format!("cannot start: {error}")).report(),
    }
}

/// Memory holds secrets: no core dump, and no other process of this user may look into it. Where the system does
/// not let us say so, it was said for us.
fn keep_memory_private() {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = set_dumpable(false);
}

/// As many open files as the system lets us have: each tunnel takes two, and a shell begins with 1,024. Not for what
/// runs other programs, which would have as many.
pub(super) fn open_many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Huge pages make an idle sidecar of 20 MB one of 75: what the allocator and sled leave untouched gets memory by
/// the 2 MB.
fn keep_memory_small() {
    let _ = set_thp_disable(true);
}
