//! The demo's words: a few lines for each step as it happens, or one JSON document at the end.

use super::{
    ledger::Ledger,
    paint::{Paint, WIDTH, columns, gap},
    provider::HOST,
    story::Step,
    world::World,
};
use crate::{
    cli::{
        Failure,
        output::{Out, or_dash},
    },
    config::Listen,
};

/// Where the text after a name begins.
const INDENT: usize = 13;

/// Tells the demo as it happens. As JSON it is told at the end instead, and nothing is written here.
pub(super) struct Teller<'a> {
    out: &'a mut Out,
    paint: Paint,
}

impl<'a> Teller<'a> {
    pub(super) fn new(out: &'a mut Out, paint: Paint) -> Self {
        Self { out, paint }
    }

    pub(super) fn opening(&mut self, world: &World) -> Result<(), Failure> {
        let paint = self.paint;
        self.line(&format!(
            "{}  two tenants, three roles, one provider, all on this machine",
            paint.strong("keybearer demo")
        ))?;
        self.line("")?;
        self.fact(
            "provider",
            &format!("https://{HOST} at {}, which says what it receives", world.provider.address),
        )?;
        self.fact("proxy", &format!("http://{}, all that the agents know", world.app.proxy))?;
        for (at, (account, masked)) in world.accounts.iter().enumerate() {
            self.fact(if at == 0 { "vault" } else { "" }, &format!("{account:<24}  {masked}"))?;
        }
        self.line("")
    }

    pub(super) fn step(&mut self, number: usize, step: &Step) -> Result<(), Failure> {
        let (paint, outcome) = (self.paint, &step.outcome);
        let verdict = match &outcome.error {
            Some(error) => format!("{} {error}", outcome.status),
            None => format!("{} allowed", outcome.status),
        };
        let title = format!("{number}  {}", step.title);
        let space = gap(title.chars().count(), &verdict);
        let verdict = match (&outcome.error, step.differs.is_empty()) {
            (_, false) => paint.bad(&verdict),
            (Some(_), true) => paint.refused(&verdict),
            (None, true) => paint.good(&verdict),
        };
        self.line(&format!("{}{space}{verdict}", paint.strong(&title)))?;
        let request = format!("   {} {}", step.call.method, step.url);
        let way = step.call.way.as_str();
        self.line(&paint.quiet(&format!("{request}{}{way}", gap(request.chars().count(), way))))?;
        for (who, what) in &step.shows {
            self.fact(who, what)?;
        }
        for differs in &step.differs {
            self.line(&paint.bad(&format!("   NOT AS IT SHOULD BE: {differs}")))?;
        }
        self.line("")
    }

    pub(super) fn ledger(&mut self, ledger: &Ledger) -> Result<(), Failure> {
        let paint = self.paint;
        self.line(&paint.strong("the audit log"))?;
        let head =
            ["tenant", "role", "operation", "decision", "status", "account"].map(str::to_owned).to_vec();
        let mut rows = vec![head];
        rows.extend(ledger.actions.iter().map(|line| {
            let status = or_dash(line.status);
            vec![
                line.tenant.clone(),
                line.role.clone(),
                line.operation.clone(),
                line.decision.clone(),
                status,
                line.account.clone(),
            ]
        }));
        for (at, row) in columns(&rows).iter().enumerate() {
            let row = format!("   {row}");
            self.line(&if at == 0 { paint.quiet(&row) } else { row })?;
        }
        if ledger.intact {
            let verified =
                format!("   verified: {} lines, each hash follows from the line before", ledger.lines);
            self.line(&paint.good(&verified))?;
        }
        for differs in &ledger.differs {
            self.line(&paint.bad(&format!("   NOT AS IT SHOULD BE: {differs}")))?;
        }
        self.line("")
    }

    pub(super) fn closing(&mut self, world: &World, keep: bool, held: bool) -> Result<(), Failure> {
        let paint = self.paint;
        if !held {
            self.line(&paint.bad("Something is not as it should be, see above."))?;
        }
        if keep {
            self.line(&paint.strong("Try it from another terminal; Ctrl-C ends the demo:"))?;
            for command in commands(world) {
                self.line(&format!("   {command}"))?;
            }
            return Ok(());
        }
        self.line(&paint.strong("Try next:"))?;
        self.line("   keybearer demo --keep      stays, and prints the lines to copy, such as")?;
        self.line(&format!(
            "   {}",
            curl("acme", "researcher", &Listen::default().proxy.to_string(), "http", "")
        ))
    }

    /// A name and what there is to say of it, broken between words.
    fn fact(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let full =
                lines.last().is_some_and(|line| INDENT + line.chars().count() + word.chars().count() > WIDTH);
            if full {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(word);
                line.push(' ');
            }
        }
        let mut name = self.paint.quiet(&format!("{name:<8}"));
        for line in lines {
            self.line(format!("   {name}  {line}").trim_end())?;
            name = " ".repeat(8);
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        if self.out.is_json() { Ok(()) } else { self.out.line(text) }
    }
}

/// Lines to copy into a shell while the demo is kept running.
pub(super) fn commands(world: &World) -> Vec<String> {
    let proxy = world.app.proxy.to_string();
    let ca = format!("--cacert {} ", world.ca_file().display());
    vec![
        curl("acme", "researcher", &proxy, "http", ""),
        curl("globex", "researcher", &proxy, "https", &ca),
        curl("acme", "researcher", &proxy, "http", "-X DELETE "),
        format!("KEYBEARER_DATA_DIR={} keybearer audit tail", world.data_dir().display()),
    ]
}

fn curl(tenant: &str, role: &str, proxy: &str, scheme: &str, options: &str) -> String {
    format!("curl {options}--proxy http://{tenant}%2F{role}:x@{proxy} {scheme}://{HOST}/v1/deals")
}
