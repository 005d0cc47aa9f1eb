//! What of a policy one workload is handed, whose own proxy decides by it.
//!
//! Every connector; of the bindings those that name the workload; of the roles those that such a binding gives it, and
//! of their tenants no others. Whoever takes a workload over learns no other tenant's name and nobody else's rights.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Ruleset,
    files::{File, revision},
    sheet::Sheet,
};
use crate::{
    id::RoleName,
    identity::{BindingSpec, Names, Workload},
};

/// Policy files for somebody else to decide by, with their revision. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Names the content.
    pub revision: Arc<str>,
    /// In the order in which they are read.
    pub files: Vec<File>,
}

impl Ruleset {
    /// What a workload is handed.
    ///
    /// For every subject that the workload may speak for, the excerpt decides what the whole decides, by the same rule
    /// at the same file and line; every other subject is refused. Bindings are for the local workload there, since a
    /// proxy in the workload's own pod knows it as that. Comments are left out.
    #[must_use]
    pub fn excerpt(&self, workload: &Workload) -> Excerpt {
        let sheets = self.sheets.get_or_init(|| self.files.iter().map(Sheet::read).collect());
        let bindings = sheets.iter().flat_map(Sheet::bindings);
        let given = Given(bindings.filter(|spec| spec.workloads.contains(workload)).collect());
        let files: Vec<File> = sheets.iter().filter_map(|sheet| sheet.excerpt(workload, &given)).collect();
        Excerpt { revision: revision(&files), files }
    }
}

/// The bindings that name a workload.
pub(super) struct Given<'a>(Vec<&'a BindingSpec>);

impl Given<'_> {
    /// Of a role's tenants those that it is given for.
    pub(super) fn tenants(&self, role: &RoleName, of_role: &[String]) -> Vec<String> {
        let giving = self.0.iter().filter(|binding| binding.roles.contains(role));
        let mut given = BTreeSet::new();
        for binding in giving {
            match &binding.tenants {
                Names::Any => return of_role.to_vec(),
                Names::Only(tenants) => given.extend(tenants.iter().map(ToString::to_string)),
            }
        }
        if of_role.iter().any(|tenant| tenant == "*") {
            return given.into_iter().collect();
        }
        of_role.iter().filter(|tenant| given.contains(*tenant)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::{prelude::*, sample::subsequence};

    use super::{
        super::{Decision, Explanation, files::Files},
        *,
    };
    use crate::id::Subject;

    const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
    const ROLES: [&str; 3] = ["reader", "writer", "auditor"];
    const USERS: [&str; 2] = ["alice", "bob"];

    const CRM: &str = r##"# made for acme and globex
apiVersion: keybearer.dev/v1 # not for initech
kind: Connector
metadata: {name: crm}
# globex's
spec:
  hosts: [api.crm.example] # umbrella asked for it
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {items:read: ["#1 of 2", 'a # b'], items:write: []}
  operations:
    # acme's first
    - {name: item.get, request: "GET /items/{id}", scopes: [items:read]}
    - {name: item.put, request: "PUT /items/{id}", scopes: [items:write]}
  # umbrella's end
"##;

    fn rules(files: &[(&str, &str)]) -> Ruleset {
        let file = |(name, text): &(&str, &str)| File { name: (*name).to_owned(), text: (*text).to_owned() };
        read(&files.iter().map(file).collect::<Vec<_>>())
    }

    fn read(files: &[File]) -> Ruleset {
        let read = Ruleset::from_files(Files { all: files.to_vec(), ..Files::default() });
        read.unwrap_or_else(|error| panic!("{error}\n{files:#?}"))
    }

    fn crew() -> Workload {
        Workload::service_account("agents/crew").unwrap()
    }

    fn cron() -> Workload {
        Workload::spiffe("spiffe://mesh/cron").unwrap()
    }

    fn subject(tenant: &str, role: &str, user: Option<&str>) -> Subject {
        Subject {
            tenant: tenant.parse().unwrap(),
            role: role.parse().unwrap(),
            user: user.map(|user| user.parse().unwrap()),
        }
    }

    #[test]
    fn a_workload_is_handed_its_own_on_the_lines_where_it_stands() {
        let all = format!(
            "# acme, globex\n---\napiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {{name: reader}}\nspec:\n  \
             deny:\n    - connector: crm\n      operations: [item.put]\n  tenants: [globex, acme]   # both\n  grants:\n\
             \n    # globex wants this\n    - {{connector: crm, as: role, scopes: [items:read]}}\n    - connector: crm\n      \
             as: user\n...\n{CRM}---\napiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {{name: crew}}\nspec:\n  \
             workloads: [{{serviceAccount: agents/crew}}, {{spiffe: 'spiffe://mesh/other'}}]\n  tenants: [acme]\n  \
             roles: [reader]\n"
        );
        let excerpt = rules(&[("policies/all.yaml", &all)]).excerpt(&crew());
        let [file] = &excerpt.files[..] else { panic!("{excerpt:#?}") };
        assert_eq!(file.name, "policies/all.yaml");
        let lines: Vec<&str> = file.text.lines().collect();
        assert_eq!(lines[0], "");
        assert!(
            lines[1].starts_with(r#"--- {"apiVersion":"keybearer.dev/v1","kind":"Role""#),
            "{}",
            file.text
        );
        assert!(lines[7].contains(r#"{"connector":"crm","operations":["item.put"]}"#), "{}", file.text);
        assert!(
            lines[13].contains(r#"{"connector":"crm","as":"role","scopes":["items:read"]}"#),
            "{}",
            file.text
        );
        assert_eq!(lines[16..18], ["...", ""]);
        assert_eq!(lines[18], "apiVersion: keybearer.dev/v1", "the connector stands where it stood");
        assert!(lines[26].contains(r##"["#1 of 2", 'a # b']"##), "what is no comment stays: {}", lines[26]);
        assert!(
            file.text.contains(r#""workloads":[{"local":true}]"#)
                && file.text.contains(r#""tenants":["acme"]"#)
        );
        for other in ["globex", "initech", "umbrella", "mesh", "agents/crew"] {
            assert!(!file.text.contains(other), "{other}\n{}", file.text);
        }
    }

    #[test]
    fn a_workload_without_a_binding_is_handed_connectors_only() {
        let role =
            "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {name: reader}\nspec: {tenants: ['*']}\n";
        let binding = "apiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {name: local}\n\
                       spec: {workloads: [{local: true}], tenants: ['*'], roles: ['*'], users: ['*']}\n";
        let excerpt =
            rules(&[("globex.yaml", role), ("crm.yaml", CRM), ("b.yaml", binding)]).excerpt(&crew());
        assert_eq!(excerpt.files.iter().map(|file| &*file.name).collect::<Vec<_>>(), ["crm.yaml"]);
    }

    #[test]
    fn a_change_that_does_not_concern_a_workload_leaves_its_revision() {
        let of = |tenant: &str| {
            let role = format!(
                "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {{name: reader}}\nspec: {{tenants: [acme, {tenant}]}}\n"
            );
            let binding = "apiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {name: crew}\n\
                           spec: {workloads: [{serviceAccount: agents/crew}], tenants: [acme], roles: [reader]}\n";
            let rules = rules(&[("role.yaml", &role), ("crm.yaml", CRM), ("b.yaml", binding)]);
            (rules.revision.clone(), rules.excerpt(&crew()).revision)
        };
        let (first, second) = (of("globex"), of("initech"));
        assert_ne!(first.0, second.0);
        assert_eq!(first.1, second.1);
    }

    fn tenants() -> impl Strategy<Value = Vec<&'static str>> {
        prop_oneof![1 => Just(vec!["*"]), 4 => subsequence(&TENANTS[..], 1..=3)]
    }

    /// A role with one to four rules, in one of the ways in which people write them.
    fn role(name: &'static str) -> impl Strategy<Value = String> {
        let grant = ("role|tenant|user", subsequence(vec!["items:read", "items:write"], 0..=2)).prop_map(
            |(principal, scopes)| {
                format!("{{connector: crm, as: {principal}, scopes: [{}]}}", scopes.join(", "))
            },
        );
        let deny = prop_oneof![
            Just("{connector: crm, operations: [item.put]}".to_owned()),
            Just("{connector: crm}".to_owned())
        ];
        let rules = (prop::collection::vec(grant, 0..3), prop::collection::vec(deny, 0..2));
        (tenants(), rules, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            move |(tenants, (grants, deny), deny_first, on_one_line, is_observed)| {
                let list = |key: &str, rules: &[String]| match (rules, on_one_line) {
                    ([], _) => String::new(),
                    (rules, true) => format!("  {key}: [{}] # umbrella's\n", rules.join(", ")),
                    (rules, false) => {
                        let items: Vec<_> =
                            rules.iter().map(|rule| format!("    # globex's, acme's\n    - {rule}\n")).collect();
                        format!("  {key}:\n{}", items.concat())
                    }
                };
                let lists = [list("grants", &grants), list("deny", &deny)];
                let lists = if deny_first { [&*lists[1], &*lists[0]] } else { [&*lists[0], &*lists[1]] };
                let mode = if is_observed { "  mode: observe\n" } else { "" };
                format!(
                    "# initech's\napiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {{name: {name}}}\nspec:\n{}  tenants: {tenants:?}\n{mode}{}",
                    lists[0], lists[1]
                )
            },
        )
    }

    fn binding(name: &'static str) -> impl Strategy<Value = String> {
        let workloads = vec![
            "{serviceAccount: agents/crew}",
            "{spiffe: 'spiffe://mesh/cron'}",
            "{local: true}",
            "{serviceAccount: agents/other}",
        ];
        let roles = prop_oneof![1 => Just(vec!["*"]), 4 => subsequence(&ROLES[..], 1..=2)];
        let users = prop_oneof![1 => Just(vec!["*"]), 2 => subsequence(&USERS[..], 0..=2)];
        (subsequence(workloads, 1..=3), tenants(), roles, users).prop_map(
            move |(workloads, tenants, roles, users)| {
                format!(
                    "apiVersion: keybearer.dev/v1\nkind: Binding # umbrella\nmetadata: {{name: {name}}}\nspec:\n  workloads: [{}]\n  \
                     tenants: {tenants:?}\n  roles: {roles:?}\n  users: {users:?}\n",
                    workloads.join(", ")
                )
            },
        )
    }

    /// The documents in some order, spread over some files, parted in one way or the other.
    fn policy() -> impl Strategy<Value = Vec<File>> {
        let documents = (
            (role("reader"), role("writer"), role("auditor")),
            (binding("one"), binding("two"), binding("three")),
        );
        let documents = documents.prop_map(|((a, b, c), (d, e, f))| vec![a, b, c, d, e, f, CRM.to_owned()]);
        let documents = documents.prop_flat_map(|documents| Just(documents).prop_shuffle());
        (documents, 1_usize..4, any::<bool>()).prop_map(|(documents, size, is_ended)| {
            let part = if is_ended { "...\n# acme\n" } else { "---\n# globex\n---\n" };
            let text = |(index, documents): (usize, &[String])| File {
                name: format!("policies/{index}.yaml"),
                text: documents.join(part),
            };
            documents.chunks(size).enumerate().map(text).collect()
        })
    }

    fn subjects() -> impl Iterator<Item = Subject> {
        let users = || std::iter::once(None).chain(USERS.map(Some));
        let of_tenant = move |tenant| {
            ROLES.into_iter().flat_map(move |role| users().map(move |user| subject(tenant, role, user)))
        };
        TENANTS.into_iter().flat_map(of_tenant)
    }

    /// What is decided for three requests: by which rule, where it stands, why, and with whose account.
    fn decided(rules: &Ruleset, subject: &Subject) -> Vec<Explanation> {
        let requests = [(Method::GET, "items/1"), (Method::PUT, "items/1"), (Method::GET, "other")];
        let explain = |(method, path): &(Method, &str)| {
            let told = rules.explain(subject, method, &format!("https://api.crm.example/{path}"));
            Explanation { policy_revision: String::new(), ..told }
        };
        requests.iter().map(explain).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn an_excerpt_decides_what_the_whole_decides_and_names_nobody_else(files in policy()) {
            let whole = read(&files);
            for workload in [crew(), cron()] {
                let excerpt = whole.excerpt(&workload);
                let part = read(&excerpt.files);
                prop_assert_eq!(&part.revision, &excerpt.revision);
                for subject in subjects() {
                    let is_bound = whole.bindings.allows(&workload, &subject);
                    prop_assert_eq!(part.bindings.allows(&Workload::Local, &subject), is_bound, "{:?}", subject);
                }
                for subject in subjects().filter(|subject| whole.bindings.allows(&workload, subject)) {
                    prop_assert_eq!(decided(&part, &subject), decided(&whole, &subject));
                }
                let is_strange = |subject: &Subject| {
                    !whole.bindings.allows(&workload, &Subject { user: None, ..subject.clone() })
                };
                for subject in subjects().filter(is_strange) {
                    let told = decided(&part, &subject);
                    prop_assert!(told.iter().all(|told| told.decision == Decision::Deny), "{:?}", told);
                }
                let own = |tenant: &&str| {
                    ROLES.iter().any(|role| whole.bindings.allows(&workload, &subject(tenant, role, None)))
                };
                for other in TENANTS.iter().filter(|tenant| !own(tenant)) {
                    for file in &excerpt.files {
                        prop_assert!(!file.text.contains(other), "{}\n{}", other, file.text);
                    }
                }
            }
        }
    }
}
