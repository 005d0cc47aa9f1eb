//! A Java key store of certificates: `sun.security.provider.JavaKeyStore`, which describes its format itself.
//!
//! Numbers are big-endian, texts are preceded by their length in two bytes. At the end stands SHA-1 of the password, as
//! UTF-16, of a phrase, and of everything before: a check against accidents, since SHA-1 would not keep a forger away and
//! the password is no secret.

use sha1::{Digest, Sha1};

use super::{Entry, STORE_PASSWORD};

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
const PHRASE: &[u8] = b"Mighty Aphrodite";
/// When an entry was made, in milliseconds since 1970. Nobody asks, and the same certificates give the same file.
const MADE: u64 = 0;

pub(super) fn store(entries: &[Entry]) -> Vec<u8> {
    let mut store = Vec::new();
    for number in [MAGIC, VERSION, length(entries)] {
        store.extend_from_slice(&number.to_be_bytes());
    }
    for Entry { alias, certificate } in entries {
        store.extend_from_slice(&TRUSTED_CERTIFICATE.to_be_bytes());
        push_text(&mut store, alias);
        store.extend_from_slice(&MADE.to_be_bytes());
        push_text(&mut store, "X.509");
        store.extend_from_slice(&length(certificate).to_be_bytes());
        store.extend_from_slice(certificate);
    }
    let password: Vec<u8> = STORE_PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let digest = Sha1::new().chain_update(password).chain_update(PHRASE).chain_update(&store).finalize();
    store.extend_from_slice(&digest);
    store
}

fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("certificates are some kilobytes, and some hundreds")
}

fn push_text(store: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names are a few characters");
    store.extend_from_slice(&length.to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_laid_out_as_java_reads_it() {
        let entry = Entry { alias: "ab".to_owned(), certificate: vec![1, 2, 3].into() };
        let store = store(&[entry]);
        let (content, digest) = store.split_at(store.len() - 20);
        let expected = [
            &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1][..],
            &[0, 0, 0, 2, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 5, b'X', b'.', b'5', b'0', b'9', 0, 0, 0, 3, 1, 2, 3],
        ];
        assert_eq!(content, expected.concat());
        let whole = [b"\0c\0h\0a\0n\0g\0e\0i\0tMighty Aphrodite", content].concat();
        assert_eq!(digest, Sha1::digest(whole).as_slice());
    }
}
