use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::id::{TenantId, UserId};

fn subject(tenant: &str, role: &str, user: Option<&str>) -> Subject {
    Subject {
        tenant: TenantId::new(tenant).unwrap(),
        role: RoleName::new(role).unwrap(),
        user: user.map(|user| UserId::new(user).unwrap()),
    }
}

fn policy(roles: &[(&str, &str)]) -> Policy {
    let roles = roles
        .iter()
        .map(|(name, spec)| (RoleName::new(name).unwrap(), serde_saphyr::from_str(spec).unwrap()))
        .collect();
    Policy::compile(roles).unwrap()
}

fn problems(spec: &str) -> Vec<String> {
    let role = (RoleName::new("r").unwrap(), serde_saphyr::from_str(spec).unwrap());
    Policy::compile(vec![role]).unwrap_err().iter().map(ToString::to_string).collect()
}

fn ask(
    policy: &Policy,
    subject: &Subject,
    connector: &str,
    op: Option<(&str, &[&str])>,
) -> Result<Permit, Denial> {
    let connector = ConnectorName::new(connector).unwrap();
    let op = op.map(|(name, scopes)| {
        let scopes: Arc<[Scope]> = scopes.iter().map(|scope| Scope::new(scope).unwrap()).collect();
        (OperationName::new(name).unwrap(), scopes)
    });
    let operation = op.as_ref().map(|(name, scopes)| Op { name, effect: Effect::Write, scopes });
    policy.decide(Question { subject, connector: &connector, operation })
}

fn names(scopes: &[Scope]) -> Vec<&str> {
    scopes.iter().map(Scope::as_str).collect()
}

const RESEARCHER: &str = r#"
tenants: ["*"]
grants:
  - {connector: salesforce, as: role, scopes: [accounts:read, opportunities:read]}
  - {connector: github, as: user, scopes: [issues:read], operations: [issue.list, issue.get]}
  - {connector: github, as: tenant, scopes: [issues:read, issues:write], operations: [issue.list]}
deny:
  - {connector: salesforce, operations: [record.delete]}
"#;

#[test]
fn an_empty_policy_refuses_everything() {
    let anyone = subject("acme", "researcher", Some("alice"));
    for op in [None, Some(("issue.list", &[][..])), Some(("issue.list", &["issues:read"][..]))] {
        let denial = ask(&Policy::default(), &anyone, "github", op).unwrap_err();
        assert_eq!((denial.why(), denial.code()), (&Why::NoRole, "policy_denied"));
        assert_eq!(denial.rule().as_str(), "default");
    }
}

#[test]
fn a_permit_names_the_account_the_rule_and_the_scopes() {
    let policy = policy(&[("researcher", RESEARCHER)]);
    let who = subject("acme", "researcher", None);
    let permit =
        ask(&policy, &who, "salesforce", Some(("opportunity.get", &["opportunities:read"]))).unwrap();
    assert_eq!(permit.account().to_string(), "acme/salesforce/role:researcher");
    assert_eq!(permit.rule().as_str(), "researcher/grants/0");
    assert_eq!(permit.subject(), &who);
    assert_eq!(permit.operation().unwrap().as_str(), "opportunity.get");
    assert_eq!(permit.effect(), Some(Effect::Write));
    assert_eq!(names(permit.scopes()), ["opportunities:read"]);
    assert_eq!(names(permit.granted()), ["accounts:read", "opportunities:read"]);
    assert_eq!(permit.would_deny(), None);
}

#[test]
fn a_missing_scope_is_named_in_the_first_words() {
    let policy = policy(&[("researcher", RESEARCHER)]);
    let who = subject("acme", "researcher", None);
    let op = Some(("opportunity.update", &["opportunities:read", "opportunities:write"][..]));
    let denial = ask(&policy, &who, "salesforce", op).unwrap_err();
    assert_eq!(denial.code(), "insufficient_scope");
    let shortfall = denial.shortfall().unwrap();
    assert_eq!(names(&shortfall.required), ["opportunities:read", "opportunities:write"]);
    assert_eq!(names(&shortfall.granted), ["accounts:read", "opportunities:read"]);
    assert_eq!(names(&shortfall.missing), ["opportunities:write"]);
    assert_eq!(denial.rule().as_str(), "researcher/grants/0");
    assert_eq!(
        denial.to_string(),
        "insufficient_scope: opportunities:write required for opportunity.update on salesforce; \
         role researcher holds accounts:read, opportunities:read"
    );
}

#[test]
fn an_operation_outside_every_grant_is_refused_although_the_scopes_would_suffice() {
    let policy = policy(&[("researcher", RESEARCHER)]);
    let who = subject("acme", "researcher", Some("alice"));
    let denial = ask(&policy, &who, "github", Some(("issue.search", &["issues:read"]))).unwrap_err();
    assert_eq!((denial.why(), denial.code()), (&Why::OperationNotGranted, "policy_denied"));
    let denial = ask(&policy, &who, "github", Some(("meta.get", &[]))).unwrap_err();
    assert_eq!(denial.why(), &Why::OperationNotGranted, "no scope required is no exception");
}

#[test]
fn principals_are_tried_in_file_order_and_never_added_up() {
    let policy = policy(&[(
        "r",
        r"
tenants: [acme]
grants:
  - {connector: crm, as: user, scopes: [a]}
  - {connector: crm, as: tenant, scopes: [b]}
  - {connector: crm, as: user, scopes: [c]}
",
    )]);
    let alice = subject("acme", "r", Some("alice"));
    let account = |scopes: &[&str]| {
        ask(&policy, &alice, "crm", Some(("x", scopes))).map(|permit| permit.account().principal.to_string())
    };
    assert_eq!(account(&[]).unwrap(), "user:alice/r");
    assert_eq!(account(&["a", "c"]).unwrap(), "user:alice/r", "two grants of one principal add up");
    assert_eq!(account(&["b"]).unwrap(), "tenant");
    let denial = account(&["a", "b"]).unwrap_err();
    assert_eq!(names(&denial.shortfall().unwrap().missing), ["b"], "the first of those that come nearest");
}

#[test]
fn a_users_account_needs_a_user() {
    let policy = policy(&[("researcher", RESEARCHER)]);
    let nobody = subject("acme", "researcher", None);
    let denial = ask(&policy, &nobody, "github", Some(("issue.get", &["issues:read"]))).unwrap_err();
    assert_eq!((denial.why(), denial.rule().as_str()), (&Why::UserRequired, "researcher/grants/1"));
    assert!(denial.to_string().ends_with("send it with user=\"...\""), "{denial}");
    let permit = ask(&policy, &nobody, "github", Some(("issue.list", &["issues:read"]))).unwrap();
    assert_eq!(permit.account().principal, Principal::Tenant, "the next principal serves without one");
}

#[test]
fn a_role_does_not_exist_outside_its_tenants() {
    let spec = "{tenants: [acme, globex], grants: [{connector: crm, as: role}]}";
    let policy = policy(&[("r", spec)]);
    for (tenant, exists) in [("acme", true), ("globex", true), ("initech", false), ("Acme", false)] {
        assert_eq!(ask(&policy, &subject(tenant, "r", None), "crm", Some(("x", &[]))).is_ok(), exists);
    }
    let denial = ask(&policy, &subject("initech", "r", None), "crm", None).unwrap_err();
    assert_eq!(denial.why(), &Why::NoRole);
}

#[test]
fn a_request_that_is_no_operation_is_unknown_only_to_those_who_may_use_the_connector() {
    let policy = policy(&[("researcher", RESEARCHER)]);
    let who = subject("acme", "researcher", None);
    assert_eq!(ask(&policy, &who, "salesforce", None).unwrap_err().code(), "operation_unknown");
    assert_eq!(ask(&policy, &who, "slack", None).unwrap_err().why(), &Why::NotGranted);
}

#[test]
fn a_denied_connector_is_denied_whole() {
    let spec =
        "{tenants: ['*'], grants: [{connector: crm, as: role, scopes: [a]}], deny: [{connector: crm}]}";
    let policy = policy(&[("r", spec)]);
    for op in [None, Some(("x", &["a"][..]))] {
        let denial = ask(&policy, &subject("acme", "r", None), "crm", op).unwrap_err();
        assert_eq!((denial.why(), denial.rule().as_str()), (&Why::Denied, "r/deny/0"));
    }
}

#[test]
fn observing_lets_refusals_of_operation_scope_and_deny_rules_through_and_says_so() {
    let spec = r"
tenants: ['*']
mode: observe
grants:
  - {connector: crm, as: user, scopes: [a], operations: [x, z]}
  - {connector: crm, as: role, scopes: [a], operations: [x]}
deny: [{connector: crm, operations: [z]}]
";
    let policy = policy(&[("r", spec)]);
    let alice = subject("acme", "r", Some("alice"));
    for (op, code, principal) in [
        (None, "operation_unknown", "user:alice/r"),
        (Some(("x", &["b"][..])), "insufficient_scope", "user:alice/r"),
        (Some(("y", &["a"][..])), "policy_denied", "user:alice/r"),
        (Some(("z", &["a"][..])), "policy_denied", "user:alice/r"),
    ] {
        let permit = ask(&policy, &alice, "crm", op).unwrap();
        assert_eq!(permit.would_deny().unwrap().code(), code, "{op:?}");
        assert_eq!(permit.account().principal.to_string(), principal, "{op:?}");
    }
    assert_eq!(ask(&policy, &alice, "crm", Some(("x", &["a"]))).unwrap().would_deny(), None);
    let nobody = subject("acme", "r", None);
    let permit = ask(&policy, &nobody, "crm", Some(("z", &["a"]))).unwrap();
    assert_eq!(permit.account().principal.to_string(), "role:r", "without a user, the next principal");
}

#[test]
fn observing_keeps_refusals_of_role_connector_and_user() {
    let spec = r"
tenants: [acme]
mode: observe
grants: [{connector: crm, as: user, scopes: [a]}, {connector: crm, as: role, scopes: [b]}]
deny: [{connector: slack}]
";
    let policy = policy(&[("r", spec)]);
    let why = |tenant, connector| {
        ask(&policy, &subject(tenant, "r", None), connector, Some(("x", &["a"]))).unwrap_err().why().clone()
    };
    assert_eq!(why("globex", "crm"), Why::NoRole);
    assert_eq!(why("acme", "github"), Why::NotGranted);
    assert_eq!(why("acme", "slack"), Why::Denied, "nobody said whose account to use");
    assert_eq!(why("acme", "crm"), Why::UserRequired);
}

#[test]
fn what_is_not_built_yet_is_refused_and_never_read_over() {
    let spec = r"
tenants: ['*']
grants:
  - {connector: crm, as: role, when: 'true', rate: 60/min, approve: [destructive]}
  - {connector: crm, as: role, when: }
";
    assert_eq!(
        problems(spec),
        [
            "spec.grants[0].when: not supported yet: when (conditions on the request; narrow with operations)",
            "spec.grants[0].rate: not supported yet: rate (rate limits)",
            "spec.grants[0].approve: not supported yet: approve (approval by a person; leave the operation out or deny it)",
            "spec.grants[1].when: not supported yet: when (conditions on the request; narrow with operations)",
        ]
    );
}

#[test]
fn empty_lists_that_could_mean_all_or_nothing_are_refused() {
    let spec = r"
tenants: []
grants: [{connector: crm, as: role, operations: }]
deny: [{connector: crm, operations: []}]
";
    assert_eq!(
        problems(spec),
        [
            "spec.grants[0].operations: operations is empty: name some, or leave it out to grant all that the scopes allow",
            "spec.deny[0].operations: operations is empty: name some, or leave it out to deny the whole connector",
            "spec.tenants: no tenant is named: write [\"*\"] for all of them",
        ]
    );
    assert_eq!(
        problems("tenants: [acme, '*', 'a/b']"),
        [
            "spec.tenants[1]: `*` means all tenants and stands alone",
            "spec.tenants[2]: a tenant cannot contain '/': use letters, digits and . _ - @ : + = ~ ! $ |",
        ]
    );
}

const CONNECTORS: [&str; 2] = ["crm", "git"];
const OPERATIONS: [&str; 3] = ["x", "y", "z"];
const SCOPES: [&str; 3] = ["a", "b", "c"];

fn some_grant() -> impl Strategy<Value = GrantSpec> {
    let kind = prop_oneof![
        Just(PrincipalKind::Developer),
        Just(PrincipalKind::Tenant),
        Just(PrincipalKind::Role),
        Just(PrincipalKind::User)
    ];
    let operations = proptest::option::of(subsequence(&OPERATIONS[..], 1..=3));
    (0..2usize, kind, subsequence(&SCOPES[..], 0..=3), operations).prop_map(
        |(connector, principal, scopes, operations)| GrantSpec {
            connector: ConnectorName::new(CONNECTORS[connector]).unwrap(),
            principal,
            scopes: scopes.iter().map(|scope| Scope::new(scope).unwrap()).collect(),
            operations: operations
                .map(|operations| operations.iter().map(|name| OperationName::new(name).unwrap()).collect()),
            when: Unsupported::default(),
            rate: Unsupported::default(),
            approve: Unsupported::default(),
        },
    )
}

fn some_deny() -> impl Strategy<Value = DenySpec> {
    (0..2usize, proptest::option::weighted(0.9, subsequence(&OPERATIONS[..], 1..=2))).prop_map(
        |(connector, operations)| DenySpec {
            connector: ConnectorName::new(CONNECTORS[connector]).unwrap(),
            operations: operations
                .map(|operations| operations.iter().map(|name| OperationName::new(name).unwrap()).collect()),
        },
    )
}

use crate::document::Unsupported;

/// The contract's sentences, read one rule at a time.
fn allowed_by_the_book(role: &RoleSpec, connector: &str, op: &str, scopes: &[&str], has_user: bool) -> bool {
    let names = |operations: &Option<Vec<OperationName>>| {
        operations.as_ref().is_none_or(|operations| operations.iter().any(|name| name.as_str() == op))
    };
    let denied = role.deny.iter().any(|d| d.connector.as_str() == connector && names(&d.operations));
    let kinds = [PrincipalKind::Developer, PrincipalKind::Tenant, PrincipalKind::Role, PrincipalKind::User];
    let granted = kinds.into_iter().filter(|kind| has_user || *kind != PrincipalKind::User).any(|kind| {
        let mut applicable = role
            .grants
            .iter()
            .filter(|g| g.principal == kind && g.connector.as_str() == connector && names(&g.operations))
            .peekable();
        let some = applicable.peek().is_some();
        let held: Vec<&str> = applicable.flat_map(|g| &g.scopes).map(Scope::as_str).collect();
        some && scopes.iter().all(|scope| held.contains(scope))
    });
    granted && !denied
}

fn compiled(role: &RoleSpec, others: usize) -> Policy {
    let mut roles = vec![(RoleName::new("r").unwrap(), role.clone())];
    let permissive: RoleSpec =
        serde_saphyr::from_str("{tenants: ['*'], grants: [{connector: crm, as: role, scopes: [a, b, c]}]}")
            .unwrap();
    for other in 0..others {
        roles.insert(0, (RoleName::new(&format!("other{other}")).unwrap(), permissive.clone()));
    }
    Policy::compile(roles).unwrap()
}

proptest! {
    #[test]
    fn decisions_follow_the_book_whatever_the_order_of_rules_and_roles(
        (grants, shuffled_grants) in proptest::collection::vec(some_grant(), 0..8)
            .prop_flat_map(|grants| (Just(grants.clone()), Just(grants).prop_shuffle())),
        (deny, shuffled_deny) in proptest::collection::vec(some_deny(), 0..3)
            .prop_flat_map(|deny| (Just(deny.clone()), Just(deny).prop_shuffle())),
        scopes in subsequence(&SCOPES[..], 0..=3),
        has_user: bool,
        others in 0..3usize,
    ) {
        let role = |grants, deny| RoleSpec { tenants: vec!["*".into()], mode: Mode::Enforce, grants, deny };
        let (one, other) = (role(grants, deny), role(shuffled_grants, shuffled_deny));
        let (first, second) = (compiled(&one, 0), compiled(&other, others));
        let who = subject("acme", "r", has_user.then_some("alice"));
        for connector in CONNECTORS {
            for op in OPERATIONS {
                let book = allowed_by_the_book(&one, connector, op, &scopes, has_user);
                let answer = ask(&first, &who, connector, Some((op, &scopes)));
                prop_assert_eq!(answer.is_ok(), book, "{} {} {:?}", connector, op, answer);
                let shuffled = ask(&second, &who, connector, Some((op, &scopes)));
                prop_assert_eq!(shuffled.is_ok(), book);
                if let (Err(answer), Err(shuffled)) = (answer, shuffled) {
                    prop_assert_eq!(answer.code(), shuffled.code());
                }
            }
        }
    }
}
