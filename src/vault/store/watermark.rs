//! How many changes were acknowledged, outside of sled's own files.
//!
//! sled drops the end of its log where a checksum does not fit, because that is what a kill leaves behind. It
//! cannot know that the end was acknowledged, so damage there would silently take accounts away. Each change
//! therefore counts up a number in the same batch; when the batch is on disk, the number is written here, too.
//! A store that opens with a smaller number than this has lost something.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};

const FILE: &str = "acknowledged";

/// Twenty digits hold any `u64`; always writing them all overwrites in place, which needs no room and is not
/// torn by a kill.
const WIDTH: usize = 21;

#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
    highest: Mutex<u64>,
}

impl Watermark {
    /// Opens the file in the store's directory, or makes it at 0.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() == 0 {
            write(&file, 0)?;
            File::open(dir)?.sync_all()?;
        }
        let highest = Mutex::new(read(&file)?);
        Ok(Self { file, highest })
    }

    /// Whether there is a mark in the directory.
    pub(super) fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// The number of acknowledged changes.
    pub(super) fn get(&self) -> u64 {
        *self.highest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges all changes up to the number, which must be on disk. Acknowledgements may overtake each other.
    pub(super) fn advance(&self, to: u64) -> io::Result<()> {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        if to > *highest {
            write(&self.file, to)?;
            *highest = to;
        }
        Ok(())
    }
}

fn write(file: &File, number: u64) -> io::Result<()> {
    file.write_all_at(format!("{number:020}\n").as_bytes(), 0)?;
    file.sync_data()
}

fn read(file: &File) -> io::Result<u64> {
    let mut text = [0; WIDTH];
    file.read_exact_at(&mut text, 0)?;
    std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the file `{FILE}` holds no number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_only_rises_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Watermark::exists(dir.path()));
        let mark = Watermark::open(dir.path()).unwrap();
        for to in [3, 12, 7] {
            mark.advance(to).unwrap();
        }
        assert_eq!(mark.get(), 12);
        assert_eq!(Watermark::open(dir.path()).unwrap().get(), 12);
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap().len(), WIDTH);
    }

    #[test]
    fn a_mark_that_is_no_number_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["12", "0000000000000000000x\n"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Watermark::open(dir.path()).is_err(), "{text:?}");
        }
    }
}
