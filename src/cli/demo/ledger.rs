//! The audit log of the demo, held against what was seen to happen.

use serde::Serialize;

use super::story::Step;
use crate::{
    audit::{Decision, Event, Report},
    cli::output::or_dash,
};

/// What was recorded.
#[derive(Debug, Serialize)]
pub(super) struct Ledger {
    pub(super) actions: Vec<Line>,
    /// How many lines there are in all, the vault's and the system's among them.
    pub(super) lines: u64,
    /// Whether every line's hash follows from the line before.
    pub(super) intact: bool,
    /// Where the log differs from what was seen to happen.
    pub(super) differs: Vec<String>,
}

/// One action.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) tenant: String,
    pub(super) role: String,
    pub(super) operation: String,
    pub(super) decision: String,
    pub(super) status: Option<u16>,
    pub(super) account: String,
    stripped: Vec<String>,
    #[serde(skip)]
    error: Option<String>,
    #[serde(skip)]
    action: Option<String>,
}

impl Ledger {
    pub(super) fn of(events: &[Event], report: &Report, steps: &[Step]) -> Self {
        let actions: Vec<Line> = events.iter().map(Line::of).collect();
        let mut differs: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
        if actions.len() != steps.len() {
            differs.push(format!("{} calls were made and {} recorded", steps.len(), actions.len()));
        }
        for (line, step) in actions.iter().zip(steps) {
            differs.extend(line.compare(step).map(|what| format!("{}: the log {what}", step.title)));
        }
        Self { actions, lines: report.lines, intact: report.is_intact(), differs }
    }
}

impl Line {
    fn of(event: &Event) -> Self {
        Self {
            tenant: or_dash(event.tenant.as_ref()),
            role: or_dash(event.role.as_ref()),
            operation: or_dash(event.operation.as_ref()),
            decision: or_dash(event.decision.map(Decision::as_str)),
            status: event.status,
            account: or_dash(event.account.as_ref()),
            stripped: event.stripped.iter().map(ToString::to_string).collect(),
            error: event.error.as_ref().map(ToString::to_string),
            action: event.id.map(|id| id.to_string()),
        }
    }

    /// What differs from the step, if anything does.
    fn compare<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = &'static str> + 'a {
        let outcome = &step.outcome;
        let decision = if outcome.error.is_some() { Decision::Deny } else { Decision::Allow };
        let stripped = step.call.authorization.is_none()
            || self.stripped.iter().any(|name| name.eq_ignore_ascii_case("authorization"));
        let account = outcome.account.as_ref().is_none_or(|account| *account == self.account);
        let facts = [
            (self.action == step.action, "has another action id than the answer"),
            (self.tenant == step.call.tenant && self.role == step.call.role, "names another agent"),
            (self.decision == decision.as_str(), "has another decision"),
            (self.error == outcome.error, "has another error"),
            (self.status == Some(outcome.status), "has another status"),
            (account, "names another account"),
            (stripped, "does not say that Authorization was stripped"),
        ];
        facts.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what)
    }
}
