//! Which tenants, roles and users a workload may speak for.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::Workload;
use crate::id::{BindingName, RoleName, Subject, TenantId, UserId};

/// The `spec` of a `Binding` document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingSpec {
    /// Who may speak.
    #[serde(deserialize_with = "some_workloads")]
    pub workloads: Vec<Workload>,
    /// For which tenants.
    #[serde(deserialize_with = "some_names")]
    pub tenants: Names<TenantId>,
    /// In which roles.
    #[serde(deserialize_with = "some_names")]
    pub roles: Names<RoleName>,
    /// For which users. Left out, for none: a request that names a user is refused. A request that names no
    /// user is always within the binding, for it asks for no user's account.
    #[serde(default)]
    pub users: Names<UserId>,
}

/// Either every name (`"*"`) or those listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names<T> {
    /// `"*"`.
    Any,
    /// The names written.
    Only(BTreeSet<T>),
}

/// All bindings, by workload. The empty set allows nothing.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    by_workload: HashMap<Workload, Vec<Bound>>,
}

#[derive(Debug, Clone)]
struct Bound {
    binding: BindingName,
    tenants: Names<TenantId>,
    roles: Names<RoleName>,
    users: Names<UserId>,
}

impl Bindings {
    /// Indexes the bindings. Everything that can be wrong with one was refused when its spec was read.
    #[must_use]
    pub fn compile(bindings: Vec<(BindingName, BindingSpec)>) -> Self {
        let mut by_workload: HashMap<Workload, Vec<Bound>> = HashMap::new();
        for (binding, spec) in bindings {
            for workload in spec.workloads {
                by_workload.entry(workload).or_default().push(Bound {
                    binding: binding.clone(),
                    tenants: spec.tenants.clone(),
                    roles: spec.roles.clone(),
                    users: spec.users.clone(),
                });
            }
        }
        Self { by_workload }
    }

    /// Whether some binding lets the workload speak for the subject.
    #[must_use]
    pub fn allows(&self, workload: &Workload, subject: &Subject) -> bool {
        self.allowing(workload, subject).is_some()
    }

    /// Whether any binding names the workload.
    #[must_use]
    pub fn binds(&self, workload: &Workload) -> bool {
        self.by_workload.contains_key(workload)
    }

    /// Whether some binding gives the workload this tenant, in whichever role.
    #[must_use]
    pub fn reaches(&self, workload: &Workload, tenant: &TenantId) -> bool {
        self.by_workload.get(workload).into_iter().flatten().any(|bound| bound.tenants.contains(tenant))
    }

    /// The first binding that lets the workload speak for the subject. One binding must cover tenant, role and
    /// user together: two that cover them apart do not add up.
    #[must_use]
    pub fn allowing(&self, workload: &Workload, subject: &Subject) -> Option<&BindingName> {
        let bound = self.by_workload.get(workload)?.iter().find(|bound| {
            bound.tenants.contains(&subject.tenant)
                && bound.roles.contains(&subject.role)
                && subject.user.as_ref().is_none_or(|user| bound.users.contains(user))
        })?;
        Some(&bound.binding)
    }
}

impl<T: Ord> Names<T> {
    /// Whether the name is among these.
    #[must_use]
    pub fn contains(&self, name: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

impl<T> Default for Names<T> {
    /// No name at all.
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl<'de, T: Deserialize<'de> + TryFrom<String, Error: fmt::Display> + Ord> Deserialize<'de> for Names<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(NamesVisitor(PhantomData))
    }
}

struct NamesVisitor<T>(PhantomData<T>);

impl<'de, T: TryFrom<String, Error: fmt::Display> + Ord> Visitor<'de> for NamesVisitor<T> {
    type Value = Names<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names, or [\"*\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names<T>, A::Error> {
        let mut any = false;
        let mut names = BTreeSet::new();
        while let Some(name) = seq.next_element::<String>()? {
            if name == "*" {
                any = true;
            } else {
                names.insert(T::try_from(name).map_err(serde::de::Error::custom)?);
            }
        }
        match (any, names.is_empty()) {
            (true, true) => Ok(Names::Any),
            (true, false) => Err(serde::de::Error::custom("\"*\" means every name: list it alone")),
            (false, _) => Ok(Names::Only(names)),
        }
    }
}

fn some_names<'de, D, T>(deserializer: D) -> Result<Names<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + TryFrom<String, Error: fmt::Display> + Ord,
{
    match Names::deserialize(deserializer)? {
        Names::Only(names) if names.is_empty() => {
            Err(serde::de::Error::custom("an empty list allows nothing: list names, or \"*\""))
        }
        names => Ok(names),
    }
}

fn some_workloads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Workload>, D::Error> {
    let workloads = Vec::deserialize(deserializer)?;
    if workloads.is_empty() {
        return Err(serde::de::Error::custom(
            "an empty list binds no workload: list one, such as {local: true}",
        ));
    }
    Ok(workloads)
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{name, subject},
        *,
    };

    const CREW: &str = "
        workloads: [{serviceAccount: agents/crew}, {local: true}]
        tenants: [acme]
        roles: [researcher, publisher]
        users: ['*']";
    const BATCH: &str = "
        workloads: [{local: true}]
        tenants: [globex]
        roles: ['*']
        users: [bob]";
    const NO_USERS: &str = "
        workloads: [{spiffe: 'spiffe://acme/cron'}]
        tenants: ['*']
        roles: [sweeper]";

    fn spec(yaml: &str) -> Result<BindingSpec, String> {
        serde_saphyr::from_str(yaml).map_err(|e| e.to_string())
    }

    fn bindings() -> Bindings {
        let named = [("crew", CREW), ("batch", BATCH), ("cron", NO_USERS)];
        Bindings::compile(named.into_iter().map(|(n, yaml)| (name(n), spec(yaml).unwrap())).collect())
    }

    #[test]
    fn a_workload_speaks_within_its_bindings_only() {
        let bindings = bindings();
        let local = Workload::Local;
        let crew = Workload::service_account("agents/crew").unwrap();
        let cron = Workload::spiffe("spiffe://acme/cron").unwrap();
        let stranger = Workload::service_account("agents/other").unwrap();
        let table = [
            (&local, subject("acme", "researcher", None), true),
            (&local, subject("acme", "researcher", Some("alice")), true),
            (&local, subject("acme", "publisher", Some("bob")), true),
            (&local, subject("acme", "writer", None), false),
            (&local, subject("globex", "writer", Some("bob")), true),
            (&local, subject("globex", "writer", None), true),
            (&local, subject("globex", "writer", Some("alice")), false),
            (&local, subject("initech", "researcher", None), false),
            (&crew, subject("acme", "researcher", Some("alice")), true),
            (&crew, subject("globex", "researcher", Some("bob")), false),
            (&cron, subject("initech", "sweeper", None), true),
            (&cron, subject("initech", "sweeper", Some("alice")), false),
            (&stranger, subject("acme", "researcher", None), false),
        ];
        for (workload, subject, allowed) in table {
            assert_eq!(bindings.allows(workload, &subject), allowed, "{workload} {subject:?}");
        }
    }

    #[test]
    fn two_bindings_do_not_add_up_to_a_third() {
        // acme from one, writer from the other.
        assert_eq!(bindings().allowing(&Workload::Local, &subject("acme", "writer", Some("bob"))), None);
        let both = subject("globex", "writer", Some("bob"));
        assert_eq!(bindings().allowing(&Workload::Local, &both).unwrap().as_str(), "batch");
    }

    #[test]
    fn no_bindings_allow_nothing() {
        assert!(!Bindings::default().allows(&Workload::Local, &subject("acme", "researcher", None)));
    }

    #[test]
    fn a_workload_reaches_the_tenants_of_all_its_bindings() {
        let bindings = bindings();
        let (crew, cron) = (
            Workload::service_account("agents/crew").unwrap(),
            Workload::spiffe("spiffe://acme/cron").unwrap(),
        );
        let stranger = Workload::service_account("agents/other").unwrap();
        let reached = |workload: &Workload| {
            ["acme", "globex", "initech"].map(|tenant| bindings.reaches(workload, &name(tenant)))
        };
        assert_eq!(reached(&Workload::Local), [true, true, false]);
        assert_eq!(reached(&crew), [true, false, false]);
        assert_eq!(reached(&cron), [true, true, true]);
        assert_eq!(reached(&stranger), [false, false, false]);
        assert_eq!([&crew, &stranger].map(|workload| bindings.binds(workload)), [true, false]);
    }

    #[test]
    fn names_are_matched_whole_and_by_case() {
        let bindings = bindings();
        for tenant in ["Acme", "acm", "acme2"] {
            assert!(!bindings.allows(&Workload::Local, &subject(tenant, "researcher", None)), "{tenant}");
        }
    }

    #[test]
    fn specs_that_would_allow_nothing_or_more_than_meant_are_refused() {
        for bad in [
            "{workloads: [], tenants: [a], roles: [b]}",
            "{workloads: [{local: true}], tenants: [], roles: [b]}",
            "{workloads: [{local: true}], tenants: [a], roles: []}",
            "{workloads: [{local: true}], tenants: [a]}",
            "{workloads: [{local: true}], tenants: [a], roles: [b], user: ['*']}",
            "{workloads: [{local: true}], tenants: ['ac*'], roles: [b]}",
            "{workloads: [{local: true}], tenants: ['*', a], roles: [b]}",
            "{workloads: [{local: true}], tenants: a, roles: [b]}",
        ] {
            assert!(spec(bad).is_err(), "{bad}");
        }
        assert!(spec("{workloads: [{local: true}], tenants: [a], roles: [b], users: []}").is_ok());
    }
}
