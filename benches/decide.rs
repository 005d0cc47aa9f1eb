//! The policy's answer: what one decision costs among 10, 1,000 and 10,000 rules. It must cost the same.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use criterion::{BenchmarkId, Criterion};
use keybearer::{
    id::{ConnectorName, Effect, OperationName, RoleName, Scope, Subject, TenantId},
    policy::{Op, Policy, Question, RoleSpec},
};
use serde_json::{Value, json};

/// Rules in all; what does not match must cost nothing.
const RULES: [usize; 3] = [10, 1_000, 10_000];
/// Grants of a role, where there are many roles.
const GRANTS: usize = 5;

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let asked = Asked::new()?;
    let mut group = criterion.benchmark_group("decide");
    for rules in RULES {
        for (shape, policy) in [("roles", many_roles(rules)?), ("grants", one_role(rules)?)] {
            ensure!(policy.decide(asked.question(&asked.granted)).is_ok(), "{shape} {rules}: not allowed");
            ensure!(policy.decide(asked.question(&asked.denied)).is_err(), "{shape} {rules}: not denied");
            group.bench_function(BenchmarkId::new(format!("allow/{shape}"), rules), |bencher| {
                bencher.iter(|| policy.decide(asked.question(&asked.granted)));
            });
            group.bench_function(BenchmarkId::new(format!("deny/{shape}"), rules), |bencher| {
                bencher.iter(|| policy.decide(asked.question(&asked.denied)));
            });
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// The same question to every policy.
struct Asked {
    subject: Subject,
    connector: ConnectorName,
    granted: OperationName,
    denied: OperationName,
    scopes: Arc<[Scope]>,
}

impl Asked {
    fn new() -> Result<Self> {
        Ok(Self {
            subject: Subject { tenant: TenantId::new("acme")?, role: RoleName::new("role0")?, user: None },
            connector: ConnectorName::new("connector0")?,
            granted: OperationName::new("item.get")?,
            denied: OperationName::new("item.delete")?,
            scopes: Arc::from([Scope::new("items:read")?]),
        })
    }

    fn question<'a>(&'a self, operation: &'a OperationName) -> Question<'a> {
        let op = Op { name: operation, effect: Effect::Read, scopes: &self.scopes };
        Question { subject: &self.subject, connector: &self.connector, operation: Some(op) }
    }
}

/// Many roles with a few grants and one deny line each.
fn many_roles(rules: usize) -> Result<Policy> {
    let count = rules.div_ceil(GRANTS + 1);
    compile((0..count).map(|role| (format!("role{role}"), role_with(GRANTS))))
}

/// One role that has them all.
fn one_role(rules: usize) -> Result<Policy> {
    compile([("role0".to_owned(), role_with(rules - 1))])
}

fn role_with(grants: usize) -> Value {
    let grants: Vec<Value> = (0..grants)
        .map(|grant| {
            let scopes = ["items:read", "items:write"];
            json!({"connector": format!("connector{grant}"), "as": "role", "scopes": scopes})
        })
        .collect();
    let deny = json!([{"connector": "connector0", "operations": ["item.delete"]}]);
    json!({"tenants": ["acme"], "grants": grants, "deny": deny})
}

fn compile(roles: impl IntoIterator<Item = (String, Value)>) -> Result<Policy> {
    let roles = roles
        .into_iter()
        .map(|(name, spec)| {
            let spec: RoleSpec = serde_json::from_value(spec).context("the role")?;
            Ok((RoleName::new(&name)?, spec))
        })
        .collect::<Result<Vec<_>>>()?;
    Policy::compile(roles).map_err(|problems| anyhow!("{problems:?}"))
}
