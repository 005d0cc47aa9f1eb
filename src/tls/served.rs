//! A server's certificate from files that rotate.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Error;
use crate::regular;

/// Far more than any chain of certificates, in bytes.
const LARGEST: u64 = 1 << 20;

/// A certificate chain and its key, as files have them.
///
/// The files are read at each handshake, which costs less than a hundredth of it; what a volume does when it rotates
/// (Kubernetes swaps a symbolic link) needs no watching then. What cannot be used, such as a certificate whose key has
/// not been written yet, is logged once, and the last good pair stays.
pub struct Served {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
    /// Of the files as they were last looked at.
    seen: Mutex<[u8; 32]>,
}

/// What the two files hold.
struct Pair {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Served {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Served`].
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, Error> {
        let pair = Pair::read(&certificate, &key)?;
        let seen = Mutex::new(pair.digest());
        let current =
            ArcSwap::from_pointee(pair.certified().map_err(|reason| unusable(&certificate, reason))?);
        Ok(Arc::new(Self { certificate, key, current, seen }))
    }

    /// TLS 1.2 and 1.3 with the certificate of the day; HTTP/2 and HTTP/1.1.
    #[must_use]
    pub fn server_config(self: Arc<Self>) -> Arc<ServerConfig> {
        server_config(self)
    }

    /// Takes the files anew if they have changed.
    fn look(&self) {
        let pair = match Pair::read(&self.certificate, &self.key) {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the last certificate stays in use");
                return;
            }
        };
        let digest = pair.digest();
        let before =
            std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), digest);
        if before == digest {
            return;
        }
        match pair.certified() {
            Ok(certified) => {
                self.current.store(Arc::new(certified));
                tracing::info!(certificate = %self.certificate.display(), "a new certificate is in use");
            }
            Err(reason) => {
                let error = unusable(&self.certificate, reason);
                tracing::warn!(%error, "the last certificate stays in use");
            }
        }
    }
}

/// TLS 1.2 and 1.3 with the certificate that this gives; HTTP/2 and HTTP/1.1.
#[must_use]
pub fn server_config(certificates: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

impl Pair {
    fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| {
            regular::read(path, LARGEST).map_err(|source| Error::Read { path: path.to_owned(), source })
        };
        Ok(Self { certificate: read(certificate)?, key: Zeroizing::new(read(key)?) })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(Sha256::digest(&self.certificate))
            .chain_update(&*self.key)
            .finalize()
            .into()
    }

    fn certified(&self) -> Result<CertifiedKey, &'static str> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| "has a broken PEM block")?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| "has no key beside it that can be read")?;
        let key = any_supported_type(&key).map_err(|_| "has a key of a kind that is not supported")?;
        if chain.is_empty() {
            return Err("has no certificate");
        }
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| "is not the certificate of its key")?;
        Ok(certified)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.look();
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn unusable(path: &Path, reason: &'static str) -> Error {
    Error::Served { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["keybearer.test".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn write(dir: &Path, (certificate, key): &(String, String)) {
        fs::write(dir.join("tls.crt"), certificate).unwrap();
        fs::write(dir.join("tls.key"), key).unwrap();
    }

    fn open(dir: &Path) -> Result<Arc<Served>, Error> {
        Served::open(dir.join("tls.crt"), dir.join("tls.key"))
    }

    fn shown(served: &Served) -> Vec<u8> {
        served.look();
        served.current.load().cert[0].to_vec()
    }

    fn der(pair: &(String, String)) -> Vec<u8> {
        CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn a_new_pair_is_taken_and_half_of_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pair(), pair());
        write(dir.path(), &old);
        let served = open(dir.path()).unwrap();
        assert_eq!(shown(&served), der(&old));
        fs::write(dir.path().join("tls.crt"), &new.0).unwrap();
        assert_eq!(shown(&served), der(&old), "its key is not there yet");
        fs::write(dir.path().join("tls.key"), &new.1).unwrap();
        assert_eq!(shown(&served), der(&new));
        fs::remove_file(dir.path().join("tls.key")).unwrap();
        assert_eq!(shown(&served), der(&new), "the last good pair stays");
    }

    #[test]
    fn what_cannot_be_served_is_refused_at_the_start_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (pair(), pair());
        for (certificate, key, reason) in [
            ("", one.1.as_str(), "has no certificate"),
            (&one.0, "", "no key beside it"),
            (&one.0, &other.1, "not the certificate of its key"),
        ] {
            write(dir.path(), &(certificate.to_owned(), key.to_owned()));
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
