//! Whom we trust.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;

use super::Error;
use crate::regular;

/// Far more than all roots that there are, in bytes.
const LARGEST: u64 = 16 << 20;

/// The roots that others are verified against: `system`, `webpki`, `{file: ca.pem}` or `{pem: "..."}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Roots {
    /// Those of the operating system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`; Mozilla's, as built in, on a
    /// system that has none, such as an empty container image.
    #[default]
    System,
    /// Mozilla's, as built in.
    Webpki,
    /// Those of a PEM file and no others.
    File(PathBuf),
    /// Those of this PEM text and no others.
    Pem(String),
}

impl Roots {
    /// Reads the roots.
    ///
    /// # Errors
    /// [`Error::SystemRoots`] if the system has roots that cannot be read, [`Error::Roots`] or [`Error::RootsFile`]
    /// for the file.
    pub fn load(&self) -> Result<Arc<RootCertStore>, Error> {
        let store = match self {
            Self::System => system()?,
            Self::Webpki => webpki(),
            Self::File(path) => file(path)?,
            Self::Pem(text) => strict(text.as_bytes()).map_err(Error::RootsText)?,
        };
        Ok(Arc::new(store))
    }
}

fn system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let Some(error) = found.errors.first() else {
            tracing::info!("this system has no root certificates; using Mozilla's, as built in");
            return Ok(webpki());
        };
        return Err(Error::SystemRoots(error.to_string()));
    }
    if ignored > 0 || !found.errors.is_empty() {
        tracing::warn!(ignored, errors = ?found.errors, "some root certificates of this system cannot be read");
    }
    Ok(store)
}

fn webpki() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// Strict, unlike the system's: the operator wrote this file, and a part of it would be a surprise.
fn file(path: &Path) -> Result<RootCertStore, Error> {
    let pem =
        regular::read(path, LARGEST).map_err(|source| Error::RootsFile { path: path.to_owned(), source })?;
    strict(&pem).map_err(|reason| Error::Roots { path: path.to_owned(), reason })
}

fn strict(pem: &[u8]) -> Result<RootCertStore, &'static str> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "has a broken PEM block")?;
        store.add(certificate).map_err(|_| "has a certificate that cannot be read")?;
    }
    if store.is_empty() {
        return Err("has no certificate");
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tls::Authority;

    fn read(yaml: &str) -> Result<Roots, serde_saphyr::Error> {
        serde_saphyr::from_str(yaml)
    }

    #[test]
    fn roots_are_written_as_the_contract_says() {
        assert_eq!(read("system").unwrap(), Roots::System);
        assert_eq!(read("webpki").unwrap(), Roots::Webpki);
        assert_eq!(read("{file: ca.pem}").unwrap(), Roots::File("ca.pem".into()));
        assert_eq!(read("{pem: '-----BEGIN'}").unwrap(), Roots::Pem("-----BEGIN".to_owned()));
        assert!(read("none").is_err());
    }

    #[test]
    fn a_file_replaces_all_other_roots() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let both = [(); 2].map(|()| Authority::open(None).unwrap().pem().to_owned()).concat();
        fs::write(&path, both).unwrap();
        assert_eq!(Roots::File(path).load().unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_is_wrong_in_part_is_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let good = Authority::open(None).unwrap().pem().to_owned();
        for (content, reason) in [
            ("nothing".to_owned(), "has no certificate"),
            (
                format!("{good}-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
                "cannot be read",
            ),
            (format!("{good}-----BEGIN CERTIFICATE-----\nMIIB"), "broken PEM"),
        ] {
            fs::write(&path, content).unwrap();
            let error = Roots::File(path.clone()).load().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let missing = Roots::File(dir.path().join("missing.pem")).load().unwrap_err().to_string();
        assert!(missing.ends_with("missing.pem, which `roots: {file: ...}` names"), "{missing}");
    }

    #[test]
    fn a_text_is_as_good_as_a_file_and_read_as_strictly() {
        let pem = Authority::open(None).unwrap().pem().to_owned();
        assert_eq!(Roots::Pem(pem).load().unwrap().len(), 1);
        let error = Roots::Pem("nothing".to_owned()).load().unwrap_err().to_string();
        assert!(error.contains("roots: {pem: ...} has no certificate"), "{error}");
    }

    #[test]
    fn the_built_in_roots_are_there() {
        assert!(Roots::Webpki.load().unwrap().len() > 50);
    }
}
