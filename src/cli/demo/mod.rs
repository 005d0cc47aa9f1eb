//! `keybearer demo`: a tour on loopback, with the real proxy before a provider that says what it received.
//!
//! Nothing is told that was not seen: every call's outcome is compared with what the line claims, and the audit log
//! with both. Where one differs, the demo says so and fails.

mod agent;
mod ledger;
mod paint;
mod provider;
mod story;
mod tell;
mod world;

use clap::Args;
use serde::Serialize;

use self::{ledger::Ledger, paint::Paint, story::Step, tell::Teller, world::World};
use super::{Failure, failure::FAILED, output::Out, stop::Stop};

/// See it work: two tenants, three roles and a provider on loopback; allowed, refused, stripped, isolated, audited
///
/// Nothing is left behind, and nothing of yours is read or changed.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Example:
  keybearer demo
  keybearer demo --keep")]
pub(super) struct Demo {
    /// Leave the provider and the proxy running until Ctrl-C, and print lines to try
    #[arg(long)]
    keep: bool,
}

/// All that was shown, as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    proxy: String,
    steps: &'a [Step],
    audit: &'a Ledger,
    /// Whether all of it is as it must be.
    held: bool,
    /// Commands to try, while the demo is kept running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next: Vec<String>,
}

impl Demo {
    /// Shows the tour. Fails where anything cannot be started or is not as it must be.
    pub(super) async fn run(self, out: &mut Out) -> Result<(), Failure> {
        let world = World::start(self.keep).await.map_err(told)?;
        let held = self.show(&world, out).await;
        if self.keep && held.is_ok() {
            Stop::listen()?.told().await;
        }
        world.stop().await;
        if held? { Ok(()) } else { Err(Failure::silent(FAILED)) }
    }

    /// Says whether all of it was as it must be.
    async fn show(self, world: &World, out: &mut Out) -> Result<bool, Failure> {
        let mut teller = Teller::new(out, Paint::for_stdout());
        teller.opening(world)?;
        let mut steps: Vec<Step> = Vec::new();
        for scene in story::scenes() {
            let step = scene.play(world).await.map_err(told)?;
            teller.step(steps.len() + 1, &step)?;
            steps.push(step);
        }
        let (events, report) = world.audited().await.map_err(told)?;
        let ledger = Ledger::of(&events, &report, &steps);
        teller.ledger(&ledger)?;
        let held = ledger.differs.is_empty() && steps.iter().all(|step| step.differs.is_empty());
        teller.closing(world, self.keep, held)?;
        if out.is_json() {
            let next = if self.keep { tell::commands(world) } else { Vec::new() };
            let proxy = format!("http://{}", world.app.proxy);
            out.json(&Shown { proxy, steps: &steps, audit: &ledger, held, next })?;
        }
        Ok(held)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it ends here")]
fn told(error: anyhow::Error) -> Failure {
    Failure::new(format!("{error:#}"))
}
