//! A certificate authority for the tests, and the certificates a provider may show.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

/// The authority that vouches for the providers of one test. Clones are the same one.
#[derive(Clone)]
pub(crate) struct TestAuthority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
}

impl TestAuthority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "keybearer test provider CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()) }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for the names, with its key. An expired one ended yesterday.
    pub(crate) fn leaf(
        &self,
        names: &[String],
        validity: Validity,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (leaf, key) = self.issue(names, validity);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![leaf.der().clone()], key)
    }

    /// The same for a server that reads PEM: chain and key. The chain has this authority in it, for a browser that
    /// is told its [`TestAuthority::pin`].
    pub(crate) fn leaf_pem(&self, names: &[String]) -> (String, String) {
        let (leaf, key) = self.issue(names, Validity::Current);
        (leaf.pem() + &self.pem(), key.serialize_pem())
    }

    /// The SHA-256 of this authority's public key, as browsers are told whom to trust.
    pub(crate) fn pin(&self) -> String {
        BASE64_STANDARD.encode(Sha256::digest(self.issuer.key().subject_public_key_info()))
    }

    fn issue(&self, names: &[String], validity: Validity) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "keybearer test provider");
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = OffsetDateTime::now_utc();
        let days = match validity {
            Validity::Current => 1,
            Validity::Expired => -1,
        };
        (params.not_before, params.not_after) = (now - Duration::days(2), now + Duration::days(days));
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// What a client needs to trust this authority and no other.
    pub(crate) fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// Whether a certificate is still good.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Validity {
    #[default]
    Current,
    Expired,
}
