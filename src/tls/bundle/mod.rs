//! Whom agents are told to trust, in the three formats that programs read.

mod der;
mod jks;
mod pkcs12;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::Error;

/// The password of both stores for Java, which wants one: Java's own default. It protects nothing, as nothing in a trust
/// store is secret.
pub const STORE_PASSWORD: &str = "changeit";

/// How a bundle is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Base64 between lines (RFC 7468), which nearly everybody reads.
    Pem,
    /// A trust store as Java 8u301 and later read it (RFC 7292), with a MAC and nothing encrypted.
    Pkcs12,
    /// The trust store that every Java reads.
    Jks,
}

impl Format {
    /// Every format. The PEM file is the last to be replaced.
    pub const ALL: [Self; 3] = [Self::Pkcs12, Self::Jks, Self::Pem];

    /// Where a bundle of this format lies, if `pem` is the PEM file: beside it, as `.p12` and `.jks`.
    #[must_use]
    pub fn beside(self, pem: &Path) -> PathBuf {
        match self {
            Self::Pem => pem.to_owned(),
            Self::Pkcs12 => pem.with_extension("p12"),
            Self::Jks => pem.with_extension("jks"),
        }
    }
}

/// What an agent needs to trust: roots, for what passes through opaque, and our CA.
#[derive(Debug, Clone)]
pub struct Bundle {
    roots: Vec<CertificateDer<'static>>,
    ca_pem: String,
}

impl Bundle {
    /// The system's roots and the CA of that PEM text; Mozilla's, as built in, where the system has none, such as in an
    /// empty container image.
    #[must_use]
    pub fn with_roots(ca_pem: &str) -> Self {
        let mut roots = rustls_native_certs::load_native_certs().certs;
        if roots.is_empty() {
            roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
        }
        Self { roots, ca_pem: ca_pem.to_owned() }
    }

    /// The CA alone.
    #[must_use]
    pub fn of_ca(ca_pem: &str) -> Self {
        Self { roots: Vec::new(), ca_pem: ca_pem.to_owned() }
    }

    /// The whole bundle. Of the same certificates it is always the same bytes.
    #[must_use]
    pub fn in_format(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Pem => self.pem().into_bytes(),
            Format::Pkcs12 => pkcs12::store(&self.entries()),
            Format::Jks => jks::store(&self.entries()),
        }
    }

    /// The whole bundle, PEM. The CA comes last, as its file has it.
    #[must_use]
    pub fn pem(&self) -> String {
        let roots = self.roots.iter().map(|root| certificate_pem(root));
        roots.collect::<String>() + &self.ca_pem
    }

    /// Writes it where agents read it, in every format: at that path in PEM, and [`beside`](Format::beside) it. Each file
    /// is replaced whole or not at all.
    ///
    /// # Errors
    /// [`Error::Bundle`], [`Error::BundleName`].
    pub fn publish(&self, pem: &Path) -> Result<(), Error> {
        for format in Format::ALL {
            let path = format.beside(pem);
            if format != Format::Pem && path == pem {
                return Err(Error::BundleName(path));
            }
            publish(&path, &self.in_format(format)).map_err(|source| Error::Bundle { path, source })?;
        }
        Ok(())
    }

    /// Each certificate with a name of its own, in lower case: Java's stores do not tell upper case apart.
    fn entries(&self) -> Vec<Entry> {
        let ours = CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()).flatten();
        let ours = ours.enumerate().map(|(at, certificate)| Entry {
            alias: if at == 0 { "keybearer".to_owned() } else { format!("keybearer-{at}") },
            certificate,
        });
        let roots = self.roots.iter().enumerate();
        let roots =
            roots.map(|(at, root)| Entry { alias: format!("root-{at:03}"), certificate: root.clone() });
        ours.chain(roots).collect()
    }
}

/// A certificate in a store.
struct Entry {
    alias: String,
    certificate: CertificateDer<'static>,
}

fn publish(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let draft = path.with_added_extension("new");
    fs::write(&draft, content)?;
    // For everybody to read, whatever the umask: agents are other users.
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o644))?;
    fs::rename(&draft, path)
}

/// A certificate as PEM: RFC 7468, 64 characters a line.
#[must_use]
pub fn certificate_pem(certificate: &[u8]) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut base64 = STANDARD.encode(certificate);
    while !base64.is_empty() {
        let rest = base64.split_off(base64.len().min(64));
        pem.push_str(&base64);
        pem.push('\n');
        base64 = rest;
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authority;

    fn read(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_published_bundle_can_be_read_by_all_and_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let bundles = [(); 2].map(|()| Bundle::with_roots(Authority::open(None).unwrap().pem()));
        for bundle in &bundles {
            bundle.publish(&path).unwrap();
            for (name, format) in
                [("bundle.pem", Format::Pem), ("bundle.p12", Format::Pkcs12), ("bundle.jks", Format::Jks)]
            {
                let file = dir.path().join(name);
                assert!(fs::read(&file).unwrap() == bundle.in_format(format), "{name}");
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644, "{name}");
            }
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left over");
        let error = bundles[0].publish(&dir.path().join("none/bundle.pem")).unwrap_err().to_string();
        assert!(error.contains("ca.bundle"), "{error}");
    }

    #[test]
    fn a_pem_file_that_has_the_name_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bundle.p12", "bundle.jks"] {
            let error = Bundle::of_ca("").publish(&dir.path().join(name)).unwrap_err();
            assert!(matches!(error, Error::BundleName(_)), "{error}");
        }
    }

    #[test]
    fn the_bundle_holds_the_systems_roots_and_ends_with_our_ca() {
        let authority = Authority::open(None).unwrap();
        let bundle = Bundle::with_roots(authority.pem());
        assert!(bundle.pem().ends_with(authority.pem()));
        let read = read(&bundle.pem());
        assert_eq!(read.split_last().unwrap().1, rustls_native_certs::load_native_certs().certs);
        assert_eq!(Bundle::of_ca(authority.pem()).pem(), authority.pem());
    }

    #[test]
    fn names_in_a_store_differ() {
        let two = [(); 2].map(|()| Authority::open(None).unwrap().pem().to_owned()).concat();
        let entries = Bundle::with_roots(&two).entries();
        let mut names: Vec<_> = entries.iter().map(|entry| &*entry.alias).collect();
        assert_eq!(names[..2], ["keybearer", "keybearer-1"]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), entries.len());
    }
}
