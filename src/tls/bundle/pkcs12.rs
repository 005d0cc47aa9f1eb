//! A PKCS #12 store of certificates (RFC 7292): nothing in it is encrypted, and a MAC tells accidents.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{
    Entry, STORE_PASSWORD,
    der::{
        BMP_STRING, CONTEXT_0, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, set_of, value,
    },
};

/// pkcs7-data, 1.2.840.113549.1.7.1.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// certBag, 1.2.840.113549.1.12.10.1.3.
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];
/// x509Certificate, 1.2.840.113549.1.9.22.1.
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
/// friendlyName, 1.2.840.113549.1.9.20.
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
/// trustedKeyUsage, 2.16.840.1.113894.746875.1.1: Oracle's mark of a certificate that is trusted. Java takes one without
/// it for part of somebody's chain, and finds the store empty.
const TRUSTED_KEY_USAGE: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];
/// anyExtendedKeyUsage, 2.5.29.37.0.
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// SHA-256, 2.16.840.1.101.3.4.2.1.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// As OpenSSL has it. More would only take longer, as the password is no secret.
const ITERATIONS: u16 = 2048;
/// The diversifier of keys for MACs (RFC 7292 §B.3), and the block that SHA-256 works on, in bytes.
const FOR_MAC: u8 = 3;
const BLOCK: usize = 64;

pub(super) fn store(entries: &[Entry]) -> Vec<u8> {
    let bags: Vec<u8> = entries.iter().flat_map(bag).collect();
    let safe = value(SEQUENCE, &[&data(&value(SEQUENCE, &[&bags]))]);
    value(SEQUENCE, &[&integer(3), &data(&safe), &mac(&safe)])
}

/// RFC 7292 §4.2.
fn bag(entry: &Entry) -> Vec<u8> {
    let certificate = value(OCTET_STRING, &[&entry.certificate]);
    let certificate = value(SEQUENCE, &[&id(X509), &value(CONTEXT_0, &[&certificate])]);
    let name: Vec<u8> = entry.alias.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attributes = vec![
        attribute(FRIENDLY_NAME, &value(BMP_STRING, &[&name])),
        attribute(TRUSTED_KEY_USAGE, &id(ANY_USAGE)),
    ];
    value(SEQUENCE, &[&id(CERT_BAG), &value(CONTEXT_0, &[&certificate]), &set_of(attributes)])
}

fn attribute(name: &[u8], content: &[u8]) -> Vec<u8> {
    value(SEQUENCE, &[&id(name), &value(SET, &[content])])
}

/// A `ContentInfo` of plain data (RFC 2315 §7).
fn data(content: &[u8]) -> Vec<u8> {
    let content = value(OCTET_STRING, &[content]);
    value(SEQUENCE, &[&id(DATA), &value(CONTEXT_0, &[&content])])
}

fn id(bytes: &[u8]) -> Vec<u8> {
    value(OBJECT_IDENTIFIER, &[bytes])
}

/// One that is not negative: the first bit is the sign.
fn integer(number: u16) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let digits = if bytes[0] == 0 && bytes[1] < 0x80 { &bytes[1..] } else { &bytes[..] };
    value(INTEGER, &[digits])
}

/// RFC 7292 §4: HMAC over the content. Its salt comes from the content, so that the same certificates give the same file.
fn mac(safe: &[u8]) -> Vec<u8> {
    let salt = Sha256::digest(safe);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key(&salt)).expect("HMAC takes keys of any length");
    mac.update(safe);
    let algorithm = value(SEQUENCE, &[&id(SHA256), &value(NULL, &[])]);
    let digest = value(SEQUENCE, &[&algorithm, &value(OCTET_STRING, &[&mac.finalize().into_bytes()])]);
    value(SEQUENCE, &[&digest, &value(OCTET_STRING, &[&salt]), &integer(ITERATIONS)])
}

/// RFC 7292 §B.2, for a key that is as long as the hash and a salt that is no longer than a block.
fn key(salt: &[u8]) -> [u8; 32] {
    // The password with the zero that ends it (§B.1).
    let password: Vec<u8> = STORE_PASSWORD.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
    let input: Vec<u8> = [FOR_MAC; BLOCK]
        .into_iter()
        .chain(salt.iter().copied().cycle().take(BLOCK))
        .chain(password.into_iter().cycle().take(BLOCK))
        .collect();
    let first = Sha256::digest(input);
    (1..ITERATIONS).fold(first, |hash, _| Sha256::digest(hash)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_read_as_negative() {
        assert_eq!(integer(3), [INTEGER, 1, 3]);
        assert_eq!(integer(200), [INTEGER, 2, 0, 200]);
        assert_eq!(integer(2048), [INTEGER, 2, 8, 0]);
    }

    #[test]
    fn the_same_certificates_give_the_same_store() {
        let entry = |byte| Entry { alias: "a".to_owned(), certificate: vec![byte; 300].into() };
        assert_eq!(store(&[entry(1)]), store(&[entry(1)]));
        assert_ne!(store(&[entry(1)]), store(&[entry(2)]));
    }
}
