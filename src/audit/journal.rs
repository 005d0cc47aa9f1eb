//! Intents: actions that are about to be sent (`durability: sync`). One that a crash left without an event
//! becomes an event at the next start.
//!
//! `audit.intents` begins with `{"after":N}`: the events of these intents can only have a higher `seq`. Then
//! one intent a line. It is rewritten with the open ones alone when it grows.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs,
    io::{self, ErrorKind, Write},
    path::Path,
};

use serde::Deserialize;

use super::{
    Error,
    event::Event,
    files::{Files, open_private, sync_folder},
    line::Pen,
    tape::Tape,
    verify::read_lines,
};
use crate::id::ActionId;

/// The journal is rewritten when it is larger than this.
const LARGE: u64 = 1 << 20;
/// The `event` that tells of lines which are no intents. A power cut may leave some, which nobody was told were written.
const UNREADABLE: &str = "audit.intents_unreadable";

/// The intents of one process.
pub(super) struct Journal {
    files: Files,
    tape: Tape,
    open: HashMap<ActionId, Box<Event>>,
    pen: Pen,
}

impl Journal {
    /// Begins an empty journal; what an earlier one held was recorded, up to `after`.
    pub(super) fn begin(files: &Files, after: u64) -> io::Result<Self> {
        let mut pen = Pen::default();
        let tape = write_afresh(files, after, &mut pen, std::iter::empty())?;
        Ok(Self { files: files.clone(), tape, open: HashMap::new(), pen })
    }

    pub(super) fn intend(&mut self, id: ActionId, event: Box<Event>) {
        self.pen.write(self.tape.buffer(), &event, None);
        self.tape.buffer().push(b'\n');
        self.open.insert(id, event);
    }

    /// The action ended, and its event is on its way to the log.
    pub(super) fn end(&mut self, id: ActionId) -> Option<Event> {
        self.open.remove(&id).map(|event| *event)
    }

    /// Waits until all intents are on the disk. After an error, call again.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.tape.write()?;
        self.tape.sync()
    }

    /// Forgets what has ended, when there is much of it. Everything ended is in the log, up to `after`.
    pub(super) fn shrink(&mut self, after: u64) -> io::Result<()> {
        if self.tape.len() < LARGE {
            return Ok(());
        }
        let open = self.open.values().map(|event| &**event);
        self.tape = write_afresh(&self.files, after, &mut self.pen, open)?;
        Ok(())
    }

    /// Leaves nothing to look through at the next start.
    pub(super) fn close(self) -> io::Result<()> {
        if self.open.is_empty() { fs::remove_file(self.files.intents()) } else { Ok(()) }
    }
}

/// Removes what an earlier process left, once it was recorded.
pub(super) fn discard(files: &Files) -> io::Result<()> {
    match fs::remove_file(files.intents()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_afresh<'a>(
    files: &Files,
    after: u64,
    pen: &mut Pen,
    open: impl Iterator<Item = &'a Event>,
) -> io::Result<Tape> {
    let mut bytes = format!("{{\"after\":{after}}}\n").into_bytes();
    for event in open {
        pen.write(&mut bytes, event, None);
        bytes.push(b'\n');
    }
    let path = files.intents();
    let new = path.with_extension("intents.new");
    let mut file = open_private(&new)?;
    file.set_len(0)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(files.folder())?;
    Ok(Tape::new(file, bytes.len() as u64))
}

/// The event of an intent whose outcome nobody knows.
pub(super) fn interrupted(intent: Event) -> Event {
    let begun = intent.time.map_or_else(String::new, |time| format!(" (begun {time})"));
    Event {
        time: Some(jiff::Timestamp::now()),
        error: Some(Cow::Borrowed("interrupted")),
        detail: Some(Cow::Owned(format!("the outcome is unknown: the request may have been sent{begun}"))),
        ..intent
    }
}

/// The intents of an earlier process that have no event in the log, oldest first, as the events that they
/// become.
pub(super) fn orphans(files: &Files) -> Result<Vec<Event>, Error> {
    let Some((after, mut open, unreadable)) = read(&files.intents())? else {
        return Ok(Vec::new());
    };
    if !open.is_empty() {
        remove_recorded(files, after, &mut open)?;
    }
    let mut events: Vec<_> = open.into_values().map(interrupted).collect();
    events.sort_by_key(|event| event.id);
    if unreadable > 0 {
        let detail = format!("{unreadable} lines of {} are unreadable", files.intents().display());
        events.push(Event::system(UNREADABLE, detail));
    }
    Ok(events)
}

type Intents = (u64, HashMap<ActionId, Event>, u64);

/// An unfinished last line is no intent: nobody was told that it was written, so nothing was sent.
fn read(path: &Path) -> Result<Option<Intents>, Error> {
    #[derive(Deserialize)]
    struct First {
        after: u64,
    }
    let failed = |source| Error::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    let (mut after, mut open, mut unreadable) = (0, HashMap::new(), 0);
    read_lines(path, |number, line, finished| {
        if number == 1 {
            // Where the number is unreadable, the whole log is looked through.
            after = serde_json::from_slice::<First>(line).map_or(0, |first| first.after);
        } else if finished {
            match serde_json::from_slice::<Event>(line).ok().and_then(|event| Some((event.id?, event))) {
                Some((id, event)) => drop(open.insert(id, event)),
                None => unreadable += 1,
            }
        }
    })?;
    Ok(Some((after, open, unreadable)))
}

fn remove_recorded(files: &Files, after: u64, open: &mut HashMap<ActionId, Event>) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Recorded {
        id: Option<ActionId>,
    }
    let failed = |source| Error::Read { path: files.folder().to_owned(), source };
    let rotated = files.list_rotated().map_err(failed)?;
    // A file matters unless the one after it begins at `after` or before.
    let begins = rotated.iter().skip(1).map(|(first, _)| Some(*first)).chain([None]);
    let later = rotated.iter().zip(begins).filter(|(_, next)| next.is_none_or(|next| next > after));
    let current = files.current().to_owned();
    for path in later.map(|((_, path), _)| path).chain([&current]) {
        read_lines(path, |_, line, _| {
            if let Ok(Recorded { id: Some(id) }) = serde_json::from_slice(line) {
                open.remove(&id);
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{event::sample, log::Rotation, recover};

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn files(&self) -> Files {
            Files::of(&self.0.path().join("audit.jsonl"))
        }
    }

    fn intend(journal: &mut Journal) -> Event {
        let event = sample::action("acme");
        journal.intend(event.id.unwrap(), Box::new(event.clone()));
        event
    }

    #[test]
    fn only_intents_without_an_event_are_orphans() {
        let fixture = Fixture::new();
        let mut log = recover::open(fixture.files(), Rotation { bytes: 1 << 20, keep: None }).unwrap();
        let mut journal = Journal::begin(&fixture.files(), log.last().seq).unwrap();
        let ended = intend(&mut journal);
        let lost = intend(&mut journal);
        journal.commit().unwrap();
        log.append(&ended);
        log.commit(true).unwrap();
        let orphans = orphans(&fixture.files()).unwrap();
        assert_eq!(orphans.len(), 1);
        assert_eq!((orphans[0].id, orphans[0].error.as_deref()), (lost.id, Some("interrupted")));
        assert_eq!(orphans[0].tenant, lost.tenant);
    }

    #[test]
    fn an_intent_that_was_never_acknowledged_is_none_and_an_unreadable_one_is_said() {
        let fixture = Fixture::new();
        drop(recover::open(fixture.files(), Rotation { bytes: 1 << 20, keep: None }).unwrap());
        fs::write(fixture.files().intents(), "{\"after\":0}\nnonsense\n{\"id\":\"0192").unwrap();
        let orphans = orphans(&fixture.files()).unwrap();
        assert_eq!(orphans.len(), 1);
        assert_eq!(orphans[0].event.as_deref(), Some(UNREADABLE));
    }

    #[test]
    fn a_large_journal_shrinks_to_what_is_open() {
        let fixture = Fixture::new();
        let mut journal = Journal::begin(&fixture.files(), 0).unwrap();
        let open = intend(&mut journal);
        while journal.tape.len() < LARGE {
            let ended = intend(&mut journal);
            journal.end(ended.id.unwrap());
        }
        journal.commit().unwrap();
        journal.shrink(41).unwrap();
        let late = intend(&mut journal);
        journal.commit().unwrap();
        let (after, intents, unreadable) = read(&fixture.files().intents()).unwrap().unwrap();
        assert_eq!((after, unreadable), (41, 0));
        assert_eq!(intents.len(), 2);
        assert!([open, late].iter().all(|event| intents.contains_key(&event.id.unwrap())));
    }
}
