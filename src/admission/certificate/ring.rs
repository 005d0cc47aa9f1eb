//! The webhook's own CAs: the one that signs, the one that is to follow it, and those that may still be in use.
//!
//! A CA lives a year. After two thirds of it the next one is made, so that for four months both are trusted; leaves live
//! 90 days, so that none of them outlives its CA.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::tls::certificate_pem;

const CA_LIFE: Duration = Duration::days(365);
const LEAF_LIFE: Duration = Duration::days(90);
/// API servers whose clock is behind ours by this much still take the certificate.
const BACKDATE: Duration = Duration::minutes(10);

/// The CAs, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring(Vec<Ca>);

/// What tells CAs apart.
pub(super) type Print = [u8; 32];

#[derive(Debug)]
struct Ca {
    certificate: CertificateDer<'static>,
    life: Life,
    issuer: Issuer<'static, KeyPair>,
}

/// From when to when.
#[derive(Debug, Clone, Copy)]
struct Life {
    begins: OffsetDateTime,
    ends: OffsetDateTime,
}

impl Life {
    /// The last third begins.
    fn is_to_be_renewed(self, now: OffsetDateTime) -> bool {
        now >= self.begins + (self.ends - self.begins) * 2 / 3
    }
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// They were altered, or are somebody else's.
    #[error("does not hold the webhook's CAs with their keys")]
    Unreadable,
    /// Making one failed.
    #[error("cannot hold a certificate, as none can be made")]
    Make(#[from] rcgen::Error),
}

impl Ring {
    /// Reads the CAs: certificates, and keys in the same order, PEM.
    pub(super) fn read(certificates: &[u8], keys: &[u8]) -> Result<Self, Error> {
        let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
        let keys = PrivateKeyDer::pem_slice_iter(keys).collect::<Result<Vec<_>, _>>();
        let (certificates, keys) = certificates.ok().zip(keys.ok()).ok_or(Error::Unreadable)?;
        if certificates.len() != keys.len() {
            return Err(Error::Unreadable);
        }
        let pairs = certificates.into_iter().zip(keys);
        pairs.map(|(certificate, key)| Ca::read(certificate, &key)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn copied(&self) -> Result<Self, Error> {
        Self::read(self.certificates().as_bytes(), self.keys().as_bytes())
    }

    /// Leaves out what has ended, and makes the CA that is to follow. Returns whether anything changed.
    pub(super) fn turn(&mut self, now: OffsetDateTime) -> Result<bool, Error> {
        let before = self.0.len();
        self.0.retain(|ca| now <= ca.life.ends);
        let is_due = self.0.last().is_none_or(|ca| ca.life.is_to_be_renewed(now));
        if is_due {
            self.0.push(Ca::make(now)?);
        }
        Ok(is_due || self.0.len() != before)
    }

    /// Every certificate, PEM: what API servers are to trust.
    pub(super) fn certificates(&self) -> String {
        self.0.iter().map(|ca| certificate_pem(&ca.certificate)).collect()
    }

    /// Their keys in the same order, PEM.
    pub(super) fn keys(&self) -> Zeroizing<String> {
        self.0.iter().fold(Zeroizing::default(), |mut keys, ca| {
            keys.push_str(&Zeroizing::new(ca.issuer.key().serialize_pem()));
            keys
        })
    }

    /// What tells them apart.
    pub(super) fn prints(&self) -> impl Iterator<Item = Print> {
        self.0.iter().map(Ca::print)
    }

    /// Makes the leaf for this name, if `leaf` is not one to go on with: signed by the newest CA that API servers are known
    /// to trust, or by the oldest, which they have had longest, unless it ends within two hours.
    pub(super) fn leaf(
        &self,
        name: &str,
        now: OffsetDateTime,
        is_trusted: impl Fn(Print) -> bool,
        leaf: Option<&Leaf>,
    ) -> Result<Option<Leaf>, Error> {
        let trusted = self.0.iter().rfind(|ca| is_trusted(ca.print()));
        let lasting = self.0.iter().find(|ca| now + Duration::hours(2) < ca.life.ends);
        let Some(ca) = trusted.or(lasting).or_else(|| self.0.last()) else { return Ok(None) };
        if leaf.is_some_and(|leaf| leaf.issuer == ca.print() && !leaf.life.is_to_be_renewed(now)) {
            return Ok(None);
        }
        ca.sign(name, now).map(Some)
    }
}

impl Ca {
    fn make(now: OffsetDateTime) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Its name comes from its key: OpenSSL finds an issuer by name first, and here are two.
        let tag =
            params.key_identifier(&key).iter().take(4).fold(0_u32, |tag, byte| tag << 8 | u32::from(*byte));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "keybearer");
        params.distinguished_name.push(DnType::CommonName, format!("keybearer webhook CA {tag:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATE;
        params.not_after = now + CA_LIFE;
        let certificate = params.self_signed(&key)?.der().clone();
        Self::new(certificate, key)
    }

    fn read(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'_>) -> Result<Self, Error> {
        Self::new(certificate, KeyPair::try_from(key).map_err(|_| Error::Unreadable)?)
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        let (_, x509) = parse_x509_certificate(&certificate).map_err(|_| Error::Unreadable)?;
        let is_its_key = x509.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key);
        if !x509.is_ca() || !is_its_key {
            return Err(Error::Unreadable);
        }
        let validity = x509.validity();
        let life = Life { begins: validity.not_before.to_datetime(), ends: validity.not_after.to_datetime() };
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| Error::Unreadable)?;
        Ok(Self { certificate, life, issuer })
    }

    fn print(&self) -> Print {
        Sha256::digest(&self.certificate).into()
    }

    fn sign(&self, name: &str, now: OffsetDateTime) -> Result<Leaf, Error> {
        let life = Life { begins: now - BACKDATE, ends: (now - BACKDATE + LEAF_LIFE).min(self.life.ends) };
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "keybearer");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (life.begins, life.ends);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let signer = any_ecdsa_type(&PrivateKeyDer::from(key)).map_err(|_| Error::Unreadable)?;
        let certified = CertifiedKey::new(vec![certificate.into()], signer);
        Ok(Leaf { certified: certified.into(), issuer: self.print(), life })
    }
}

/// What is shown to API servers.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) certified: std::sync::Arc<CertifiedKey>,
    issuer: Print,
    life: Life,
}

impl Leaf {
    /// Unix seconds.
    pub(super) const fn ends(&self) -> i64 {
        self.life.ends.unix_timestamp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "keybearer-webhook.keybearer.svc";

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc().replace_nanosecond(0).unwrap()
    }

    fn turned(ring: &mut Ring, now: OffsetDateTime) -> usize {
        ring.turn(now).unwrap();
        ring.0.len()
    }

    fn days(days: i64) -> Duration {
        Duration::days(days)
    }

    #[test]
    fn the_next_ca_is_made_in_time_and_the_last_one_goes_when_it_ends() {
        let (now, mut ring) = (now(), Ring::default());
        assert!(ring.turn(now).unwrap());
        assert!(!ring.turn(now + days(243)).unwrap(), "two thirds are not over");
        assert_eq!(turned(&mut ring, now + days(244)), 2);
        assert_eq!(turned(&mut ring, now + days(364)), 2);
        let first = ring.0[0].print();
        assert!(ring.turn(now + days(366)).unwrap());
        assert_eq!(ring.0.len(), 1);
        assert_ne!(ring.0[0].print(), first);
        assert_eq!(turned(&mut ring, now + days(3000)), 1, "nobody was there for years");
    }

    #[test]
    fn what_was_written_is_read_and_keys_of_others_are_refused() {
        let (now, mut ring) = (now(), Ring::default());
        ring.turn(now).unwrap();
        ring.turn(now + days(300)).unwrap();
        let (certificates, keys) = (ring.certificates(), ring.keys());
        let read = Ring::read(certificates.as_bytes(), keys.as_bytes()).unwrap();
        assert_eq!(read.certificates(), certificates);
        assert!(read.keys() == keys);
        assert!(Ring::read(b"", b"").unwrap().is_empty(), "a Secret that was made with nothing in it");

        let mut other = Ring::default();
        other.turn(now).unwrap();
        let single = other.keys();
        for (certificates, keys) in [
            (other.certificates(), keys.as_str()),
            (certificates.clone(), single.as_str()),
            (certificates.replacen("MII", "MIJ", 1), keys.as_str()),
            ([other.certificates(), other.certificates()].concat(), keys.as_str()),
            (certificates, ""),
        ] {
            let refused = Ring::read(certificates.as_bytes(), keys.as_bytes());
            assert!(matches!(refused, Err(Error::Unreadable)), "{refused:?}");
        }
    }

    #[test]
    fn a_leaf_lives_ninety_days_and_is_renewed_after_two_thirds_of_them() {
        let (now, mut ring) = (now(), Ring::default());
        ring.turn(now).unwrap();
        let leaf = ring.leaf(NAME, now, |_| false, None).unwrap().unwrap();
        let (_, x509) = parse_x509_certificate(&leaf.certified.cert[0]).unwrap();
        let validity = x509.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 90 * 86400);
        assert_eq!(validity.not_after.timestamp(), leaf.ends());
        let again = |after| ring.leaf(NAME, now + days(after), |_| false, Some(&leaf)).unwrap();
        assert!(again(59).is_none());
        assert!(again(60).is_some());
        let late = ring.leaf(NAME, now + days(364), |_| false, None).unwrap().unwrap();
        assert_eq!(late.life.ends, ring.0[0].life.ends, "no leaf outlives its CA");
    }

    #[test]
    fn a_new_ca_signs_once_it_is_trusted_or_nobody_else_is_left() {
        let (now, mut ring) = (now(), Ring::default());
        ring.turn(now).unwrap();
        ring.turn(now + days(300)).unwrap();
        let [old, new] = [0, 1].map(|at| ring.0[at].print());
        let signer = |after, trusted: &[Print]| {
            let leaf = ring.leaf(NAME, now + days(after), |ca| trusted.contains(&ca), None);
            leaf.unwrap().unwrap().issuer
        };
        assert_eq!(signer(300, &[]), old, "a process that has just begun");
        assert_eq!(signer(300, &[old]), old);
        assert_eq!(signer(300, &[old, new]), new);
        assert_eq!(signer(365, &[]), new, "the old one is about to end");
        let of_old = ring.leaf(NAME, now + days(300), |_| false, None).unwrap();
        let of_new = ring.leaf(NAME, now + days(300), |ca| ca == new, of_old.as_ref()).unwrap();
        assert_eq!(of_new.unwrap().issuer, new, "at once, whatever is left of the leaf");
    }
}
