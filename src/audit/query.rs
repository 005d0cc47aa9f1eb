//! Looking things up in the files.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use memchr::memmem::Finder;
use serde::Deserialize;

use super::{
    Error,
    event::{Decision, Event, Kind},
    files::Files,
    verify::read_lines,
};
use crate::id::{ActionId, ChainId, ConnectorName, OperationName, RoleName, TenantId, UserId};

/// Which events are wanted: all that fit every member that is there.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// What the event is about.
    pub kind: Option<Kind>,
    /// The customer organisation.
    pub tenant: Option<TenantId>,
    /// The agent's role.
    pub role: Option<RoleName>,
    /// The end user.
    pub user: Option<UserId>,
    /// The external system.
    pub connector: Option<ConnectorName>,
    /// The operation of the connector.
    pub operation: Option<OperationName>,
    /// What the policy answered.
    pub decision: Option<Decision>,
    /// The refusal's code.
    pub error: Option<String>,
    /// The agent run.
    pub chain: Option<ChainId>,
    /// The action.
    pub id: Option<ActionId>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// One event as it was recorded.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its number.
    pub seq: u64,
    /// What it says.
    pub event: Event,
    /// The line as it stands in the file, without the newline.
    pub line: String,
}

impl Recorded {
    /// Reads a line; `None` where it is no event. It is not verified.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Place {
            seq: u64,
        }
        let Place { seq } = serde_json::from_slice(line).ok()?;
        let event = serde_json::from_slice(line).ok()?;
        Some(Self { seq, event, line: String::from_utf8(line.to_vec()).ok()? })
    }
}

/// What a query found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The events, oldest first.
    pub events: Vec<Recorded>,
    /// How many lines were no events: run a verification.
    pub unreadable: u64,
}

/// The last `limit` events of the log of `current` that fit, across its rotated files. Blocks on the disk.
///
/// # Errors
/// [`Error::Read`] when a file cannot be read.
pub fn query(current: &Path, filter: &Filter, limit: usize) -> Result<Found, Error> {
    let mut found = Found::default();
    for path in newest_first(current)? {
        let wanted = limit - found.events.len();
        if wanted == 0 || filter.since.is_some_and(|since| ended_before(&path, since)) {
            break;
        }
        let mut older = last_fitting(&path, filter, wanted, &mut found.unreadable)?;
        older.append(&mut found.events);
        found.events = older;
    }
    Ok(found)
}

fn newest_first(current: &Path) -> Result<Vec<PathBuf>, Error> {
    let files = Files::of(current);
    let mut paths = files.list().map_err(|source| Error::Read { path: files.folder().to_owned(), source })?;
    paths.reverse();
    Ok(paths)
}

/// Whether the file was last written before then.
fn ended_before(path: &Path, since: Timestamp) -> bool {
    let written = path.metadata().and_then(|metadata| metadata.modified()).ok();
    written.and_then(|time| Timestamp::try_from(time).ok()).is_some_and(|time| time < since)
}

fn last_fitting(
    path: &Path,
    filter: &Filter,
    limit: usize,
    unreadable: &mut u64,
) -> Result<Vec<Recorded>, Error> {
    let needles = filter.needles();
    let mut last = VecDeque::new();
    read_lines(path, |_, line, finished| {
        // An unfinished line is being written.
        if !finished || !needles.iter().all(|needle| needle.find(line).is_some()) {
            return;
        }
        match Recorded::read(line) {
            Some(recorded) if filter.fits(&recorded.event) => {
                if last.len() == limit {
                    last.pop_front();
                }
                last.push_back(recorded);
            }
            Some(_) => {}
            None => *unreadable += 1,
        }
    })?;
    Ok(last.into())
}

impl Filter {
    /// Texts that every line that fits contains: lines are canonical, so a member has one spelling. They
    /// spare the parsing of most lines.
    fn needles(&self) -> Vec<Finder<'static>> {
        let members = [
            ("tenant", self.tenant.as_ref().map(ToString::to_string)),
            ("role", self.role.as_ref().map(ToString::to_string)),
            ("user", self.user.as_ref().map(ToString::to_string)),
            ("connector", self.connector.as_ref().map(ToString::to_string)),
            ("operation", self.operation.as_ref().map(ToString::to_string)),
            ("chain", self.chain.as_ref().map(ToString::to_string)),
            ("id", self.id.as_ref().map(ToString::to_string)),
            ("error", self.error.clone()),
            ("decision", self.decision.map(|decision| decision.as_str().to_owned())),
            ("kind", self.kind.map(|kind| kind.as_str().to_owned())),
        ];
        let spelled = |(name, value): (&str, Option<String>)| {
            Some(format!("\"{name}\":{}", serde_json::Value::String(value?)))
        };
        members
            .into_iter()
            .filter_map(spelled)
            .map(|text| Finder::new(text.as_bytes()).into_owned())
            .collect()
    }

    /// Whether the event is wanted.
    #[must_use]
    pub fn fits(&self, event: &Event) -> bool {
        fn same<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        same(self.kind.as_ref(), Some(&event.kind))
            && same(self.tenant.as_ref(), event.tenant.as_ref())
            && same(self.role.as_ref(), event.role.as_ref())
            && same(self.user.as_ref(), event.user.as_ref())
            && same(self.connector.as_ref(), event.connector.as_ref())
            && same(self.operation.as_ref(), event.operation.as_ref())
            && same(self.decision.as_ref(), event.decision.as_ref())
            && same(self.chain.as_ref(), event.chain.as_ref())
            && same(self.id.as_ref(), event.id.as_ref())
            && self.error.as_deref().is_none_or(|wanted| event.error.as_deref() == Some(wanted))
            && self.since.is_none_or(|since| event.time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| event.time.is_some_and(|time| time < until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        event::sample,
        log::{Log, Rotation, timed},
        recover,
    };

    /// A log of 40 actions by two tenants over several files.
    fn rotated_log(folder: &Path) -> (PathBuf, Log) {
        let current = folder.join("audit.jsonl");
        let mut log = recover::open(Files::of(&current), Rotation { bytes: 4096, keep: None }).unwrap();
        for number in 0..40 {
            log.append(&timed(sample::action(["acme", "globex"][number % 2])));
            let full = log.is_full();
            [Log::commit_only, Log::rotate][usize::from(full)](&mut log).unwrap();
        }
        (current, log)
    }

    impl Log {
        fn commit_only(&mut self) -> std::io::Result<()> {
            self.commit(false)
        }
    }

    #[test]
    fn a_query_crosses_files_and_returns_the_last_that_fit_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (current, _log) = rotated_log(folder.path());
        assert!(Files::of(&current).list().unwrap().len() > 2);
        let filter = Filter { tenant: Some(TenantId::new("acme").unwrap()), ..Filter::default() };
        let all = query(&current, &filter, usize::MAX).unwrap();
        assert_eq!((all.events.len(), all.unreadable), (20, 0));
        assert!(all.events.is_sorted_by_key(|recorded| recorded.seq));
        let last: Vec<_> =
            query(&current, &filter, 15).unwrap().events.iter().map(|found| found.seq).collect();
        assert_eq!(last, all.events[5..].iter().map(|found| found.seq).collect::<Vec<_>>());
    }

    #[test]
    fn every_member_of_a_filter_narrows() {
        let event = sample::full();
        let fits = |filter: Filter| filter.fits(&event);
        assert!(fits(Filter::default()));
        assert!(fits(Filter { since: event.time, id: event.id, ..Filter::default() }));
        let narrowed = [
            Filter { kind: Some(Kind::System), ..Filter::default() },
            Filter { tenant: Some(TenantId::new("other").unwrap()), ..Filter::default() },
            Filter { role: Some(RoleName::new("other").unwrap()), ..Filter::default() },
            Filter { user: Some(UserId::new("other").unwrap()), ..Filter::default() },
            Filter { connector: Some(ConnectorName::new("other").unwrap()), ..Filter::default() },
            Filter { operation: Some(OperationName::new("other").unwrap()), ..Filter::default() },
            Filter { decision: Some(Decision::Deny), ..Filter::default() },
            Filter { error: Some("other".to_owned()), ..Filter::default() },
            Filter { chain: Some(ChainId::new("other").unwrap()), ..Filter::default() },
            Filter { id: Some(ActionId::now()), ..Filter::default() },
            Filter { until: event.time, ..Filter::default() },
            Filter { since: Some(Timestamp::MAX), ..Filter::default() },
        ];
        assert!(narrowed.into_iter().all(|filter| !fits(filter)));
    }

    #[test]
    fn what_fits_contains_its_needles() {
        let event = sample::full();
        let filter = Filter {
            kind: Some(event.kind),
            tenant: event.tenant.clone(),
            role: event.role.clone(),
            user: event.user.clone(),
            connector: event.connector.clone(),
            operation: event.operation.clone(),
            decision: event.decision,
            error: event.error.as_deref().map(str::to_owned),
            chain: event.chain.clone(),
            id: event.id,
            ..Filter::default()
        };
        let mut line = Vec::new();
        crate::audit::line::Pen::default().write(&mut line, &event, None);
        assert_eq!(filter.needles().len(), 10);
        assert!(filter.needles().iter().all(|needle| needle.find(&line).is_some()));
    }
}
