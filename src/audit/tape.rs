//! A file that only grows, and that a failed write never leaves torn.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
};

/// A buffer that a burst made larger than this is given back.
const IDLE_BUFFER: usize = 256 * 1024;

/// Bytes on their way to a file. They are kept until the file was synchronised, because after a failed
/// `fsync` the kernel may have dropped the pages: what was written since the last good one is then written
/// again.
#[derive(Debug)]
pub(super) struct Tape {
    file: File,
    /// How much of the file is known to have reached the disk.
    durable: u64,
    /// What comes after it.
    pending: Vec<u8>,
    /// How much of `pending` stands in the file.
    written: usize,
}

impl Tape {
    /// Continues `file` at `length`, its end.
    pub(super) const fn new(file: File, length: u64) -> Self {
        Self { file, durable: length, pending: Vec::new(), written: 0 }
    }

    /// Leaves the file for another, which is empty, with everything that is not known to have reached the disk.
    pub(super) fn move_to(&mut self, file: File) {
        (self.file, self.durable, self.written) = (file, 0, 0);
    }

    /// Where to append what [`Tape::write`] shall write.
    pub(super) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// The file's length once everything is written.
    pub(super) const fn len(&self) -> u64 {
        self.durable + self.pending.len() as u64
    }

    /// Bytes that are not known to have reached the disk.
    pub(super) const fn unsynced(&self) -> usize {
        self.pending.len()
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Writes what is pending. After an error the file is as it was before; call again.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let mut done = self.written;
        while done < self.pending.len() {
            match self.file.write_at(&self.pending[done..], self.durable + done as u64) {
                Ok(0) => return Err(self.cut_back(ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cut_back(error)),
            }
        }
        self.written = done;
        Ok(())
    }

    /// Waits until what was written has reached the disk. After an error, [`Tape::write`] again first.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.written == 0 {
            return Ok(());
        }
        if let Err(error) = self.file.sync_data() {
            self.written = 0;
            return Err(self.cut_back(error));
        }
        self.durable += self.written as u64;
        self.pending.drain(..self.written);
        self.written = 0;
        if self.pending.capacity() > IDLE_BUFFER {
            self.pending.shrink_to(IDLE_BUFFER);
        }
        Ok(())
    }

    /// Removes a part of a line. Should that fail too, the next write goes to the same place all the same.
    fn cut_back(&self, error: io::Error) -> io::Error {
        let _ = self.file.set_len(self.durable + self.written as u64);
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_synchronised_is_in_the_file_once() {
        let file = tempfile::tempfile().unwrap();
        let mut tape = Tape::new(file.try_clone().unwrap(), 0);
        tape.buffer().extend_from_slice(b"one\n");
        tape.write().unwrap();
        tape.write().unwrap();
        tape.buffer().extend_from_slice(b"two\n");
        tape.write().unwrap();
        tape.sync().unwrap();
        tape.buffer().extend_from_slice(b"three\n");
        tape.write().unwrap();
        assert_eq!((tape.len(), tape.unsynced()), (14, 6));
        let mut text = [0; 14];
        file.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_everything_pending() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut tape = Tape::new(full, 0);
        tape.buffer().extend_from_slice(b"one\n");
        assert_eq!(tape.write().unwrap_err().kind(), ErrorKind::StorageFull);
        tape.sync().unwrap();
        assert_eq!(tape.unsynced(), 4);
    }

    #[test]
    fn after_a_failed_sync_everything_since_the_last_good_one_is_written_again() {
        let null = File::options().write(true).open("/dev/null").unwrap(); // takes bytes, cannot synchronise
        let mut tape = Tape::new(null, 0);
        tape.buffer().extend_from_slice(b"one\n");
        tape.write().unwrap();
        tape.sync().unwrap_err();
        assert_eq!((tape.written, tape.unsynced(), tape.len()), (0, 4, 4));
        tape.write().unwrap();
        assert_eq!(tape.written, 4);
    }
}
