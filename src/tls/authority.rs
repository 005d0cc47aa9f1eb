//! The CA that signs what agents see.

use std::{path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::parse_x509_certificate;

use super::{Error, stored};
use crate::host::Host;

/// Two years: short enough that a lost key does not haunt for ever, long enough for a developer's machine.
const CA_LIFE: Duration = Duration::days(730);
/// From when on a start warns that the CA ends soon.
const CA_ENDS_SOON: Duration = Duration::days(30);
/// The longest life of a leaf, both ends included (RFC 5280 §4.1.2.5).
const LEAF_LIFE: Duration = Duration::hours(24);
/// Agents whose clock is behind ours by this much still take the certificate.
const BACKDATE: Duration = Duration::minutes(10);

/// A CA whose certificate agents trust and whose key never leaves this process and its key file.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the CA from `ca.pem` and `ca.key` in `dir`, or makes them there at the first start; without a
    /// directory makes one that lives in memory only.
    ///
    /// # Errors
    /// [`Error`] if the files cannot be read or made, do not belong together, have expired, or if the key is
    /// open to others.
    pub fn open(dir: Option<&Path>) -> Result<Self, Error> {
        let now = OffsetDateTime::now_utc();
        let Some(dir) = dir else {
            let key = KeyPair::generate()?;
            let pem = self_signed(&key, now)?;
            return Self::new(pem, key).map_err(|reason| reason.at(Path::new("the CA in memory")));
        };
        let stored = stored::open(dir, |key| self_signed(key, now))?;
        let authority =
            Self::new(stored.pem, stored.key).map_err(|reason| reason.at(&dir.join(stored::CERTIFICATE)))?;
        authority.check_life(now)?;
        Ok(authority)
    }

    /// The certificate, PEM, as agents are given it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When the CA ends. It is not renewed by itself, because agents must be given the new one.
    #[must_use]
    pub fn expires(&self) -> jiff::Timestamp {
        timestamp(self.not_after)
    }

    /// SHA-256 of the certificate as lower-case hexadecimal digits, to compare with what an agent trusts.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        use std::fmt::Write;
        Sha256::digest(&self.der).iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _infallible = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Signs a leaf for the host, with a key of its own.
    pub(super) fn mint(&self, host: &Host, now: OffsetDateTime) -> Result<Leaf, Error> {
        if now > self.not_after {
            return Err(Error::Expired(self.expires()));
        }
        let not_before = now - BACKDATE;
        // The last second counts as valid. And a leaf that outlives its CA would be refused before it ends.
        let not_after = (not_before + LEAF_LIFE - Duration::SECOND).min(self.not_after);
        let mut params = leaf_params(host)?;
        params.not_before = not_before;
        params.not_after = not_after;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let signer = any_ecdsa_type(&PrivateKeyDer::from(key))?;
        Ok(Leaf {
            certified: Arc::new(CertifiedKey::new(vec![certificate.into()], signer)),
            fresh_from: not_before,
            fresh_until: now + (not_after - now) / 2,
        })
    }

    fn new(pem: String, key: KeyPair) -> Result<Self, Unusable> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(Unusable::HasKey); // it is about to be given to every agent
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| Unusable::NoCertificate)?;
        let (_, x509) = parse_x509_certificate(&der).map_err(|_| Unusable::NoCertificate)?;
        if !x509.is_ca() {
            return Err(Unusable::NotCa);
        }
        if x509.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(Unusable::OtherKey);
        }
        let not_after = x509.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| Unusable::NoCertificate)?;
        Ok(Self { pem, der, not_after, issuer })
    }

    fn check_life(&self, now: OffsetDateTime) -> Result<(), Error> {
        if now > self.not_after {
            return Err(Error::Expired(self.expires()));
        }
        if now + CA_ENDS_SOON > self.not_after {
            tracing::warn!(expires = %self.expires(), "the CA ends soon; plan to give agents a new one");
        }
        Ok(())
    }
}

/// A leaf with its key, and while it is to be used.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) certified: Arc<CertifiedKey>,
    fresh_from: OffsetDateTime,
    fresh_until: OffsetDateTime,
}

impl Leaf {
    /// In the first half of its life, by the wall clock: that one counts on while a machine sleeps, and a leaf
    /// from before a clock was set back would not be valid yet.
    pub(super) fn is_fresh(&self, now: OffsetDateTime) -> bool {
        (self.fresh_from..self.fresh_until).contains(&now)
    }
}

/// Why a stored certificate cannot be our CA's.
enum Unusable {
    HasKey,
    NoCertificate,
    NotCa,
    OtherKey,
}

impl Unusable {
    fn at(self, path: &Path) -> Error {
        let reason = match self {
            Self::HasKey => "holds a private key beside the certificate, and agents are given all of it",
            Self::NoCertificate => "does not hold a certificate",
            Self::NotCa => "holds a certificate that is not a CA's",
            Self::OtherKey => "holds the certificate of another key than ca.key",
        };
        Error::Unusable { path: path.to_owned(), reason }
    }
}

/// The CA's certificate for the key. Its name comes from the key: two CAs in one bundle stay apart (OpenSSL
/// finds an issuer by name first), and a certificate made anew for the same key has the same name.
fn self_signed(key: &KeyPair, now: OffsetDateTime) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    let id = params.key_identifier(key);
    let tag = id.iter().take(4).fold(0_u32, |tag, byte| tag << 8 | u32::from(*byte));
    params.distinguished_name = name();
    params.distinguished_name.push(DnType::CommonName, format!("keybearer CA {tag:08x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATE;
    params.not_after = now + CA_LIFE;
    Ok(params.self_signed(key)?.pem())
}

/// What RFC 5280 asks of an end entity in strict mode: AKI and SKI, critical basic constraints and key usage.
fn leaf_params(host: &Host) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    // Not the host's name: a common name ends at 64 characters, and nobody reads it since RFC 6125.
    params.distinguished_name = name();
    params.subject_alt_names = vec![match host {
        Host::Name(name) => SanType::DnsName(name.as_ref().try_into()?),
        Host::Ip(ip) => SanType::IpAddress(*ip),
    }];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "keybearer");
    name
}

fn timestamp(time: OffsetDateTime) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.unix_timestamp()).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint(authority: &Authority, host: &str, now: OffsetDateTime) -> Leaf {
        authority.mint(&Host::parse(host).unwrap(), now).unwrap()
    }

    fn life(leaf: &Leaf) -> (OffsetDateTime, OffsetDateTime) {
        let (_, x509) = parse_x509_certificate(&leaf.certified.cert[0]).unwrap();
        (x509.validity().not_before.to_datetime(), x509.validity().not_after.to_datetime())
    }

    #[test]
    fn a_leaf_lives_a_day_at_most_and_began_before_it_was_made() {
        let now = OffsetDateTime::now_utc();
        let (not_before, not_after) = life(&mint(&Authority::open(None).unwrap(), "api.github.com", now));
        assert!(not_before <= now - Duration::minutes(5));
        assert!(not_after - not_before < Duration::hours(24), "the last second counts too");
        assert!(not_after - now > Duration::hours(23));
    }

    #[test]
    fn a_leaf_never_outlives_its_ca_and_none_is_made_after_it() {
        let authority = Authority::open(None).unwrap();
        let end = authority.not_after;
        assert_eq!(life(&mint(&authority, "a.test", end - Duration::hours(2))).1, end);
        let late = authority.mint(&Host::parse("a.test").unwrap(), end + Duration::SECOND);
        assert!(matches!(late, Err(Error::Expired(_))));
        assert!(matches!(authority.check_life(end + Duration::SECOND), Err(Error::Expired(_))));
    }

    #[test]
    fn a_leaf_is_fresh_in_the_first_half_of_its_life_only() {
        let now = OffsetDateTime::now_utc();
        let leaf = mint(&Authority::open(None).unwrap(), "a.test", now);
        assert!(leaf.is_fresh(now));
        assert!(leaf.is_fresh(now + Duration::hours(11)));
        assert!(!leaf.is_fresh(now + Duration::hours(12)));
        assert!(!leaf.is_fresh(now - Duration::hours(1)), "the clock was set back");
    }

    #[test]
    fn the_ca_signs_leaves_only_and_says_whose_key_it_has() {
        let authority = Authority::open(None).unwrap();
        let (_, ca) = parse_x509_certificate(&authority.der).unwrap();
        assert_eq!(ca.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
        assert!(ca.key_usage().unwrap().unwrap().value.key_cert_sign());

        let leaf = mint(&authority, "a.test", OffsetDateTime::now_utc());
        let (_, leaf) = parse_x509_certificate(&leaf.certified.cert[0]).unwrap();
        assert!(!leaf.is_ca());
        assert_eq!(leaf.issuer(), ca.subject());
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
    }

    #[test]
    fn two_authorities_have_different_names_and_fingerprints() {
        let [one, other] = [Authority::open(None).unwrap(), Authority::open(None).unwrap()];
        let subject = |a: &Authority| parse_x509_certificate(&a.der).unwrap().1.subject().to_string();
        assert_ne!(subject(&one), subject(&other));
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(one.fingerprint().len(), 64);
    }
}
