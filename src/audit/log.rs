//! The log being written: the current file, its place in the chain, and rotation.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    chain::{ANCHOR, Chain, Link},
    event::Event,
    files::{Files, Head, open_private, sync_folder},
    place::Place,
    tape::Tape,
};

/// What a log becomes when it grows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub(super) bytes: u64,
    pub(super) keep: Option<usize>,
}

/// The log of one process. Whoever opened it holds the lock.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) files: Files,
    pub(super) place: Arc<Place>,
    pub(super) tape: Tape,
    pub(super) chain: Chain,
    pub(super) head: Head,
    /// The `seq` of the current file's anchor.
    pub(super) first_seq: u64,
    pub(super) rotation: Rotation,
    /// The file whose removal was announced last.
    pub(super) expiring: Option<PathBuf>,
}

impl Log {
    pub(super) fn append(&mut self, event: &Event) {
        self.chain.append(self.tape.buffer(), event);
    }

    pub(super) const fn last(&self) -> Link {
        self.chain.last()
    }

    pub(super) const fn unsynced(&self) -> usize {
        self.tape.unsynced()
    }

    /// Whether the next event belongs into a new file.
    pub(super) const fn is_full(&self) -> bool {
        self.tape.len() >= self.rotation.bytes
    }

    /// Writes what was appended and, if asked to, waits for the disk and moves the head. After an error
    /// nothing is lost: call again.
    pub(super) fn commit(&mut self, sync: bool) -> io::Result<()> {
        self.must_be_in_place()?; // also where nothing waits: what is about to happen could not be written
        if self.tape.unsynced() == 0 {
            return Ok(());
        }
        self.tape.write()?;
        if sync {
            self.tape.sync()?;
            self.head.write(self.chain.last())?;
        }
        Ok(())
    }

    /// Begins a new file; the full one is renamed after its first `seq`. After an error, call again.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        if self.tape.unsynced() > 0 {
            self.commit(true)?; // the file is in its place until it is renamed
        }
        let rotated = self.files.rotated(self.first_seq);
        if self.place.holds_the_file()? {
            if rotated.exists() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{} is in the way of rotation; move it elsewhere", rotated.display()),
                ));
            }
            fs::rename(self.files.current(), &rotated)?;
        }
        let next = open_private(self.files.current())?;
        if next.metadata()?.len() > 0 {
            return Err(moved(self.files.current()));
        }
        sync_folder(self.files.folder())?;
        self.place.turn_to(&next)?;
        self.tape = Tape::new(next, 0);
        self.append_anchor(Some(&rotated));
        Ok(())
    }

    /// The first line of a file, which continues `previous`.
    pub(super) fn append_anchor(&mut self, previous: Option<&Path>) {
        let last = self.chain.last();
        self.first_seq = last.seq + 1;
        let detail = match (previous.and_then(Path::file_name), last.seq) {
            (Some(name), seq) => format!("continues {} after seq {seq}", name.display()),
            (None, 0) => "begins the log".to_owned(),
            (None, seq) => format!("begins anew after seq {seq}"),
        };
        self.append(&timed(Event::system(ANCHOR, detail)));
    }

    /// Removes the oldest rotated files beyond those to keep; each removal is on the disk as an event before
    /// it happens. After an error, call again.
    pub(super) fn expire(&mut self) -> io::Result<()> {
        let Some(keep) = self.rotation.keep else { return Ok(()) };
        let rotated = self.files.list_rotated()?;
        let surplus = rotated.len().saturating_sub(keep);
        for (_, path) in rotated.into_iter().take(surplus) {
            if self.expiring.as_ref() != Some(&path) {
                let detail = format!("{} is removed, to keep {keep} rotated files", path.display());
                self.append(&timed(Event::system("audit.expired", detail)));
                self.expiring = Some(path.clone());
            }
            self.commit(true)?;
            if let Err(error) = fs::remove_file(&path) {
                // That is no reason to refuse requests; the next rotation tries again.
                tracing::warn!(path = %path.display(), %error, "cannot remove an old audit file");
            }
        }
        Ok(())
    }

    /// Leaves a file that is gone for a new one in its place, with what it does not hold: for the end, when nobody is left
    /// who could put it back. The new one has no anchor, since its first line follows one that is elsewhere or nowhere;
    /// verification says so.
    pub(super) fn leave_lost_file(&mut self) -> io::Result<()> {
        if self.files.current().try_exists()? {
            return Ok(());
        }
        if self.tape.file().metadata()?.nlink() > 0 {
            self.tape.sync()?; // it has another name, and what was written is in it
        }
        if self.tape.unsynced() > 0 {
            let next = open_private(self.files.current())?;
            sync_folder(self.files.folder())?;
            self.place.turn_to(&next)?;
            self.tape.move_to(next);
        }
        Ok(())
    }

    /// Another program that moved the file away would otherwise make us write into nowhere.
    fn must_be_in_place(&self) -> io::Result<()> {
        let in_place = self.place.holds_the_file()?;
        if in_place { Ok(()) } else { Err(moved(self.files.current())) }
    }
}

/// Stamps an event that did not come through a slot.
pub(super) fn timed(event: Event) -> Event {
    Event { time: Some(jiff::Timestamp::now()), ..event }
}

fn moved(path: &Path) -> io::Error {
    let path: PathBuf = path.to_owned();
    io::Error::other(format!(
        "{} was moved or replaced by another program; put it back, or restart keybearer to begin a new one",
        path.display()
    ))
}
