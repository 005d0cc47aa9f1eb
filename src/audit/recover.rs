//! Opening a log: find its end, set aside what a crash tore, say so in the log itself.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use super::{
    Error,
    chain::{Chain, DAMAGED, Link, MISSING, Sealed},
    event::Event,
    files::{Files, Head, open_private, sync_folder},
    log::{Log, Rotation, timed},
    place::Place,
    report::{Fault, What},
    tape::Tape,
    verify::{Checker, Extent},
};

/// How much of a file's end is looked at first.
const WINDOW: u64 = 1 << 20;

/// Opens the log, which the caller has locked. What had to be recovered is appended as events, which are
/// pending like any other.
pub(super) fn open(files: Files, rotation: Rotation) -> Result<Log, Error> {
    let current = files.current().to_owned();
    open_log(files, rotation).map_err(|source| match source.downcast::<Damaged>() {
        Ok(Damaged) => Error::Damaged { path: current },
        Err(source) => Error::Open { path: current, source },
    })
}

/// No line of a file is an event.
#[derive(Debug, thiserror::Error)]
#[error("no line is an audit event")]
struct Damaged;

fn open_log(files: Files, rotation: Rotation) -> io::Result<Log> {
    let file = open_private(files.current())?;
    let length = file.metadata()?.len();
    let head = Head::read(&files.head()).ok().flatten(); // one that cannot be read is told of below
    let ending = Ending::of(&file, length, files.current(), head)?;
    let rotated = files.list_rotated()?.pop();
    let previous = match &rotated {
        Some((_, path)) => end_of_rotated(path)?,
        None => Link::GENESIS,
    };
    let mut events = ending.findings(&files);
    if ending.length < length {
        set_aside(&file, ending.length, length, &files)?;
    }
    let (last, missing) = hold_against_head(&files, ending.last.unwrap_or(previous));
    events.extend(missing);
    let first_seq = if ending.last.is_some() { first_seq(files.current())? } else { None };
    let mut log = Log {
        place: Arc::new(Place::of(files.current(), &file)?),
        tape: Tape::new(file, ending.length),
        chain: Chain::after(last),
        head: Head::open(&files.head())?,
        first_seq: first_seq.unwrap_or(previous.seq + 1),
        rotation,
        expiring: None,
        files,
    };
    sync_folder(log.files.folder())?;
    if ending.last.is_none() {
        log.append_anchor(rotated.as_ref().map(|(_, path)| path.as_path()));
    }
    for event in events {
        tracing::warn!(
            event = event.event.as_deref(),
            detail = event.detail.as_deref(),
            "audit log recovered"
        );
        log.append(&timed(event));
    }
    Ok(log)
}

/// How a file ends.
struct Ending {
    /// The last line that is whole and unchanged.
    last: Option<Link>,
    /// Where that line ends; what comes after it is torn.
    length: u64,
    torn: u64,
    /// The first fault near the end, in words.
    fault: Option<String>,
}

impl Ending {
    /// Looks as far back as it takes to see the line that the head knows.
    fn of(file: &File, length: u64, path: &Path, head: Option<Link>) -> io::Result<Self> {
        let mut window = WINDOW;
        loop {
            let from = length.saturating_sub(window);
            let mut bytes = vec![0; usize::try_from(length - from).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, from)?;
            let whole_file = from == 0;
            if let Some(ending) = Self::in_window(&bytes, from, path, head) {
                return Ok(ending);
            }
            if whole_file {
                // A crash during the very first write leaves a part of a line, and no line.
                let is_torn_anchor = !bytes.contains(&b'\n');
                let nothing = Self { last: None, length: 0, torn: length, fault: None };
                return if is_torn_anchor { Ok(nothing) } else { Err(io::Error::other(Damaged)) };
            }
            window *= 16;
        }
    }

    /// `from` is where the window begins in the file; its first line is a part of one unless that is 0.
    fn in_window(bytes: &[u8], from: u64, path: &Path, head: Option<Link>) -> Option<Self> {
        let begin = if from == 0 { 0 } else { memchr::memchr(b'\n', bytes)? + 1 };
        let mut end = memchr::memrchr(b'\n', bytes)? + 1;
        let last = loop {
            let line_end = end.checked_sub(1).filter(|at| *at >= begin)?;
            let line_begin =
                memchr::memrchr(b'\n', &bytes[begin..line_end]).map_or(begin, |at| begin + at + 1);
            if let Some(sealed) = Sealed::read(&bytes[line_begin..line_end]) {
                break sealed.link;
            }
            end = line_begin;
        };
        let mut checker = Checker::new(Extent::Excerpt, head);
        let lines = bytes[begin..end].split_inclusive(|byte| *byte == b'\n');
        for line in lines {
            checker.line(path, 0, line.trim_ascii_end());
        }
        if from > 0 && head.is_some_and(|head| checker.lowest().is_some_and(|lowest| head.seq < lowest)) {
            return None;
        }
        let fault = untold(checker.faults()).map(ToString::to_string);
        Some(Self { last: Some(last), length: from + end as u64, torn: (bytes.len() - end) as u64, fault })
    }

    fn findings(&self, files: &Files) -> Vec<Event> {
        let seq = self.last.map_or(0, |link| link.seq);
        let torn = (self.torn > 0).then(|| {
            let detail =
                format!("set aside {} bytes after seq {seq} in {}", self.torn, files.torn().display());
            Event::system("audit.torn", detail)
        });
        let damaged = self.fault.as_ref().map(|fault| {
            let detail = format!("the last lines before seq {seq} do not verify ({fault}): run audit verify");
            Event::system(DAMAGED, detail)
        });
        torn.into_iter().chain(damaged).collect()
    }
}

/// Copies what follows the last whole line to `<file>.torn`, and only then cuts it off.
fn set_aside(file: &File, from: u64, to: u64, files: &Files) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    bytes.push(b'\n');
    let mut torn = OpenOptions::new().append(true).create(true).mode(0o600).open(files.torn())?;
    torn.write_all(&bytes)?;
    torn.sync_all()?;
    sync_folder(files.folder())?;
    file.set_len(from)?;
    file.sync_all()
}

/// The first of these faults that the log does not tell of itself: an earlier opening found what stands before its word.
fn untold(faults: &[Fault]) -> Option<&What> {
    let told = faults.iter().rposition(|fault| matches!(fault.what, What::Told { .. }));
    faults.get(told.map_or(0, |told| told + 1)).map(|fault| &fault.what)
}

/// A head that is ahead of the files means that synchronised lines are gone, which no crash explains. Their numbers are not
/// used again: the chain goes on after the head, which leaves a gap, and fits once the lines are put back.
fn hold_against_head(files: &Files, last: Link) -> (Link, Option<Event>) {
    let (after, detail) = match Head::read(&files.head()) {
        Ok(Some(head)) if head.seq > last.seq => {
            (head, format!("audit.head says seq {}, the files end at seq {}", head.seq, last.seq))
        }
        Ok(Some(head)) if head.seq == last.seq && head.hash != last.hash => {
            (last, format!("audit.head has another hash for seq {}", head.seq))
        }
        Ok(_) => return (last, None),
        Err(error) => (last, format!("audit.head cannot be read: {error}")),
    };
    (after, Some(Event::system(MISSING, detail)))
}

fn end_of_rotated(path: &Path) -> io::Result<Link> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ending::of(&file, length, path, None)?.last.ok_or_else(|| io::Error::other(Damaged))
}

fn first_seq(path: &Path) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    Ok(Sealed::read(line.trim_ascii_end()).map(|sealed| sealed.link.seq))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::{event::sample, verify::verify_log};

    const LARGE: Rotation = Rotation { bytes: 1 << 30, keep: None };

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        /// A log of an anchor and two actions, synchronised.
        fn new() -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            let mut log = fixture.open();
            log.append(&sample::action("acme"));
            log.append(&sample::action("globex"));
            log.commit(true).unwrap();
            fixture
        }

        fn files(&self) -> Files {
            Files::of(&self.0.path().join("audit.jsonl"))
        }

        fn open(&self) -> Log {
            open(self.files(), LARGE).unwrap()
        }

        /// Opens the log again and writes what the opening had to say.
        fn reopened(&self) -> (u64, String) {
            let mut log = self.open();
            log.commit(true).unwrap();
            (log.last().seq, fs::read_to_string(self.files().current()).unwrap())
        }

        fn found(&self) -> Vec<(u64, What)> {
            let report = verify_log(self.files().current()).unwrap();
            report.faults.into_iter().map(|fault| (fault.line, fault.what)).collect()
        }

        fn append(&self, bytes: &[u8]) {
            let mut file = OpenOptions::new().append(true).open(self.files().current()).unwrap();
            file.write_all(bytes).unwrap();
        }
    }

    #[test]
    fn a_log_that_is_opened_again_goes_on_where_it_ended() {
        let fixture = Fixture::new();
        assert_eq!(fixture.reopened().0, 3);
        assert!(verify_log(fixture.files().current()).unwrap().is_intact());
    }

    #[test]
    fn a_torn_line_is_set_aside_and_said() {
        let fixture = Fixture::new();
        fixture.append(b"{\"kind\":\"acti");
        let (seq, text) = fixture.reopened();
        assert_eq!(seq, 4);
        assert!(text.contains("\"event\":\"audit.torn\""));
        assert_eq!(fs::read(fixture.files().torn()).unwrap(), b"{\"kind\":\"acti\n");
        let report = verify_log(fixture.files().current()).unwrap();
        assert!(report.is_intact(), "{:?}", report.faults);
        assert_eq!(report.notes.len(), 1);
    }

    #[test]
    fn blocks_of_zeros_that_a_power_cut_left_are_torn_too() {
        let fixture = Fixture::new();
        fixture.append(&vec![0; 3 << 20]);
        assert_eq!(fixture.reopened().0, 4);
        assert_eq!(fs::metadata(fixture.files().torn()).unwrap().len(), (3 << 20) + 1);
    }

    #[test]
    fn a_synchronised_line_that_is_gone_is_said() {
        let fixture = Fixture::new();
        let text = fs::read_to_string(fixture.files().current()).unwrap();
        let cut: String = text.split_inclusive('\n').take(2).collect();
        fs::write(fixture.files().current(), cut).unwrap();
        let (seq, text) = fixture.reopened();
        assert_eq!(seq, 4, "the number of the line that is gone is not used again");
        assert!(text.contains("audit.head says seq 3, the files end at seq 2"));
        fixture.reopened();
        let told = What::Told {
            event: MISSING.to_owned(),
            detail: "audit.head says seq 3, the files end at seq 2".to_owned(),
        };
        assert_eq!(fixture.found(), [(3, What::Missing { from: 3, to: 3 }), (3, told)]);
    }

    #[test]
    fn a_log_that_was_removed_is_told_of_by_the_next_one() {
        let fixture = Fixture::new();
        fs::remove_file(fixture.files().current()).unwrap();
        let (seq, text) = fixture.reopened();
        assert_eq!(seq, 5);
        assert!(text.starts_with("{\"detail\":\"begins anew after seq 3\""), "{text}");
        let told = What::Told {
            event: MISSING.to_owned(),
            detail: "audit.head says seq 3, the files end at seq 0".to_owned(),
        };
        assert_eq!(fixture.found(), [(2, told)]);
    }

    /// A log rewritten from its second line on, with right hashes, and so much longer.
    fn rewritten(lines: usize) -> Fixture {
        let fixture = Fixture::new();
        let text = fs::read_to_string(fixture.files().current()).unwrap();
        let anchor = text.lines().next().unwrap();
        let mut bytes = format!("{anchor}\n").into_bytes();
        let mut chain = Chain::after(Sealed::read(anchor.as_bytes()).unwrap().link);
        (0..lines).for_each(|_| chain.append(&mut bytes, &sample::action("evil")));
        fs::write(fixture.files().current(), bytes).unwrap();
        fixture
    }

    #[test]
    fn a_log_that_was_rewritten_beyond_its_head_is_told_of_though_the_head_moves_on() {
        for lines in [2, 3, 5000] {
            let fixture = rewritten(lines);
            fixture.reopened();
            let found = fixture.found();
            let says = "seq 3 has another hash than audit.head recorded";
            assert!(
                matches!(&found[0].1, What::Told { event, detail } if event == DAMAGED && detail.contains(says)),
                "{lines}: {found:?}"
            );
        }
    }

    #[test]
    fn lines_that_are_put_back_fit_what_came_after_they_were_gone() {
        let fixture = Fixture::new();
        let text = fs::read_to_string(fixture.files().current()).unwrap();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        fs::write(fixture.files().current(), lines[..2].concat()).unwrap();
        let (_, after) = fixture.reopened();
        let late = after.split_inclusive('\n').nth(2).unwrap();
        fs::write(fixture.files().current(), text.clone() + late).unwrap();
        assert!(matches!(&*fixture.found(), [(4, What::Told { .. })]), "{:?}", fixture.found());
    }

    #[test]
    fn a_change_near_the_end_is_said() {
        let fixture = Fixture::new();
        let text = fs::read_to_string(fixture.files().current()).unwrap();
        fs::write(fixture.files().current(), text.replace("acme", "evil")).unwrap();
        let (seq, text) = fixture.reopened();
        assert!(text.contains("\"event\":\"audit.damaged\""));
        assert_eq!(fixture.reopened().0, seq, "it is said once");
        assert!(matches!(&*fixture.found(), [(2, What::Changed), (4, What::Told { .. })]));
        let mut log = fixture.open();
        log.append(&sample::action("late"));
        log.append(&sample::action("last"));
        log.commit(true).unwrap();
        let text = fixture.reopened().1;
        fs::write(fixture.files().current(), text.replace("late", "evil")).unwrap();
        assert_eq!(fixture.reopened().0, seq + 3, "and so is what is changed after it");
    }

    #[test]
    fn a_torn_anchor_is_written_again() {
        let fixture = Fixture(tempfile::tempdir().unwrap());
        fs::write(fixture.files().current(), "{\"detail\":").unwrap();
        let (seq, text) = fixture.reopened();
        assert_eq!(seq, 2);
        assert!(text.starts_with("{\"detail\":\"begins the log\""));
    }

    #[test]
    fn a_file_that_is_no_log_is_left_alone() {
        let fixture = Fixture(tempfile::tempdir().unwrap());
        fs::write(fixture.files().current(), "shopping list\n").unwrap();
        assert!(matches!(open(fixture.files(), LARGE), Err(Error::Damaged { .. })));
        assert_eq!(fs::read_to_string(fixture.files().current()).unwrap(), "shopping list\n");
    }

    #[test]
    fn a_crash_between_rename_and_anchor_does_not_break_the_chain() {
        let fixture = Fixture::new();
        fs::rename(fixture.files().current(), fixture.files().rotated(1)).unwrap();
        assert_eq!(fixture.reopened().0, 4);
        let report = verify_log(fixture.files().current()).unwrap();
        assert!(report.is_intact(), "{:?}", report.faults);
        assert_eq!(report.files, 2);
    }
}
