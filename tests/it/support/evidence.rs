//! What the suite wrote and showed, kept for the canary: logs, audit files, metrics, answers, command output.
//!
//! Every secret of the suite begins with `kb-canary-`. After the suite, `tests/canary.rs` looks for that mark,
//! in all its spellings, in everything that was kept.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Keeps something under its kind.
pub(crate) fn keep(kind: &str, bytes: &[u8]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    fs::write(folder().join(format!("{kind}.{}.{count}", std::process::id())), bytes).unwrap();
}

/// From now on every log line of this process is kept: keybearer's at the finest level, its libraries' at debug.
pub(crate) fn keep_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let file = File::create(log_file()).unwrap();
        let lines = tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file));
        let filter = EnvFilter::new("debug,keybearer=trace");
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    });
}

/// What has been logged so far.
pub(crate) fn log() -> Vec<u8> {
    fs::read(log_file()).unwrap()
}

fn log_file() -> PathBuf {
    folder().join(format!("log.{}", std::process::id()))
}

fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("evidence");
    fs::create_dir_all(&folder).unwrap();
    folder
}
