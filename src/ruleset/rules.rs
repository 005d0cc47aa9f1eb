//! The ruleset in use, and who replaces it: whoever follows the files, or whoever is handed them.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    Excerpt, LoadError, Ruleset, Summary,
    files::Files,
    origin::Origin,
    reload,
    sources::{Made, Sources},
};
use crate::drain::Drain;

/// The rules in use. Cloning is cheap, and all clones see the same.
#[derive(Debug, Clone)]
pub struct Rules {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    supply: Supply,
    current: ArcSwapOption<Ruleset>,
    last_error: ArcSwapOption<LoadError>,
}

/// Where the next ruleset comes from.
#[derive(Debug)]
enum Supply {
    /// Files that are followed, and what they were when they were first read.
    Files { origins: Vec<Origin>, fingerprint: String, made: Made },
    /// A [`Feed`]: by whom, and what became of what it was given, until somebody listens.
    Feed { by: String, outcomes: Mutex<Option<UnboundedReceiver<Outcome>>> },
    /// Nowhere.
    Fixed,
}

/// What became of changed files.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// They are in use now.
    Loaded(Summary),
    /// They cannot be used; those before stay in use.
    Refused(Arc<LoadError>),
}

/// Replaces rules that come from elsewhere. There is one for each [`Rules::fed`].
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    last: Option<Arc<str>>,
    tell: UnboundedSender<Outcome>,
}

impl Rules {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`LoadError`]: there is no last good one to fall back on.
    pub fn load(origins: &[impl Clone + Into<Origin>]) -> Result<Self, LoadError> {
        let origins: Vec<Origin> = origins.iter().cloned().map(Into::into).collect();
        let Sources { files, made, .. } = Sources::read(&origins);
        let supply = Supply::Files { origins, fingerprint: files.fingerprint(), made };
        Ok(Self::new(supply, Some(Ruleset::from_files(files)?)))
    }

    /// Rules that are handed over by somebody, such as the broker, and how. Until the first set has come there are
    /// none, and nothing can be decided.
    #[must_use]
    pub fn fed(by: &str) -> (Self, Feed) {
        let (tell, outcomes) = unbounded_channel();
        let supply = Supply::Feed { by: by.to_owned(), outcomes: Mutex::new(Some(outcomes)) };
        let rules = Self::new(supply, None);
        let feed = Feed { shared: Arc::clone(&rules.shared), last: None, tell };
        (rules, feed)
    }

    /// Rules that never change, such as those of a demonstration.
    #[must_use]
    pub fn fixed(ruleset: Ruleset) -> Self {
        Self::new(Supply::Fixed, Some(ruleset))
    }

    fn new(supply: Supply, ruleset: Option<Ruleset>) -> Self {
        let current = ArcSwapOption::from(ruleset.map(Arc::new));
        Self { shared: Arc::new(Shared { supply, current, last_error: ArcSwapOption::empty() }) }
    }

    /// The rules in use, if any have come yet. Ask once a request: two calls may give two rulesets.
    #[must_use]
    pub fn in_use(&self) -> Option<Arc<Ruleset>> {
        self.shared.current.load_full()
    }

    /// [`Rules::in_use`], or the empty ruleset, which refuses everything.
    #[must_use]
    pub fn current(&self) -> Arc<Ruleset> {
        self.in_use().unwrap_or_default()
    }

    /// Why the files are not what is in use, if so.
    #[must_use]
    pub fn last_error(&self) -> Option<Arc<LoadError>> {
        self.shared.last_error.load_full()
    }

    /// What is the matter with the rules, for `/readyz`.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match (self.last_error(), self.in_use(), &self.shared.supply) {
            (None, Some(_), _) => None,
            (None, None, Supply::Feed { by, .. }) => Some(format!("no policy has come from {by} yet")),
            (None, None, _) => Some("there is none".to_owned()),
            (Some(error), Some(_), _) => {
                Some(format!("the files cannot be used, the last good ones stay ({})", error.in_short()))
            }
            (Some(error), None, _) => {
                Some(format!("the files cannot be used, and none came before them ({})", error.in_short()))
            }
        }
    }

    /// Follows the files until the stop begins, or tells what becomes of those that are handed over. `on_outcome`
    /// hears of every change of content, also of one that is undone. Changes since [`Rules::load`] are not lost: the
    /// files are read once more before this returns.
    pub fn watch(&self, drain: &Drain, on_outcome: impl FnMut(Outcome) + Send + 'static) {
        match &self.shared.supply {
            Supply::Files { origins, fingerprint, made } => {
                let last = reload::Last { fingerprint: fingerprint.clone(), made: made.clone() };
                reload::watch(&self.shared, origins.clone(), last, drain, on_outcome);
            }
            Supply::Feed { outcomes, .. } => {
                // Whoever comes second is told by the same files what the first one was.
                let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(outcomes) = outcomes {
                    drain.spawn(retell(outcomes, drain.clone(), on_outcome));
                }
            }
            Supply::Fixed => {}
        }
    }
}

async fn retell(
    mut outcomes: UnboundedReceiver<Outcome>,
    drain: Drain,
    mut on_outcome: impl FnMut(Outcome) + Send,
) {
    loop {
        tokio::select! {
            () = drain.begun() => return,
            outcome = outcomes.recv() => match outcome {
                Some(outcome) => on_outcome(outcome),
                None => return,
            }
        }
    }
}

impl Feed {
    /// Takes these files in the place of those before, as a whole; where they cannot be used, those before stay. `None`
    /// where they are what was handed over last. Reads and checks every file: some milliseconds.
    pub fn replace(&mut self, files: Excerpt) -> Option<Outcome> {
        let Excerpt { revision, files } = files;
        if self.last.as_ref() == Some(&revision) {
            return None;
        }
        self.last = Some(Arc::clone(&revision));
        let files = Files { all: files, findings: Vec::new(), named: Some(revision) };
        let outcome = self.shared.take(files);
        // Nobody listens any more once the stop has begun.
        let _ = self.tell.send(outcome.clone());
        Some(outcome)
    }
}

impl Shared {
    /// Takes these files into use, or says why not.
    pub(super) fn take(&self, files: Files) -> Outcome {
        match Ruleset::from_files(files) {
            Ok(ruleset) => {
                let summary = ruleset.summary.clone();
                self.current.store(Some(Arc::new(ruleset)));
                self.last_error.store(None);
                Outcome::Loaded(summary)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.last_error.store(Some(Arc::clone(&error)));
                Outcome::Refused(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::files::File, *};
    use crate::{id::Subject, identity::Workload};

    const ROLE: &str = "apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: reader}
spec: {tenants: [acme]}
";

    fn files(revision: &str, text: &str) -> Excerpt {
        let file = File { name: "roles/reader.yaml".to_owned(), text: text.to_owned() };
        Excerpt { revision: revision.into(), files: vec![file] }
    }

    fn revision(rules: &Rules) -> Option<Arc<str>> {
        rules.in_use().map(|rules| rules.revision.clone())
    }

    #[tokio::test]
    async fn rules_that_are_fed_are_none_at_first_then_whole_and_keep_the_last_good_ones() {
        let (rules, mut feed) = Rules::fed("the broker");
        assert_eq!(rules.trouble().as_deref(), Some("no policy has come from the broker yet"));
        assert!(rules.in_use().is_none());
        let subject =
            Subject { tenant: "acme".parse().unwrap(), role: "reader".parse().unwrap(), user: None };
        assert!(!rules.current().bindings.allows(&Workload::Local, &subject));

        let refused = feed.replace(files("aaaaaaaaaaaa", &ROLE.replace("spec", "spek"))).unwrap();
        assert!(
            matches!(&refused, Outcome::Refused(error) if error.to_string().starts_with("roles/reader.yaml:4:1: "))
        );
        assert!(rules.in_use().is_none(), "there is no last good one");
        assert!(rules.trouble().unwrap().contains("none came before them (1 problem; roles/reader.yaml:4: "));

        let loaded = feed.replace(files("bbbbbbbbbbbb", ROLE)).unwrap();
        assert!(
            matches!(loaded, Outcome::Loaded(summary) if &*summary.revision == "bbbbbbbbbbbb" && summary.roles == 1)
        );
        assert_eq!((revision(&rules).as_deref(), rules.trouble()), (Some("bbbbbbbbbbbb"), None));

        assert!(feed.replace(files("bbbbbbbbbbbb", ROLE)).is_none(), "nothing changed");
        feed.replace(files("cccccccccccc", "kind: [")).unwrap();
        assert_eq!(revision(&rules).as_deref(), Some("bbbbbbbbbbbb"), "the last good ones stay");
        assert!(rules.trouble().unwrap().contains("the last good ones stay (1 problem; roles/reader.yaml:"));

        assert!(matches!(feed.replace(files("bbbbbbbbbbbb", ROLE)), Some(Outcome::Loaded(_))), "taken back");
        assert_eq!(rules.trouble(), None);
    }

    #[tokio::test]
    async fn what_becomes_of_fed_rules_is_told_also_what_came_before_anybody_listened() {
        let (rules, mut feed) = Rules::fed("the broker");
        let drain = Drain::default();
        feed.replace(files("aaaaaaaaaaaa", ROLE)).unwrap();
        let (tell, mut told) = unbounded_channel();
        rules.watch(&drain, move |outcome| drop(tell.send(outcome)));
        assert!(
            matches!(told.recv().await, Some(Outcome::Loaded(summary)) if &*summary.revision == "aaaaaaaaaaaa")
        );
        feed.replace(files("bbbbbbbbbbbb", "kind: [")).unwrap();
        assert!(matches!(told.recv().await, Some(Outcome::Refused(_))));
        drain.finish(std::time::Duration::from_secs(20)).await;
        assert!(told.recv().await.is_none(), "the telling ends with the drain");
    }
}
