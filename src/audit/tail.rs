//! Following the log as it grows, across rotations.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind},
    path::Path,
    time::Duration,
};

use super::{
    Error,
    files::Files,
    place::is_at,
    query::{Filter, Recorded, query},
};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A place in the log that moves on as events are read. It needs no running proxy.
#[derive(Debug)]
pub struct Tail {
    files: Files,
    from: Option<BufReader<File>>,
    /// The beginning of a line that is being written.
    part: Vec<u8>,
    /// The `seq` that comes next, where one was seen.
    next_seq: Option<u64>,
    backlog: VecDeque<Recorded>,
}

impl Tail {
    /// Stands before the last `count` events of the log of `current`. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Read`] when a file cannot be read. A log that does not exist yet is no error.
    pub fn open(current: &Path, count: usize) -> Result<Self, Error> {
        let files = Files::of(current);
        let mut tail = Self { files, from: None, part: Vec::new(), next_seq: None, backlog: VecDeque::new() };
        tail.backlog = tail.read_lines(count)?;
        let missing = count - tail.backlog.len();
        if missing > 0 && tail.from.is_some() {
            tail.prepend_rotated(current, missing)?;
        }
        Ok(tail)
    }

    /// The events that came since the last call, oldest first; first those that [`Tail::open`] was asked
    /// for. Does not wait. A line that is no event is left out and logged: verification will name it.
    ///
    /// # Errors
    /// [`Error::Read`] when a file cannot be read.
    pub fn read(&mut self) -> Result<Vec<Recorded>, Error> {
        let mut events: Vec<_> = std::mem::take(&mut self.backlog).into();
        events.extend(self.read_lines(usize::MAX)?);
        Ok(events)
    }

    /// Waits until there are events, and returns them.
    ///
    /// # Errors
    /// [`Error::Read`] when a file cannot be read.
    pub async fn next(&mut self) -> Result<Vec<Recorded>, Error> {
        loop {
            let events = self.read()?;
            if !events.is_empty() {
                return Ok(events);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads on to the end of the current file, keeping the last `count`.
    fn read_lines(&mut self, count: usize) -> Result<VecDeque<Recorded>, Error> {
        let mut last = VecDeque::new();
        let read = self.read_to_end(&mut |recorded| {
            if last.len() == count {
                last.pop_front();
            }
            if count > 0 {
                last.push_back(recorded);
            }
        });
        read.map_err(|source| Error::Read { path: self.files.current().to_owned(), source })?;
        Ok(last)
    }

    fn read_to_end(&mut self, each: &mut impl FnMut(Recorded)) -> io::Result<()> {
        loop {
            if self.from.is_none() && !self.open_next()? {
                return Ok(());
            }
            let Some(from) = &mut self.from else { return Ok(()) };
            // Asked before reading: what is read after a rotation is all there will ever be in this file.
            let is_current = is_at(from.get_ref(), self.files.current())?;
            while from.read_until(b'\n', &mut self.part)? > 0 && self.part.last() == Some(&b'\n') {
                if let Some(recorded) = Recorded::read(self.part.trim_ascii_end()) {
                    self.next_seq = Some(recorded.seq + 1);
                    each(recorded);
                } else {
                    tracing::warn!("a line of the audit log is no event; run audit verify");
                }
                self.part.clear();
            }
            if is_current {
                return Ok(());
            }
            self.part.clear();
            self.from = None;
        }
    }

    /// Opens the file in which the next event is, or will be. Returns false where there is none yet.
    fn open_next(&mut self) -> io::Result<bool> {
        let current = open_existing(self.files.current())?;
        // Only now: had the current file been rotated before it was opened, the name is there.
        let rotated = self.next_seq.map(|seq| open_existing(&self.files.rotated(seq))).transpose()?.flatten();
        self.from = rotated.or(current).map(BufReader::new);
        Ok(self.from.is_some())
    }

    fn prepend_rotated(&mut self, current: &Path, count: usize) -> Result<(), Error> {
        let first = self.backlog.front().map_or(self.next_seq, |recorded| Some(recorded.seq));
        let wanted = count.saturating_add(self.backlog.len());
        let older = query(current, &Filter::default(), wanted)?.events;
        let older = older.into_iter().filter(|recorded| first.is_none_or(|first| recorded.seq < first));
        let mut older: VecDeque<_> = older.collect();
        older.append(&mut self.backlog);
        self.backlog = older;
        Ok(())
    }
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        event::sample,
        log::{Log, Rotation},
        recover,
    };

    fn log(folder: &Path) -> Log {
        let current = folder.join("audit.jsonl");
        recover::open(Files::of(&current), Rotation { bytes: 4096, keep: None }).unwrap()
    }

    fn seqs(events: &[Recorded]) -> Vec<u64> {
        events.iter().map(|recorded| recorded.seq).collect()
    }

    #[test]
    fn a_tail_begins_with_the_last_events_and_misses_none_over_several_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        (0..3).for_each(|_| log.append(&sample::action("acme")));
        log.commit(false).unwrap();
        let mut tail = Tail::open(log.files.current(), 2).unwrap();
        assert_eq!(seqs(&tail.read().unwrap()), [3, 4]);
        assert!(tail.read().unwrap().is_empty());
        for _ in 0..3 {
            log.append(&sample::action("acme"));
            log.rotate().unwrap();
        }
        log.append(&sample::action("acme"));
        log.commit(false).unwrap();
        assert_eq!(seqs(&tail.read().unwrap()), (5..=11).collect::<Vec<_>>());
    }

    #[test]
    fn a_tail_reaches_back_into_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        log.append(&sample::action("acme"));
        log.rotate().unwrap();
        log.append(&sample::action("acme"));
        log.commit(false).unwrap();
        let mut tail = Tail::open(log.files.current(), 3).unwrap();
        assert_eq!(seqs(&tail.read().unwrap()), [2, 3, 4]);
    }

    #[test]
    fn a_line_is_returned_once_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut tail = Tail::open(&path, 5).unwrap();
        let mut line = Vec::new();
        crate::audit::chain::Chain::after(crate::audit::Link::GENESIS).append(&mut line, &sample::full());
        std::fs::write(&path, &line[..50]).unwrap();
        assert!(tail.read().unwrap().is_empty());
        std::fs::write(&path, &line).unwrap();
        assert_eq!(seqs(&tail.read().unwrap()), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn next_waits_for_an_event() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path());
        log.commit(false).unwrap();
        let mut tail = Tail::open(log.files.current(), 0).unwrap();
        let append = async {
            tokio::time::sleep(LOOK * 3).await;
            log.append(&sample::action("acme"));
            log.commit(false).unwrap();
        };
        let (events, ()) = tokio::join!(tail.next(), append);
        assert_eq!(seqs(&events.unwrap()), [2]);
    }
}
