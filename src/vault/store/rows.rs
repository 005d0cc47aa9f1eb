//! How the tables lie in sled's one tree.
//!
//! A page of more than a third of a segment goes to a file of its own, which sled never syncs. A page has up to
//! 17 values, so a large account is cut into chunks, and no page becomes that large.

use sled::{Batch, Db, IVec};

use super::Row;
use crate::{id::AccountKey, vault::seal};

/// The keys of the one tree: what it is, then whose. One batch can so change several of them at once.
pub(super) const HEADER: &[u8] = b"h";
pub(super) const CHANGES: &[u8] = b"n";
pub(super) const DATA_KEY: u8 = b'k';
pub(super) const ACCOUNT: u8 = b'a';
const CHUNK: u8 = b'c';

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

pub(super) fn create(db: &Db, key: &[u8], value: Vec<u8>) -> Result<Option<Batch>, Fault> {
    if db.contains_key(key)? {
        return Ok(None);
    }
    let mut batch = Batch::default();
    batch.insert(key, value);
    Ok(Some(batch))
}

/// The front of a row's first value: the generation, how many chunks follow, and the first sealed bytes.
pub(super) struct Head {
    pub(super) generation: u64,
    chunks: u16,
}

const HEAD_BYTES: usize = 8 + 2;

impl Head {
    fn read(value: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let short = Fault::Malformed("a row is too short");
        let Some((generation, rest)) = value.split_first_chunk() else { return Err(short) };
        let Some((chunks, sealed)) = rest.split_first_chunk() else { return Err(short) };
        let (generation, chunks) = (u64::from_be_bytes(*generation), u16::from_be_bytes(*chunks));
        Ok((Self { generation, chunks }, sealed))
    }

    /// Removes the row and all its chunks.
    pub(super) fn remove(&self, batch: &mut Batch, key: &[u8]) {
        batch.remove(tree_key(ACCOUNT, key));
        (0..self.chunks).for_each(|at| batch.remove(chunk_key(key, at)));
    }
}

fn chunk_key(key: &[u8], at: u16) -> Vec<u8> {
    [&[CHUNK], key, &at.to_be_bytes()].concat()
}

pub(super) fn head(db: &Db, key: &[u8]) -> Result<Option<Head>, Fault> {
    let value = db.get(tree_key(ACCOUNT, key))?;
    value.map(|value| Head::read(&value).map(|(head, _)| head)).transpose()
}

/// A later insertion in a batch wins over an earlier removal of the same key.
pub(super) fn write_row(batch: &mut Batch, key: &[u8], row: &Row) {
    let (first, rest) = row.sealed.split_at(row.sealed.len().min(CHUNK_BYTES - HEAD_BYTES));
    let mut chunks = 0u16;
    for chunk in rest.chunks(CHUNK_BYTES) {
        batch.insert(chunk_key(key, chunks), chunk);
        chunks += 1; // the largest account has some 350
    }
    let value = [&row.generation.to_be_bytes()[..], &chunks.to_be_bytes(), first].concat();
    batch.insert(tree_key(ACCOUNT, key), value);
}

pub(super) fn read_row(db: &Db, key: &[u8], value: &[u8]) -> Result<Row, Fault> {
    let (head, first) = Head::read(value)?;
    let mut sealed = first.to_vec();
    for at in 0..head.chunks {
        let chunk = db.get(chunk_key(key, at))?.ok_or(Fault::Malformed("a row lacks its end"))?;
        sealed.extend_from_slice(&chunk);
    }
    Ok(Row { generation: head.generation, sealed })
}

pub(super) fn read_entry(db: &Db, (key, value): &(IVec, IVec)) -> Result<(AccountKey, Row), Fault> {
    let account = seal::decode(&key[1..]).ok_or(Fault::Malformed("a row's key names no account"))?;
    Ok((account, read_row(db, &key[1..], value)?))
}

pub(super) fn number(bytes: Option<IVec>) -> Result<u64, Fault> {
    let Some(bytes) = bytes else { return Ok(0) };
    let bytes =
        bytes.as_ref().try_into().map_err(|_| Fault::Malformed("the count of changes is no number"))?;
    Ok(u64::from_be_bytes(bytes))
}
