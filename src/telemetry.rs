//! Logs for whoever runs the proxy, and the registry of metrics.
//!
//! What agents did is in the audit log, not here: logs may be filtered, sampled and lost.

use std::io::{self, IsTerminal};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder, process_collector::ProcessCollector};
use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Unless somebody asks for it by name: it warns of each folder that is gone before its watch was taken back, as with
/// each change that Kubernetes makes to a volume. What hinders watching it tells by other ways.
const HUSHED: &str = "notify=error";

/// The `telemetry:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How log lines look.
    pub format: Format,
    /// What is logged: a level, or directives as in `info,keybearer::proxy=debug`.
    pub level: String,
    /// Whether tenants become label values of metrics.
    pub tenant_labels: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::default(), level: "info".to_owned(), tenant_labels: true }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines to standard error. Called once, by `main`; a second call does nothing.
///
/// # Errors
/// When `level` is no filter.
pub fn init(config: &Config) -> Result<(), String> {
    let filter = filter(&config.level)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match config.format {
        Format::Text => layer.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    let _already = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(())
}

/// A lone word that is no level would be taken for the name of a module, and nothing else would be logged.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let refused = |why: &dyn std::fmt::Display| {
        format!("telemetry.level {level:?}: {why}; write it as in `info` or `info,keybearer=debug`")
    };
    let is_word = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word && level.parse::<LevelFilter>().is_err() {
        return Err(refused(&"no level: there are off, error, warn, info, debug and trace"));
    }
    EnvFilter::try_new(format!("{HUSHED},{level}")).map_err(|error| refused(&error))
}

/// A registry with the process's own metrics.
///
/// # Errors
/// When they cannot be registered.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// The registry in Prometheus' text format.
///
/// # Errors
/// When a metric cannot be written.
pub fn exposition(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

/// Answers `GET /metrics`.
pub async fn metrics(State(registry): State<Registry>) -> Response {
    match exposition(&registry) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_level_is_no_filter() {
        for level in ["info", "WARN", "off", "info,keybearer::proxy=debug", "keybearer::proxy=debug", ""] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["noisy", "inof", "info,keybearer=noisy"] {
            assert!(filter(level).unwrap_err().contains("write it as in `info`"), "{level}");
        }
    }

    #[test]
    fn the_watching_of_files_is_logged_where_it_is_asked_for() {
        for (level, is_logged) in [("info", false), ("debug", false), ("info,notify=warn", true)] {
            let subscriber = tracing_subscriber::registry().with(filter(level).unwrap());
            let seen = tracing::subscriber::with_default(subscriber, || {
                (
                    tracing::enabled!(target: "notify::inotify", tracing::Level::WARN),
                    tracing::enabled!(tracing::Level::WARN),
                )
            });
            assert_eq!(seen, (is_logged, true), "{level}");
        }
    }
}
