//! What the herd comes to.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use super::{
    ACCOUNTS, PER_SECOND,
    riders::{Answer, Ride},
};
use crate::report::{grid, percentile, say, show};

/// Everything that was measured.
pub(super) struct Figures {
    /// When each POST arrived at the token endpoint.
    pub(super) posts: Vec<Timestamp>,
    pub(super) refreshed: usize,
    pub(super) ride: Ride,
    pub(super) memory: Memory,
    /// Of all accounts but one a tenant.
    pub(super) first_use: Duration,
    /// When the first tokens end.
    pub(super) lives_until: Timestamp,
}

/// The proxy's resident memory, step by step.
#[derive(Default)]
pub(super) struct Memory(Vec<(&'static str, usize, f64)>);

impl Memory {
    /// At this step, so many accounts came to be held or used, and it was so many MB.
    pub(super) fn add(&mut self, step: &'static str, accounts: usize, megabytes: f64) {
        self.0.push((step, accounts, megabytes));
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of accounts")]
    fn say(&self) {
        let mut table = grid(&["memory", "accounts", "RSS MB", "bytes/account more"]);
        let mut before = None;
        for (step, accounts, megabytes) in &self.0 {
            let each = before.map(|before: f64| (megabytes - before) * 1e6 / *accounts as f64);
            let each = each.map_or_else(String::new, |each| format!("{each:.0}"));
            table.add_row([(*step).to_owned(), accounts.to_string(), show(*megabytes), each]);
            before = Some(*megabytes);
        }
        say(&table.to_string());
    }
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "counts of POSTs")]
    pub(super) fn say(&self) {
        let (first, last) = self.span();
        let herd = last.duration_since(first).as_secs_f64();
        let mut table = grid(&["token endpoint", ""]);
        table.add_row(["POSTs".to_owned(), self.posts.len().to_string()]);
        table.add_row(["from the first to the last, s".to_owned(), show(herd)]);
        table.add_row(["POSTs/s, mean".to_owned(), show(self.posts.len() as f64 / herd)]);
        table.add_row(["POSTs/s, most in one second".to_owned(), self.most().to_string()]);
        table.add_row(["  the bucket: at once, and a second's".to_owned(), (2 * PER_SECOND).to_string()]);
        table.add_row(["accounts refreshed".to_owned(), self.refreshed.to_string()]);
        let spare = self.lives_until.duration_since(last).as_secs_f64();
        table.add_row(["before the first tokens' end, s".to_owned(), show(spare)]);
        say(&table.to_string());
        self.say_latency();
        self.memory.say();
        say(&format!(
            "{} accounts used for the first time in {:.1} s",
            ACCOUNTS,
            self.first_use.as_secs_f64()
        ));
    }

    fn say_latency(&self) {
        let (first, last) = self.span();
        let is_herd = |answer: &&Answer| (first..=last).contains(&answer.asked);
        let (with, without): (Vec<&Answer>, Vec<&Answer>) = self.ride.answers.iter().partition(is_herd);
        let mut table = grid(&["requests", "answered", "p50 ms", "p99 ms", "longest ms"]);
        let (without, with) = (latencies(&without), latencies(&with));
        for (who, of) in [("without the herd", &without), ("with it", &with)] {
            let at = |share| show(percentile(of, share));
            table.add_row([who.to_owned(), of.len().to_string(), at(0.5), at(0.99), at(1.0)]);
        }
        let over = |share| show(percentile(&with, share) / percentile(&without, share));
        table.add_row(["with ÷ without".to_owned(), String::new(), over(0.5), over(0.99), over(1.0)]);
        say(&table.to_string());
    }

    /// # Errors
    /// Where a request was refused although its token lived.
    pub(super) fn check(&self) -> Result<()> {
        let refused = &self.ride.refused;
        let early = refused.iter().filter(|(at, _)| *at < self.lives_until).count();
        say(&format!("{} requests refused, {early} of them while their token lived", refused.len()));
        ensure!(early == 0, "refused although the token lived: {}", refused[0].1);
        Ok(())
    }

    fn span(&self) -> (Timestamp, Timestamp) {
        let first = self.posts.iter().min().copied().unwrap_or_default();
        (first, self.posts.iter().max().copied().unwrap_or_default())
    }

    /// The most POSTs in any one second.
    fn most(&self) -> usize {
        let mut posts = self.posts.clone();
        posts.sort_unstable();
        let within = |(index, at): (usize, &Timestamp)| {
            posts[index..].partition_point(|later| later.duration_since(*at).as_millis() < 1000)
        };
        posts.iter().enumerate().map(within).max().unwrap_or_default()
    }
}

/// Milliseconds, sorted.
fn latencies(answers: &[&Answer]) -> Vec<f64> {
    let mut all: Vec<f64> = answers.iter().map(|answer| answer.took.as_secs_f64() * 1e3).collect();
    all.sort_unstable_by(f64::total_cmp);
    all
}
