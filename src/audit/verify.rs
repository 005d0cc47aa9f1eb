//! Finds what was removed, changed, moved or repeated in audit files, and says where.

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use super::{
    Error,
    chain::{DAMAGED, Hash, Link, MISSING, Sealed},
    files::{Files, Head},
    report::{Fault, Report, What},
};

/// Whether the files are all there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// From an anchor to the end that `audit.head` tells, where it stands beside the last file.
    Whole,
    /// Any run of lines, such as the output of `head` or `tail`: only what lies between the first and the
    /// last can be judged.
    Excerpt,
}

/// Whether there is a log to which `current` would belong: a file of it, or its head. What is not there is for
/// [`verify_log`] to say.
///
/// # Errors
/// [`Error::Read`] when that cannot be seen.
pub fn is_there(current: &Path) -> Result<bool, Error> {
    let files = Files::of(current);
    let found = files.list().and_then(|found| Ok(!found.is_empty() || files.head().try_exists()?));
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false), // nor is its folder
        found => found.map_err(|source| Error::Read { path: files.folder().to_owned(), source }),
    }
}

/// Verifies the whole log to which `current` belongs: every rotated file and `current` itself.
///
/// # Errors
/// [`Error::Read`] when a file cannot be read. What is wrong *in* the files is in the report.
pub fn verify_log(current: &Path) -> Result<Report, Error> {
    let files = Files::of(current);
    let head = read_head(&files)?; // before the files: what it tells must then be in them
    let paths = files.list().map_err(|source| Error::Read { path: files.folder().to_owned(), source })?;
    let mut report = check(&paths, Extent::Whole, head, paths.last().map_or(current, PathBuf::as_path))?;
    if head.is_none() && !paths.is_empty() && !paths.iter().any(|path| path == current) {
        report.faults.push(Fault { file: current.to_owned(), line: 1, what: What::Gone });
    }
    Ok(report)
}

/// Verifies these files, in the order of their first lines. `audit.head` is looked for beside the last one.
///
/// # Errors
/// [`Error::Read`] when a file cannot be read. What is wrong *in* the files is in the report.
pub fn verify(paths: &[PathBuf], extent: Extent) -> Result<Report, Error> {
    let mut heads = Vec::new();
    for path in paths {
        heads.push(read_head(&Files::of(path))?);
    }
    let mut ordered = Vec::new();
    for (path, head) in paths.iter().zip(heads) {
        ordered.push((first_seq(path)?, path.clone(), head));
    }
    ordered.sort_by_key(|(seq, ..)| *seq);
    let head = ordered.last().and_then(|(.., head)| *head);
    let last = ordered.last().map(|(_, path, _)| path.clone()).unwrap_or_default();
    let paths: Vec<_> = ordered.into_iter().map(|(_, path, _)| path).collect();
    check(&paths, extent, head, &last)
}

fn check(paths: &[PathBuf], extent: Extent, head: Option<Link>, last: &Path) -> Result<Report, Error> {
    let mut checker = Checker::new(extent, head);
    for (index, path) in paths.iter().enumerate() {
        read_lines(path, |number, line, finished| {
            if finished {
                checker.line(path, number, line);
            } else {
                checker.unfinished(path, number, index + 1 == paths.len());
            }
        })?;
        checker.end_of_file();
    }
    Ok(checker.report(paths.len(), last))
}

fn read_head(files: &Files) -> Result<Option<Link>, Error> {
    Head::read(&files.head()).map_err(|source| Error::Read { path: files.head(), source })
}

fn first_seq(path: &Path) -> Result<Option<u64>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut line = Vec::new();
    BufReader::new(File::open(path).map_err(read)?).read_until(b'\n', &mut line).map_err(read)?;
    line.pop();
    Ok(Sealed::read(&line).map(|sealed| sealed.link.seq))
}

/// Calls `each` with every line's number, its bytes without the newline, and whether it had one.
pub(super) fn read_lines(path: &Path, mut each: impl FnMut(u64, &[u8], bool)) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut from = BufReader::with_capacity(1 << 16, File::open(path).map_err(read)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if from.read_until(b'\n', &mut line).map_err(read)? == 0 {
            break;
        }
        match line.split_last() {
            Some((b'\n', whole)) => each(number, whole, true),
            _ => each(number, &line, false),
        }
    }
    Ok(())
}

/// The line that the next one must continue.
struct Before {
    seq: u64,
    /// `None` after a changed line: what it was is unknown.
    hash: Option<Hash>,
    /// How many numbers changed lines may have had.
    unknown: u64,
}

/// Goes through lines in order.
pub(super) struct Checker {
    extent: Extent,
    head: Option<Link>,
    before: Option<Before>,
    at_start: bool,
    lines: u64,
    lines_in_file: u64,
    lowest: Option<u64>,
    gaps: Vec<(u64, u64)>,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

impl Checker {
    pub(super) const fn new(extent: Extent, head: Option<Link>) -> Self {
        Self {
            extent,
            head,
            before: None,
            at_start: true,
            lines: 0,
            lines_in_file: 0,
            lowest: None,
            gaps: Vec::new(),
            faults: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Judges a line, without its newline.
    pub(super) fn line(&mut self, file: &Path, number: u64, line: &[u8]) {
        self.lines += 1;
        self.lines_in_file = number;
        let found = match Sealed::read(line) {
            None => {
                self.skip_one();
                [Some(What::Changed), None, None]
            }
            Some(sealed) => {
                let told = self.hear(file, number, &sealed);
                [self.check_anchor(&sealed), self.check_link(&sealed), told]
            }
        };
        self.at_start = false;
        let faults = found.into_iter().flatten();
        self.faults.extend(faults.map(|what| Fault { file: file.to_owned(), line: number, what }));
    }

    /// The file ends without a newline. That is no fault at the end of a log whose head reaches only to the
    /// line before: it is being written, or a crash left it and the next start will set it aside.
    fn unfinished(&mut self, file: &Path, number: u64, at_end: bool) {
        let reached = self.before.as_ref().map_or(0, |before| before.seq);
        if at_end && self.head.is_some_and(|head| head.seq <= reached) {
            self.notes.push(format!("{}:{number}: an unfinished line, not yet recorded", file.display()));
        } else {
            self.faults.push(Fault { file: file.to_owned(), line: number, what: What::Unfinished });
            self.skip_one();
        }
    }

    const fn end_of_file(&mut self) {
        self.at_start = true;
    }

    /// The lowest number seen.
    pub(super) const fn lowest(&self) -> Option<u64> {
        self.lowest
    }

    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    fn report(mut self, files: usize, last_file: &Path) -> Report {
        let highest = self.before.as_ref().map_or(0, |before| before.seq);
        match self.head {
            Some(head) if self.extent == Extent::Whole && head.seq > highest => self.faults.push(Fault {
                file: last_file.to_owned(),
                line: self.lines_in_file + 1,
                what: What::CutOff { head: head.seq },
            }),
            None if self.extent == Extent::Whole => {
                self.notes
                    .push("no audit.head beside the last file: an end cut off would not show".to_owned());
            }
            _ => {}
        }
        Report {
            files,
            lines: self.lines,
            seqs: self.lowest.map(|lowest| (lowest, highest)),
            faults: self.faults,
            notes: self.notes,
        }
    }

    fn skip_one(&mut self) {
        self.before = Some(match self.before.take() {
            Some(before) => Before { hash: None, unknown: before.unknown.saturating_add(1), ..before },
            None => Before { seq: 0, hash: None, unknown: u64::MAX },
        });
    }

    fn check_anchor(&mut self, sealed: &Sealed) -> Option<What> {
        let cut_on_purpose = self.extent == Extent::Excerpt && self.lines == 1;
        (self.at_start && !sealed.is_anchor() && !cut_on_purpose)
            .then_some(What::NoAnchor { seq: sealed.link.seq })
    }

    fn check_link(&mut self, sealed: &Sealed) -> Option<What> {
        let seq = sealed.link.seq;
        if self.head.is_some_and(|head| head.seq == seq && head.hash != sealed.link.hash) {
            self.advance(sealed);
            return Some(What::Rewritten { seq });
        }
        let Some(before) = &self.before else {
            self.advance(sealed);
            return None;
        };
        if seq <= before.seq {
            let (after, in_gap) =
                (before.seq, self.gaps.iter().any(|(from, to)| (from..=to).contains(&&seq)));
            return Some(if in_gap { What::Moved { seq, after } } else { What::Repeated { seq } });
        }
        let from = before.seq.saturating_add(before.unknown).saturating_add(1);
        let replaced = before.hash.is_some_and(|hash| hash != sealed.prev);
        self.advance(sealed);
        if seq > from {
            self.gaps.push((from, seq - 1));
            return Some(What::Missing { from, to: seq - 1 });
        }
        replaced.then_some(What::Replaced { seq })
    }

    fn advance(&mut self, sealed: &Sealed) {
        self.lowest.get_or_insert(sealed.link.seq);
        self.before = Some(Before { seq: sealed.link.seq, hash: Some(sealed.link.hash), unknown: 0 });
    }

    /// What the log says of itself is a note, unless it is what no crash explains: that stays a fault, though what comes
    /// after it may fit what came before.
    fn hear(&mut self, file: &Path, number: u64, sealed: &Sealed) -> Option<What> {
        let (event, detail) = sealed.system.as_ref()?;
        if [MISSING, DAMAGED].contains(&event.as_str()) {
            return Some(What::Told { event: event.clone(), detail: detail.clone() });
        }
        let is_beginning = sealed.is_anchor() && self.lines == 1 && sealed.link.seq != 1;
        let is_recovery = event.starts_with("audit.") && !sealed.is_anchor();
        if is_beginning || is_recovery {
            self.notes.push(format!("{}:{number}: {event}: {detail}", file.display()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::{
        chain::{ANCHOR, Chain},
        event::{Event, sample},
    };

    struct Fixture {
        folder: tempfile::TempDir,
        lines: Vec<Vec<u8>>,
    }

    impl Fixture {
        /// An anchor and `count` actions, and the head that belongs to them.
        fn new(count: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut chain = Chain::after(Link::GENESIS);
            let mut bytes = Vec::new();
            chain.append(&mut bytes, &Event::system(ANCHOR, String::new()));
            (0..count).for_each(|_| chain.append(&mut bytes, &sample::action("acme")));
            Head::open(&folder.path().join("audit.head")).unwrap().write(chain.last()).unwrap();
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            Self { folder, lines }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("audit.jsonl")
        }

        fn verify(&self, extent: Extent) -> Report {
            std::fs::write(self.path(), self.lines.concat()).unwrap();
            verify(&[self.path()], extent).unwrap()
        }

        fn found(&self) -> Vec<(u64, What)> {
            self.verify(Extent::Whole).faults.into_iter().map(|fault| (fault.line, fault.what)).collect()
        }
    }

    #[test]
    fn an_untouched_file_is_intact() {
        let report = Fixture::new(5).verify(Extent::Whole);
        assert!(report.is_intact(), "{:?}", report.faults);
        assert_eq!((report.lines, report.seqs), (6, Some((1, 6))));
    }

    #[test]
    fn a_removed_line_is_missing_where_it_stood() {
        let mut log = Fixture::new(5);
        log.lines.remove(2);
        assert_eq!(log.found(), [(3, What::Missing { from: 3, to: 3 })]);
    }

    #[test]
    fn a_changed_line_is_the_only_one_blamed() {
        let mut log = Fixture::new(5);
        log.lines[2][20] ^= 1;
        assert_eq!(log.found(), [(3, What::Changed)]);
    }

    #[test]
    fn swapped_lines_are_missing_and_moved() {
        let mut log = Fixture::new(5);
        log.lines.swap(2, 3);
        assert_eq!(
            log.found(),
            [(3, What::Missing { from: 3, to: 3 }), (4, What::Moved { seq: 3, after: 4 })]
        );
    }

    #[test]
    fn a_line_copied_elsewhere_is_repeated() {
        let mut log = Fixture::new(5);
        log.lines.insert(4, log.lines[1].clone());
        assert_eq!(log.found(), [(5, What::Repeated { seq: 2 })]);
    }

    #[test]
    fn a_line_rewritten_with_a_right_hash_breaks_the_chain_after_it() {
        let mut log = Fixture::new(5);
        let before = Sealed::read(log.lines[1].trim_ascii_end()).unwrap().link;
        log.lines[2].clear();
        Chain::after(before).append(&mut log.lines[2], &sample::action("evil"));
        assert_eq!(log.found(), [(4, What::Replaced { seq: 4 })]);
    }

    #[test]
    fn a_log_rewritten_to_its_end_is_given_away_by_the_head() {
        let mut log = Fixture::new(1);
        let before = Sealed::read(log.lines[0].trim_ascii_end()).unwrap().link;
        log.lines[1].clear();
        Chain::after(before).append(&mut log.lines[1], &sample::action("evil"));
        assert_eq!(log.found(), [(2, What::Rewritten { seq: 2 })]);
    }

    #[test]
    fn an_end_cut_off_shows_against_the_head() {
        let mut log = Fixture::new(5);
        log.lines.truncate(4);
        assert_eq!(log.found(), [(5, What::CutOff { head: 6 })]);
        log.lines.clear();
        assert_eq!(log.found(), [(1, What::CutOff { head: 6 })]);
    }

    #[test]
    fn a_log_whose_current_file_was_removed_is_not_intact() {
        let log = Fixture::new(5);
        let (files, current) = (Files::of(&log.path()), log.path());
        std::fs::write(files.rotated(1), log.lines[..4].concat()).unwrap();
        let found = || verify_log(&current).unwrap().faults;
        let cut_off = Fault { file: files.rotated(1), line: 5, what: What::CutOff { head: 6 } };
        assert_eq!((is_there(&current).unwrap(), found()), (true, vec![cut_off]));
        std::fs::remove_file(files.head()).unwrap();
        let gone = Fault { file: current.clone(), line: 1, what: What::Gone };
        assert_eq!((is_there(&current).unwrap(), found()), (true, vec![gone]));
        std::fs::remove_file(files.rotated(1)).unwrap();
        assert!(!is_there(&current).unwrap());
        assert!(!is_there(&log.folder.path().join("nowhere/audit.jsonl")).unwrap());
        Head::open(&files.head()).unwrap().write(Link { seq: 3, hash: Hash::ZERO }).unwrap();
        let cut_off = Fault { file: current.clone(), line: 1, what: What::CutOff { head: 3 } };
        assert_eq!((is_there(&current).unwrap(), found()), (true, vec![cut_off]));
    }

    #[test]
    fn an_excerpt_is_judged_between_its_ends() {
        let mut log = Fixture::new(9);
        log.lines.drain(..3);
        log.lines.truncate(5);
        assert!(log.verify(Extent::Excerpt).is_intact());
        assert_eq!(log.found(), [(1, What::NoAnchor { seq: 4 }), (6, What::CutOff { head: 10 })]);
        log.lines.remove(2);
        let faults = log.verify(Extent::Excerpt).faults;
        assert_eq!((faults.len(), faults[0].line), (1, 3));
    }

    #[test]
    fn a_line_being_written_is_a_note_and_not_a_fault() {
        let mut log = Fixture::new(2);
        log.lines.push(b"{\"kind\":\"act".to_vec());
        let report = log.verify(Extent::Whole);
        assert!(report.is_intact());
        assert_eq!(report.notes.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_single_mutation_is_found(
            how in 0_u8..5,
            line in 0_usize..12,
            other in 0_usize..12,
            at in any::<prop::sample::Index>(),
            bits in 1_u8..=255,
        ) {
            let mut log = Fixture::new(11);
            let copy = log.lines[line].clone();
            match how {
                0 => drop(log.lines.remove(line)),
                1 => log.lines.swap(line, (line + 1 + other % 11) % 12),
                2 => log.lines.insert(other, copy),
                3 => { let at = at.index(copy.len()); log.lines[line][at] ^= bits; }
                _ => { let at = at.index(copy.len()); log.lines[line].remove(at); }
            }
            prop_assert!(!log.verify(Extent::Whole).is_intact());
        }
    }
}
