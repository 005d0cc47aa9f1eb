//! The token that says who we are: Kubernetes writes it into a file, and a new one long before it ends.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use http::HeaderValue;
use zeroize::Zeroizing;

use super::Error;
use crate::{credential::wire::LONGEST_TOKEN, fetch, regular, secret::Secret};

/// The file, and what it held when it was looked at last.
pub(super) struct TokenFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, HeaderValue)>>,
}

/// Which file, and which state of it.
type Stamp = (u64, u64, i64, i64, u64);

impl TokenFile {
    /// Reads it for the first time.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let file = Self { path, read: Mutex::default() };
        file.bearer()?;
        Ok(file)
    }

    /// The value of `Authorization`. It is read again where the file is another one. The file is small, and in memory
    /// where Kubernetes writes it.
    pub(super) fn bearer(&self) -> Result<HeaderValue, Error> {
        let stamp = fs::metadata(&self.path)
            .map(|file| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len()));
        let stamp = stamp.map_err(|source| self.unread(&source))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, bearer)) = &*read
            && *before == stamp
        {
            return Ok(bearer.clone());
        }
        let file = regular::open(&self.path).map_err(|source| self.unread(&source))?;
        let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TOKEN + 2)); // and a line's end, and one too many
        file.take(LONGEST_TOKEN as u64 + 2).read_to_end(&mut text).map_err(|source| self.unread(&source))?;
        let token = text.trim_ascii();
        if token.len() > LONGEST_TOKEN {
            return Err(self.wrong("is too long for a token"));
        }
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(self.wrong("holds no token"));
        }
        let bearer = fetch::authorization(&Secret::new(token.to_vec()));
        let bearer = bearer.map_err(|_| self.wrong("holds no token"))?;
        *read = Some((stamp, bearer.clone()));
        Ok(bearer)
    }

    /// Has it read again, however old it looks.
    pub(super) fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn unread(&self, source: &io::Error) -> Error {
        self.wrong(&format!("cannot be read: {source}"))
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Token { path: self.path.clone(), why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_swapped_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "kb-canary-token-1\n").unwrap();
        let file = TokenFile::open(path.clone()).unwrap();
        assert_eq!(file.bearer().unwrap(), "Bearer kb-canary-token-1");
        let next = dir.path().join("next");
        fs::write(&next, "kb-canary-token-2\n").unwrap();
        fs::rename(&next, &path).unwrap(); // as long, and perhaps within the same moment
        let bearer = file.bearer().unwrap();
        assert_eq!(bearer, "Bearer kb-canary-token-2");
        assert!(!format!("{bearer:?}").contains("kb-canary"));
    }

    #[test]
    fn what_is_no_token_is_told_by_its_path_and_never_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let missing = TokenFile::open(path.clone()).err().unwrap().to_string();
        assert!(
            missing.contains("token cannot be read") && missing.contains("vault.token_file"),
            "{missing}"
        );
        for text in ["", " \n", "kb-canary two", "kb-canary\u{e9}"] {
            fs::write(&path, text).unwrap();
            let error = TokenFile::open(path.clone()).err().unwrap().to_string();
            assert!(error.contains("holds no token") && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn no_token_is_sent_that_the_broker_would_not_look_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "k".repeat(LONGEST_TOKEN) + "\n").unwrap();
        assert_eq!(
            TokenFile::open(path.clone()).unwrap().bearer().unwrap().len(),
            "Bearer ".len() + LONGEST_TOKEN
        );
        fs::write(&path, "k".repeat(LONGEST_TOKEN + 1)).unwrap();
        assert!(TokenFile::open(path).err().unwrap().to_string().contains("is too long for a token"));
    }
}
