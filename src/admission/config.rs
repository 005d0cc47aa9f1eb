//! The `webhook:` section: what is injected, and where the server listens.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::IpNet;
use serde::Deserialize;

use super::{broker::Broker, certificate::SelfManaged};

/// The `webhook:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where API servers connect.
    pub listen: SocketAddr,
    /// The server's certificate chain, PEM. It is read again when it changes. None: it makes its own.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// A certificate of its own.
    pub self_managed: SelfManaged,
    /// Whether a pod must ask to be injected; otherwise every pod that comes here is, unless it says no.
    pub opt_in: bool,
    /// What pods use that do not say it.
    pub mode: Mode,
    /// Whether a pod must say for which tenant and in which role it acts.
    pub identity_required: bool,
    /// The sidecar's image, whose entry point is the program.
    pub image: String,
    /// The image with the program and nft or iptables on its `PATH`, for transparent mode.
    pub redirect_image: String,
    /// The user of the sidecar, which is to be nobody else's.
    pub uid: u32,
    /// The `ConfigMap` with `keybearer.yaml`, in the pod's namespace. None: `keybearer`, or none where there is a broker.
    pub config_map: Option<String>,
    /// The `ConfigMap` with policy files, in the pod's namespace. None: `keybearer-policies`, or the broker's policies.
    pub policies: Option<String>,
    /// The `Secret` with the vault's `url` and `key`, in the pod's namespace. Not used where there is a broker.
    pub secret: Option<String>,
    /// Where sidecars have their credentials from, instead of a vault.
    pub broker: Option<Broker>,
    /// Where the sidecar's health and metrics are: the kubelet asks at the pod's address.
    pub admin_address: IpAddr,
    /// Where the sidecar listens.
    pub ports: Ports,
    /// What the sidecar is given.
    pub resources: Resources,
    /// What transparent mode leaves alone.
    pub redirect: Redirect,
    /// Containers that are left as they are, such as those of a service mesh.
    pub skip_containers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)),
            certificate: Some("/etc/keybearer/tls/tls.crt".into()),
            key: "/etc/keybearer/tls/tls.key".into(),
            self_managed: SelfManaged::default(),
            opt_in: true,
            mode: Mode::default(),
            identity_required: true,
            image: "keybearer".to_owned(),
            redirect_image: "keybearer-redirect".to_owned(),
            uid: 65532,
            config_map: None,
            policies: None,
            secret: Some("keybearer-vault".to_owned()),
            broker: None,
            admin_address: Ipv4Addr::UNSPECIFIED.into(),
            ports: Ports::default(),
            resources: Resources::default(),
            redirect: Redirect::default(),
            skip_containers: super::mesh::CONTAINERS.map(str::to_owned).to_vec(),
        }
    }
}

impl Config {
    /// The `ConfigMap` with the sidecars' settings.
    pub(super) fn settings_map(&self) -> Option<&str> {
        self.config_map.as_deref().or_else(|| self.broker.is_none().then_some("keybearer"))
    }

    /// The `ConfigMap` with their policies.
    pub(super) fn policies_map(&self) -> Option<&str> {
        self.policies.as_deref().or_else(|| self.broker.is_none().then_some("keybearer-policies"))
    }

    /// The vault's `Secret`.
    pub(super) fn vault_secret(&self) -> Option<&str> {
        self.secret.as_deref().filter(|_| self.broker.is_none())
    }
}

/// How the agents' traffic comes to the sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By the proxy variables that clients read.
    #[default]
    Proxy,
    /// By the pod's own network rules, whatever clients read.
    Transparent,
}

/// The sidecar's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ports {
    /// On loopback, for clients that read proxy variables.
    pub proxy: u16,
    /// On loopback, for what is redirected.
    pub transparent: u16,
    /// Health and metrics.
    pub admin: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { proxy: 7080, transparent: 7081, admin: 7090 }
    }
}

/// The sidecar's resources. What is not said is not set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// `resources.requests.cpu`.
    pub cpu_request: Option<Quantity>,
    /// `resources.requests.memory`.
    pub memory_request: Option<Quantity>,
    /// `resources.limits.cpu`. A limit that is reached makes every request of the agents wait.
    pub cpu_limit: Option<Quantity>,
    /// `resources.limits.memory`.
    pub memory_limit: Option<Quantity>,
}

impl Default for Resources {
    fn default() -> Self {
        let quantity = |text: &str| Some(Quantity(text.to_owned()));
        Self {
            cpu_request: quantity("10m"),
            memory_request: quantity("32Mi"),
            cpu_limit: None,
            memory_limit: quantity("128Mi"),
        }
    }
}

/// Options of `keybearer redirect install`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redirect {
    /// TCP ports that are left alone.
    pub exclude_ports: Vec<u16>,
    /// Networks that are left alone.
    pub exclude_networks: Vec<IpNet>,
    /// Whether all UDP but DNS is rejected, not HTTP/3 only.
    pub reject_udp: bool,
}

/// An amount as Kubernetes writes it: `100m`, `64Mi`, `0.5`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Quantity(String);

/// A text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no amount; write it as in 100m, 0.5 or 64Mi")]
pub struct QuantityError;

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        const SUFFIXES: [&str; 16] =
            ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "u", "n"];
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let is_number = number.split('.').count() <= 2
            && number.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if is_number && SUFFIXES.contains(&&text[number.len()..]) {
            return Ok(Self(text.to_owned()));
        }
        Err(QuantityError)
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        for good in ["1", "0.5", "100m", "64Mi", "1G", "2Ei"] {
            assert!(good.parse::<Quantity>().is_ok(), "{good}");
        }
        for bad in ["", "m", "1.", ".5", "1.2.3", "-1", "64 Mi", "64MB", "64mi", "1e3x"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
