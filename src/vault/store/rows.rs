//! How the tables lie in sled's one tree.
//!
//! A page of more than a third of a segment goes to a file of its own, which sled never syncs. A page has up to
//! 17 values, so what is large is cut into chunks, and no page becomes that large.

use sled::{Batch, Db, IVec};

use super::{Row, StoredIntent, StoredNote};
use crate::{
    id::{AccountKey, TenantId},
    vault::{FactKey, FactKind, seal},
};

/// The keys of the one tree: what it is, then whose. One batch can so change several of them at once.
pub(super) const HEADER: &[u8] = b"h";
pub(super) const CHANGES: &[u8] = b"n";
pub(super) const DATA_KEY: u8 = b'k';

/// 17 chunks with their keys, which are at most 850 bytes, are less than a third of sled's 512 KiB segments.
const CHUNK_BYTES: usize = 8 * 1024;

/// What went wrong in sled, or in what it gave back.
pub(super) enum Fault {
    Sled(sled::Error),
    Malformed(&'static str),
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

pub(super) fn tree_key(kind: u8, whose: &[u8]) -> Vec<u8> {
    [&[kind], whose].concat()
}

/// A table of numbered texts of any length: a first value, and as many chunks as it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    first: u8,
    chunk: u8,
}

/// Accounts, by their keys; the number is the generation.
pub(super) const ACCOUNTS: Table = Table { first: b'a', chunk: b'c' };
/// Facts, by their keys; the number is the generation.
pub(super) const FACTS: Table = Table { first: b'f', chunk: b'g' };
/// What is about to be sent, by account; the number is the fence.
pub(super) const INTENTS: Table = Table { first: b'i', chunk: b'j' };
/// What came back, by account; the number is the fence.
pub(super) const ANSWERS: Table = Table { first: b'q', chunk: b'r' };
/// What waits to be told, by number: the account's key behind its length, then the sealed note.
pub(super) const NOTES: Table = Table { first: b'o', chunk: b'p' };

/// The front of a first value: the number, how many chunks follow, and the first bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) number: u64,
    chunks: u16,
}

const HEAD_BYTES: usize = 8 + 2;

impl Head {
    fn read(value: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let short = Fault::Malformed("a row is too short");
        let Some((number, rest)) = value.split_first_chunk() else { return Err(short) };
        let Some((chunks, text)) = rest.split_first_chunk() else { return Err(short) };
        Ok((Self { number: u64::from_be_bytes(*number), chunks: u16::from_be_bytes(*chunks) }, text))
    }
}

impl Table {
    /// The keys of all first values that begin so.
    pub(super) fn prefix(self, whose: &[u8]) -> Vec<u8> {
        tree_key(self.first, whose)
    }

    fn chunk_key(self, key: &[u8], at: u16) -> Vec<u8> {
        [&[self.chunk], key, &at.to_be_bytes()].concat()
    }

    pub(super) fn head(self, db: &Db, key: &[u8]) -> Result<Option<Head>, Fault> {
        let value = db.get(self.prefix(key))?;
        value.map(|value| Head::read(&value).map(|(head, _)| head)).transpose()
    }

    /// The number and the text.
    pub(super) fn get(self, db: &Db, key: &[u8]) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        let value = db.get(self.prefix(key))?;
        value.map(|value| self.read(db, key, &value)).transpose()
    }

    fn read(self, db: &Db, key: &[u8], value: &[u8]) -> Result<(u64, Vec<u8>), Fault> {
        let (head, first) = Head::read(value)?;
        let mut text = first.to_vec();
        for at in 0..head.chunks {
            let chunk = db.get(self.chunk_key(key, at))?.ok_or(Fault::Malformed("a row lacks its end"))?;
            text.extend_from_slice(&chunk);
        }
        Ok((head.number, text))
    }

    /// Reads what a scan over [`Table::prefix`] found, without the table's letter before the key.
    pub(super) fn entry(self, db: &Db, entry: sled::Result<(IVec, IVec)>) -> Result<Entry, Fault> {
        let (key, value) = entry?;
        let key = key[1..].to_vec();
        let (number, text) = self.read(db, &key, &value)?;
        Ok(Entry { key, number, text })
    }

    /// Writes over what is there, which may be longer.
    pub(super) fn put(
        self,
        db: &Db,
        batch: &mut Batch,
        key: &[u8],
        number: u64,
        text: &[u8],
    ) -> Result<(), Fault> {
        self.remove(db, batch, key)?; // a later insertion in a batch wins over an earlier removal of the same key
        let (first, rest) = text.split_at(text.len().min(CHUNK_BYTES - HEAD_BYTES));
        let mut chunks = 0u16;
        for chunk in rest.chunks(CHUNK_BYTES) {
            batch.insert(self.chunk_key(key, chunks), chunk);
            chunks += 1; // the largest account has some 350
        }
        let value = [&number.to_be_bytes()[..], &chunks.to_be_bytes(), first].concat();
        batch.insert(self.prefix(key), value);
        Ok(())
    }

    /// Removes the text and all its chunks, if it is there.
    pub(super) fn remove(self, db: &Db, batch: &mut Batch, key: &[u8]) -> Result<(), Fault> {
        if let Some(head) = self.head(db, key)? {
            batch.remove(self.prefix(key));
            (0..head.chunks).for_each(|at| batch.remove(self.chunk_key(key, at)));
        }
        Ok(())
    }
}

/// One text of a table.
pub(super) struct Entry {
    key: Vec<u8>,
    number: u64,
    text: Vec<u8>,
}

impl Entry {
    fn account(&self) -> Result<AccountKey, Fault> {
        seal::decode(&self.key).ok_or(Fault::Malformed("a row's key names no account"))
    }

    pub(super) fn into_row(self) -> Result<(AccountKey, Row), Fault> {
        Ok((self.account()?, Row { generation: self.number, sealed: self.text }))
    }

    pub(super) fn into_intent(self, db: &Db) -> Result<(AccountKey, StoredIntent), Fault> {
        let answer = ANSWERS.get(db, &self.key)?.map(|(_, sealed)| sealed);
        Ok((self.account()?, StoredIntent { fence: self.number, sealed: self.text, answer }))
    }

    pub(super) fn into_note(self) -> Result<StoredNote, Fault> {
        let (account, sealed) =
            seal::split_account(&self.text).ok_or(Fault::Malformed("a note names no account"))?;
        Ok(StoredNote { id: self.number, account, sealed: sealed.to_vec() })
    }
}

pub(super) fn intent(db: &Db, key: &[u8]) -> Result<Option<StoredIntent>, Fault> {
    let Some((fence, sealed)) = INTENTS.get(db, key)? else { return Ok(None) };
    let answer = ANSWERS.get(db, key)?.map(|(_, sealed)| sealed);
    Ok(Some(StoredIntent { fence, sealed, answer }))
}

/// Ends an attempt: its intent and answer go, and what it has to tell is kept under the number of this change.
pub(super) fn settle(
    db: &Db,
    batch: &mut Batch,
    account: &AccountKey,
    note: Option<Vec<u8>>,
) -> Result<(), Fault> {
    let key = seal::encode(account);
    INTENTS.remove(db, batch, &key)?;
    ANSWERS.remove(db, batch, &key)?;
    let Some(sealed) = note else { return Ok(()) };
    let number = next_change(db)?;
    NOTES.put(db, batch, &number.to_be_bytes(), number, &seal::join_account(account, &sealed))
}

/// The facts of a kind whose keys begin so. What is of another kind is not read.
pub(super) fn facts(db: &Db, prefix: &[u8], kind: FactKind) -> Result<Vec<(FactKey, Row)>, Fault> {
    let mut found = Vec::new();
    for entry in db.scan_prefix(prefix) {
        let (key, value) = entry?;
        let fact = seal::decode_fact(&key[1..]).ok_or(Fault::Malformed("a fact's key names none"))?;
        if fact.kind == kind {
            let (generation, sealed) = FACTS.read(db, &key[1..], &value)?;
            found.push((fact, Row { generation, sealed }));
        }
    }
    Ok(found)
}

pub(super) fn data_keys(db: &Db) -> Result<Vec<(TenantId, Vec<u8>)>, Fault> {
    let read = |entry: sled::Result<(IVec, IVec)>| {
        let (key, sealed) = entry?;
        let tenant = seal::decode_tenant(&key[1..]).ok_or(Fault::Malformed("a data key names no tenant"))?;
        Ok((tenant, sealed.to_vec()))
    };
    let mut keys = db.scan_prefix([DATA_KEY]).map(read).collect::<Result<Vec<_>, Fault>>()?;
    keys.sort(); // the bytes sort by length first
    Ok(keys)
}

/// The number of the change that is being made: changes only rise, so it will do for whatever must be new.
pub(super) fn next_change(db: &Db) -> Result<u64, Fault> {
    Ok(number(db.get(CHANGES)?)? + 1)
}

pub(super) fn number(bytes: Option<IVec>) -> Result<u64, Fault> {
    let Some(bytes) = bytes else { return Ok(0) };
    let bytes =
        bytes.as_ref().try_into().map_err(|_| Fault::Malformed("the count of changes is no number"))?;
    Ok(u64::from_be_bytes(bytes))
}
