//! The one thread that writes: takes what waits, chains it, writes it with one call, tells who waits.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    journal::{self, Journal},
    log::Log,
    queue::{Ack, Entry, Shared},
};

/// With `durability: batch`, the disk is waited for this often.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Or when so much is not synchronised, because it is kept in memory until then.
const SYNC_BYTES: usize = 1 << 20;
/// How long to wait before writing again after a failure.
const RETRY: Duration = Duration::from_millis(250);
/// How often to try again once nobody is left to wait.
const LAST_TRIES: u32 = 8;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Log,
    /// With `durability: sync` only.
    pub(super) journal: Option<Journal>,
    synced: Instant,
    tries_left: u32,
}

/// What a batch owes when it is on the disk.
#[derive(Default)]
struct Owed {
    room: usize,
    acks: Vec<Ack>,
    sync: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log, journal: Option<Journal>) -> Self {
        Self { shared, log, journal, synced: Instant::now(), tries_left: LAST_TRIES }
    }

    pub(super) fn spawn(self) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("audit".to_owned()).spawn(move || self.run())
    }

    fn run(mut self) {
        let _stopped = Stopped(Arc::clone(&self.shared));
        let mut batch = Vec::new();
        while self.tries_left > 0 {
            let limit = (self.log.unsynced() > 0).then(|| SYNC_EVERY.saturating_sub(self.synced.elapsed()));
            if !self.shared.take(&mut batch, limit) {
                break;
            }
            self.process(&mut batch);
            batch.shrink_to(4096); // a burst's memory is given back
        }
        if self.log.unsynced() > 0 {
            self.insist("write", |writer| writer.log.commit(true));
        }
        if let Some(journal) = self.journal.filter(|_| self.tries_left > 0) {
            let _ = journal.close(); // it would only be looked through at the next start
        }
    }

    /// Returns when the batch is where its durability wants it.
    fn process(&mut self, batch: &mut Vec<Entry>) {
        let mut owed = Owed { sync: self.journal.is_some(), ..Owed::default() };
        for entry in batch.drain(..) {
            self.enter(entry, &mut owed);
            if self.log.is_full() {
                self.insist("rotate", |writer| writer.log.rotate());
                self.insist("write", |writer| writer.log.expire());
            } else if self.log.unsynced() >= SYNC_BYTES {
                self.insist("write", |writer| writer.commit(true));
            }
        }
        let sync = owed.sync || self.synced.elapsed() >= SYNC_EVERY;
        if !self.insist("write", |writer| writer.commit(sync)) {
            return; // dropping the acks tells those who wait
        }
        self.shared.metrics.events.inc_by(owed.room as u64);
        self.shared.metrics.lag.sub(i64::try_from(owed.room).unwrap_or(i64::MAX));
        self.shared.room.add_permits(owed.room);
        for ack in owed.acks {
            let _ = ack.send(()); // whoever waited may have given up
        }
    }

    fn enter(&mut self, entry: Entry, owed: &mut Owed) {
        match entry {
            Entry::Event(event, intent) => {
                if let (Some(journal), Some(id)) = (&mut self.journal, intent) {
                    journal.end(id);
                }
                self.log.append(&event);
                owed.room += 1;
            }
            Entry::Awaited(event, ack) => {
                self.log.append(&event);
                owed.room += 1;
                owed.acks.push(ack);
                owed.sync = true;
            }
            Entry::Intent(id, event, ack) => {
                if let Some(journal) = &mut self.journal {
                    journal.intend(id, event);
                }
                owed.acks.push(ack);
            }
            Entry::Abandoned(id) => {
                if let Some(intent) = self.journal.as_mut().and_then(|journal| journal.end(id)) {
                    self.log.append(&journal::interrupted(intent));
                }
                owed.room += 1;
            }
            Entry::Flush(ack) => {
                owed.acks.push(ack);
                owed.sync = true;
            }
        }
    }

    fn commit(&mut self, sync: bool) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.commit()?;
        }
        self.log.commit(sync)?;
        if sync {
            self.synced = Instant::now();
            let after = self.log.last().seq;
            self.journal.as_mut().map_or(Ok(()), |journal| journal.shrink(after))?;
        }
        Ok(())
    }

    /// Tries until it succeeds, and lets nobody reserve meanwhile. Gives up only when everyone who could
    /// wait is gone; returns whether it succeeded.
    fn insist(&mut self, what: &str, mut step: impl FnMut(&mut Self) -> io::Result<()>) -> bool {
        let mut failed = false;
        while let Err(error) = step(self) {
            if !failed {
                tracing::error!(%error, "cannot {what} the audit log; requests are refused until it can");
            }
            failed = true;
            self.shared.report(Some(error.to_string().into()));
            if !self.shared.sleep(RETRY) {
                let _ = self.log.leave_lost_file(); // where that fails, the step goes on to say why
                self.tries_left = self.tries_left.saturating_sub(1);
                if self.tries_left == 0 {
                    let events = self.log.unsynced();
                    tracing::error!(unsynced_bytes = events, "the audit log could not be written to its end");
                    return false;
                }
                thread::sleep(RETRY);
            }
        }
        if failed {
            tracing::info!("the audit log can be written again");
            self.shared.report(None);
        }
        true
    }
}

/// However the thread ends, nobody shall wait for it.
struct Stopped(Arc<Shared>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.report(Some("the audit writer has stopped".into()));
    }
}
