//! The process or pod that talks to the proxy.

use std::{fmt, sync::Arc};

use serde::Deserialize;

/// Who is connected. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "WorkloadSpec")]
pub enum Workload {
    /// Whoever can reach the loopback listener: the sidecar's own pod, or a developer's machine.
    Local,
    /// A Kubernetes service account.
    ServiceAccount {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// A SPIFFE id: `spiffe://trust-domain/path`.
    Spiffe(Arc<str>),
}

/// Why a text names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// Not `namespace/name`.
    #[error("a service account is written namespace/name, in lower case letters, digits, - and .")]
    ServiceAccount,
    /// Not a SPIFFE id.
    #[error("a SPIFFE id is written spiffe://trust-domain/path, without a query or an empty segment")]
    Spiffe,
    /// None or several of the kinds.
    #[error(
        "a workload is exactly one of {{serviceAccount: namespace/name}}, {{spiffe: id}} and {{local: true}}"
    )]
    Kind,
}

impl Workload {
    /// Reads `namespace/name` (each a DNS-1123 subdomain, as Kubernetes has it).
    ///
    /// # Errors
    /// [`WorkloadError::ServiceAccount`].
    pub fn service_account(text: &str) -> Result<Self, WorkloadError> {
        let (namespace, name) = text.split_once('/').ok_or(WorkloadError::ServiceAccount)?;
        let fits = |part: &str| {
            (1..=253).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        if !fits(namespace) || !fits(name) {
            return Err(WorkloadError::ServiceAccount);
        }
        Ok(Self::ServiceAccount { namespace: namespace.into(), name: name.into() })
    }

    /// Reads a SPIFFE id (SPIFFE-ID §2: trust domain in lower case, no empty or dot segments, at most 2048
    /// bytes), so that one workload has one spelling.
    ///
    /// # Errors
    /// [`WorkloadError::Spiffe`].
    pub fn spiffe(text: &str) -> Result<Self, WorkloadError> {
        let rest =
            text.strip_prefix("spiffe://").filter(|_| text.len() <= 2048).ok_or(WorkloadError::Spiffe)?;
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let in_domain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(in_path);
        if domain.is_empty()
            || !domain.bytes().all(in_domain)
            || !path.is_none_or(|p| p.split('/').all(segment))
        {
            return Err(WorkloadError::Spiffe);
        }
        Ok(Self::Spiffe(text.into()))
    }
}

impl fmt::Display for Workload {
    /// `local`, `serviceAccount:agents/crew`, `spiffe://...`: as in a binding, in one word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::ServiceAccount { namespace, name } => write!(f, "serviceAccount:{namespace}/{name}"),
            Self::Spiffe(id) => f.write_str(id),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WorkloadSpec {
    #[serde(default)]
    service_account: Option<String>,
    #[serde(default)]
    spiffe: Option<String>,
    #[serde(default)]
    local: Option<bool>,
}

impl TryFrom<WorkloadSpec> for Workload {
    type Error = WorkloadError;

    fn try_from(spec: WorkloadSpec) -> Result<Self, WorkloadError> {
        match (spec.service_account, spec.spiffe, spec.local) {
            (Some(account), None, None) => Self::service_account(&account),
            (None, Some(id), None) => Self::spiffe(&id),
            (None, None, Some(true)) => Ok(Self::Local),
            _ => Err(WorkloadError::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_shown() {
        let shown = |yaml: &str| serde_saphyr::from_str::<Workload>(yaml).map(|w| w.to_string());
        assert_eq!(shown("{local: true}").unwrap(), "local");
        assert_eq!(shown("{serviceAccount: agents/crew}").unwrap(), "serviceAccount:agents/crew");
        assert_eq!(shown("{spiffe: 'spiffe://acme.example/crew'}").unwrap(), "spiffe://acme.example/crew");
        for bad in [
            "{}",
            "{local: false}",
            "{local: true, spiffe: 'spiffe://a/b'}",
            "{serviceaccount: agents/crew}",
            "{serviceAccount: crew}",
            "{serviceAccount: agents/crew/x}",
            "{serviceAccount: agents/}",
            "{serviceAccount: 'agents/*'}",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_spiffe_id_has_one_spelling() {
        assert!(Workload::spiffe("spiffe://acme").is_ok());
        for bad in [
            "",
            "spiffe://",
            "spiffe:///crew",
            "SPIFFE://acme/crew",
            "spiffe://Acme/crew",
            "spiffe://acme/",
            "spiffe://acme//crew",
            "spiffe://acme/../crew",
            "spiffe://acme/crew?x=y",
            "spiffe://acme/cr%65w",
            "spiffe://acme:443/crew",
            "https://acme/crew",
        ] {
            assert_eq!(Workload::spiffe(bad), Err(WorkloadError::Spiffe), "{bad}");
        }
    }
}
