//! Sealing: XChaCha20-Poly1305 with everything that names the plaintext as associated data.
//!
//! A sealed text is `version (1 byte) · nonce (24 bytes) · ciphertext and tag`. The nonce is random: at 192
//! bits, two never meet.

use std::fmt;

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, KeyInit, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{FactKey, FactKind};
use crate::id::{AccountKey, Principal, TenantId};

/// The only format so far. It is the first byte of every sealed text and part of its associated data.
pub(super) const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

/// A key's length, in bytes.
pub(super) const KEY: usize = 32;

/// Why something was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The text begins with a version that this program does not know.
    #[error("it has format version {0}, and this program knows only version {VERSION}")]
    Version(u8),
    /// Another key, other associated data, or changed bytes: the cipher cannot tell which.
    #[error("it was changed, moved or torn")]
    Forged,
    /// The system gave no random bytes, or the text is longer than the cipher takes.
    #[error("it could not be sealed: the system gives no random bytes")]
    Cipher,
}

/// 32 bytes that seal: the key-encryption key, or a tenant's data key.
#[derive(Clone)]
pub(super) struct Key(Zeroizing<[u8; KEY]>);

impl Key {
    pub(super) fn generate() -> Result<Self, Error> {
        <[u8; KEY]>::try_generate().map(|bytes| Self(Zeroizing::new(bytes))).map_err(|_| Error::Cipher)
    }

    /// Takes the bytes as a key, where there are exactly 32.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY]);
        if bytes.len() != KEY {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    /// The key itself: to be sealed under another one, or written to its file.
    pub(super) fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let digest =
            Sha256::new().chain_update(b"keybearer key fingerprint").chain_update(self.bytes()).finalize();
        let mut short = [0; Fingerprint::LEN];
        short.copy_from_slice(&digest[..Fingerprint::LEN]);
        Fingerprint(short)
    }

    pub(super) fn seal(&self, bound: &Bound, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = XNonce::try_generate().map_err(|_| Error::Cipher)?;
        let text = self
            .cipher()
            .encrypt(&nonce, Payload { msg: plain, aad: &bound.0 })
            .map_err(|_| Error::Cipher)?;
        let mut sealed = Vec::with_capacity(1 + NONCE + text.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    pub(super) fn open(&self, bound: &Bound, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (version, rest) = sealed.split_first().ok_or(Error::Forged)?;
        if *version != VERSION {
            return Err(Error::Version(*version));
        }
        if rest.len() < NONCE + TAG {
            return Err(Error::Forged);
        }
        let (nonce, text) = rest.split_at(NONCE);
        let nonce = XNonce::try_from(nonce).map_err(|_| Error::Forged)?;
        let plain =
            self.cipher().decrypt(&nonce, Payload { msg: text, aad: &bound.0 }).map_err(|_| Error::Forged)?;
        Ok(Zeroizing::new(plain))
    }

    /// Wipes its own copy of the key when dropped.
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.bytes().into())
    }
}

/// What people compare to tell two keys apart: the first eight bytes of a hash, in hexadecimal. It says
/// nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; Self::LEN]);

impl Fingerprint {
    pub(super) const LEN: usize = 8;

    pub(super) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Associated data: what a sealed text is, and whose. Each part is written behind its length, so that no two
/// lists of parts make the same bytes.
pub(super) struct Bound(Vec<u8>);

impl Bound {
    /// The text in a vault's header that shows whether a key is the right one.
    pub(super) fn verifier() -> Self {
        Self::new("verifier")
    }

    /// A tenant's data key.
    pub(super) fn data_key(tenant: &TenantId) -> Self {
        Self::new("data key").part(tenant.as_str().as_bytes())
    }

    /// One generation of an account (law 3).
    pub(super) fn account(key: &AccountKey, generation: u64) -> Self {
        Self::new("account").part(&encode(key)).part(&generation.to_be_bytes())
    }

    /// What is about to be sent for an account, under one lease.
    pub(super) fn intent(key: &AccountKey, fence: u64) -> Self {
        Self::new("intent").part(&encode(key)).part(&fence.to_be_bytes())
    }

    /// What a token endpoint answered to it.
    pub(super) fn answer(key: &AccountKey, fence: u64) -> Self {
        Self::new("answer").part(&encode(key)).part(&fence.to_be_bytes())
    }

    /// What waits to be told of an account.
    pub(super) fn note(key: &AccountKey) -> Self {
        Self::new("note").part(&encode(key))
    }

    /// One generation of a fact.
    pub(super) fn fact(key: &FactKey, generation: u64) -> Self {
        Self::new("fact").part(&encode_fact(key)).part(&generation.to_be_bytes())
    }

    fn new(what: &str) -> Self {
        Self(vec![VERSION]).part(b"keybearer").part(what.as_bytes())
    }

    fn part(mut self, part: &[u8]) -> Self {
        push(&mut self.0, part);
        self
    }
}

/// An account's key as bytes: each part behind its length, the tenant first, so that a tenant's accounts stand
/// together and no other tenant's among them.
pub(super) fn encode(key: &AccountKey) -> Vec<u8> {
    let mut bytes = encode_tenant(&key.tenant);
    push(&mut bytes, key.connector.as_str().as_bytes());
    match &key.principal {
        Principal::Developer => push(&mut bytes, b"developer"),
        Principal::Tenant => push(&mut bytes, b"tenant"),
        Principal::Role(role) => {
            push(&mut bytes, b"role");
            push(&mut bytes, role.as_str().as_bytes());
        }
        Principal::User { user, role } => {
            push(&mut bytes, b"user");
            push(&mut bytes, user.as_str().as_bytes());
            push(&mut bytes, role.as_str().as_bytes());
        }
    }
    bytes
}

/// An account's key, behind its length, before other bytes.
pub(super) fn join_account(key: &AccountKey, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 + rest.len());
    push(&mut bytes, &encode(key));
    bytes.extend_from_slice(rest);
    bytes
}

/// Reads what [`join_account`] wrote.
pub(super) fn split_account(bytes: &[u8]) -> Option<(AccountKey, &[u8])> {
    let mut rest = bytes;
    let key = decode(take_bytes(&mut rest)?)?;
    Some((key, rest))
}

/// Reads what [`encode_tenant`] wrote; `None` for anything else.
pub(super) fn decode_tenant(bytes: &[u8]) -> Option<TenantId> {
    let mut rest = bytes;
    let tenant = take(&mut rest)?.parse().ok()?;
    rest.is_empty().then_some(tenant)
}

/// A fact's key as bytes, the tenant first.
pub(super) fn encode_fact(key: &FactKey) -> Vec<u8> {
    let mut bytes = encode_tenant(&key.tenant);
    push(&mut bytes, key.kind.as_str().as_bytes());
    push(&mut bytes, key.name.as_bytes());
    bytes
}

/// Reads what [`encode_fact`] wrote; `None` for anything else.
pub(super) fn decode_fact(bytes: &[u8]) -> Option<FactKey> {
    let mut rest = bytes;
    let tenant = take(&mut rest)?.parse().ok()?;
    let kind = FactKind::read(take(&mut rest)?)?;
    let name = take(&mut rest)?.to_owned();
    rest.is_empty().then_some(FactKey { tenant, kind, name })
}

/// The beginning of the keys of all accounts and facts of a tenant.
pub(super) fn encode_tenant(tenant: &TenantId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    push(&mut bytes, tenant.as_str().as_bytes());
    bytes
}

/// Reads what [`encode`] wrote; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<AccountKey> {
    let mut rest = bytes;
    let tenant = take(&mut rest)?.parse().ok()?;
    let connector = take(&mut rest)?.parse().ok()?;
    let principal = match take(&mut rest)? {
        "developer" => Principal::Developer,
        "tenant" => Principal::Tenant,
        "role" => Principal::Role(take(&mut rest)?.parse().ok()?),
        "user" => {
            Principal::User { user: take(&mut rest)?.parse().ok()?, role: take(&mut rest)?.parse().ok()? }
        }
        _ => return None,
    };
    rest.is_empty().then_some(AccountKey { tenant, connector, principal })
}

/// Names are at most 200 bytes, and the longest part, an encoded account key, a few times that.
fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok()
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (part, after) = after.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, connector: &str, principal: Principal) -> AccountKey {
        AccountKey { tenant: tenant.parse().unwrap(), connector: connector.parse().unwrap(), principal }
    }

    fn principals() -> impl Strategy<Value = Principal> {
        let name = "[a-z:@.]{1,8}";
        prop_oneof![
            Just(Principal::Developer),
            Just(Principal::Tenant),
            name.prop_map(|role| Principal::Role(role.parse().unwrap())),
            (name, name).prop_map(|(user, role)| Principal::User {
                user: user.parse().unwrap(),
                role: role.parse().unwrap()
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_account_key_is_read_back_from_its_bytes(
            tenant in "[a-z:]{1,8}", connector in "[a-z:]{1,8}", principal in principals()
        ) {
            let key = key(&tenant, &connector, principal);
            prop_assert_eq!(decode(&encode(&key)), Some(key));
        }
    }

    #[test]
    fn parts_that_run_together_in_text_stay_apart_in_bytes() {
        let role = |name: &str| Principal::Role(name.parse().unwrap());
        let texts = [
            key("ab", "c", Principal::Tenant),
            key("a", "bc", Principal::Tenant),
            key("a", "b", role("tenant")),
            key("a", "b", Principal::User { user: "u".parse().unwrap(), role: "r".parse().unwrap() }),
            key("a", "b", role("u:r")),
        ]
        .map(|key| encode(&key));
        for (at, one) in texts.iter().enumerate() {
            assert!(texts[at + 1..].iter().all(|other| other != one));
        }
        assert!(
            !encode(&key("ab", "c", Principal::Tenant)).starts_with(&encode_tenant(&"a".parse().unwrap()))
        );
    }

    #[test]
    fn a_cut_or_lengthened_account_key_is_not_read() {
        let bytes = encode(&key("acme", "github", Principal::Role("writer".parse().unwrap())));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), None);
    }

    #[test]
    fn sealed_text_opens_under_its_own_key_and_name_only() {
        let (key_a, key_b) = (Key::generate().unwrap(), Key::generate().unwrap());
        let account = key("acme", "github", Principal::Tenant);
        let bound = Bound::account(&account, 7);
        let sealed = key_a.seal(&bound, b"token").unwrap();

        assert_eq!(key_a.open(&bound, &sealed).unwrap().as_slice(), b"token");
        assert_eq!(key_b.open(&bound, &sealed).err(), Some(Error::Forged));
        for other in [
            Bound::account(&account, 8),
            Bound::account(&key("globex", "github", Principal::Tenant), 7),
            Bound::account(&key("acme", "gitlab", Principal::Tenant), 7),
            Bound::account(&key("acme", "github", Principal::Developer), 7),
            Bound::data_key(&account.tenant),
            Bound::verifier(),
        ] {
            assert_eq!(key_a.open(&other, &sealed).err(), Some(Error::Forged));
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let key = Key::generate().unwrap();
        let sealed = key.seal(&Bound::verifier(), b"token").unwrap();
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&Bound::verifier(), &changed).err(), Some(Error::Forged), "{at}");
            assert_eq!(key.open(&Bound::verifier(), &sealed[..at]).err(), Some(Error::Forged), "{at}");
        }
        let mut newer = sealed;
        newer[0] = 2;
        assert_eq!(key.open(&Bound::verifier(), &newer).err(), Some(Error::Version(2)));
        assert_eq!(key.open(&Bound::verifier(), b"").err(), Some(Error::Forged));
    }

    #[test]
    fn the_same_text_is_never_sealed_to_the_same_bytes() {
        let key = Key::generate().unwrap();
        assert_ne!(key.seal(&Bound::verifier(), b"a").unwrap(), key.seal(&Bound::verifier(), b"a").unwrap());
    }
}
