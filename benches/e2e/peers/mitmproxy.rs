//! mitmproxy: its own CA and interception, `--modify-headers` as injection.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::Result;

use super::Site;
use crate::sections::CREDENTIAL;

pub(super) fn configure(command: &mut Command, site: &Site, dir: &Path, listen: SocketAddr) -> Result<()> {
    let addon = dir.join("route.py");
    let routes: Vec<String> =
        site.routes().iter().map(|(host, address)| format!("{host:?}: {}", address.port())).collect();
    fs::write(&addon, include_str!("mitmproxy.py").replace("{}", &format!("{{{}}}", routes.join(", "))))?;
    command
        .args(["-q", "--listen-host", "127.0.0.1", "-p", &listen.port().to_string()])
        .args(["--set".to_owned(), format!("confdir={}", dir.display())])
        .args(["--set".to_owned(), format!("ssl_verify_upstream_trusted_ca={}", site.certs.ca.display())])
        .args(["--modify-headers", &format!("/~q/Authorization/Bearer {CREDENTIAL}")])
        .arg("-s")
        .arg(&addon);
    Ok(())
}
