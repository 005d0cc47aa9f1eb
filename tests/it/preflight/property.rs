//! For any policy, accounts and request: what preflight says is what the request is told.

use std::{collections::BTreeSet, fmt::Write as _, sync::LazyLock};

use keybearer::{
    id::{Principal, RoleName, Scope, UserId},
    vault::NewAccount,
};
use proptest::{prelude::*, sample::subsequence};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{foretold, post, told, without};
use crate::support::{
    agent::{Body, Connection, absolute},
    stage::{Stage, Staging, account},
};

const TENANTS: [&str; 2] = ["acme", "globex"];
const ROLES: [&str; 3] = ["r0", "r1", "nobody"];
const SCOPES: [&str; 3] = ["a", "b", "c"];
const PRINCIPALS: [&str; 4] = ["developer", "tenant", "role", "user"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const PATHS: [&str; 4] = ["/echo", "/anything", "/stream/1", "/a%2fb"];
/// Name, host pattern, and hosts that fit it.
const CONNECTORS: [(&str, &str, [&str; 2]); 3] = [
    ("c0", "api.crm.test", ["api.crm.test", "api.crm.test:443"]),
    ("c1", "{instance}.fleet.test", ["na47.fleet.test", "eu1.fleet.test"]),
    ("c2", "c2.crm.test:8443", ["c2.crm.test", "c2.crm.test:443"]),
];

#[derive(Clone, Debug)]
struct Operation {
    connector: usize,
    request: (usize, usize),
    scopes: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Role {
    everywhere: bool,
    observed: bool,
    /// Connector, principal, scopes, and whether only the connector's first operation.
    grants: Vec<(usize, usize, Vec<&'static str>, bool)>,
    /// Connector, and whether only its first operation.
    deny: Vec<(usize, bool)>,
}

#[derive(Clone, Debug)]
struct Connected {
    tenant: usize,
    connector: usize,
    principal: usize,
    role: usize,
    scopes: Option<Vec<&'static str>>,
    instance: bool,
    status: usize,
}

#[derive(Clone, Debug)]
struct World {
    operations: Vec<Operation>,
    roles: Vec<Role>,
    accounts: Vec<Connected>,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    tenant: usize,
    role: usize,
    user: bool,
    connector: usize,
    /// One of the connector's hosts, or its name.
    host: usize,
    method: usize,
    path: usize,
}

fn scopes() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(&SCOPES[..], 0..=SCOPES.len())
}

fn world() -> impl Strategy<Value = World> {
    // Every method and path that a connector can have is in the list once; a part of it is taken.
    let places: Vec<(usize, usize, usize)> = (0..CONNECTORS.len())
        .flat_map(|connector| (0..METHODS.len()).map(move |method| (connector, method)))
        .flat_map(|(connector, method)| (0..3).map(move |path| (connector, method, path)))
        .collect();
    let most = places.len();
    let operations = subsequence(places, most / 2..=most).prop_flat_map(|places| {
        let each = places.into_iter().map(|(connector, method, path)| {
            subsequence(&SCOPES[..], 0..=2).prop_map(move |scopes| Operation {
                connector,
                request: (method, path),
                scopes,
            })
        });
        each.collect::<Vec<_>>()
    });
    let grant = (0..CONNECTORS.len(), 0..PRINCIPALS.len(), scopes(), prop::bool::weighted(0.2));
    let role = (
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::collection::vec(grant, 1..7),
        prop::collection::vec((0..CONNECTORS.len(), prop::bool::weighted(0.7)), 0..2),
    )
        .prop_map(|(everywhere, observed, grants, deny)| Role { everywhere, observed, grants, deny });
    let account = (
        (0..TENANTS.len(), 0..CONNECTORS.len(), 0..PRINCIPALS.len(), 0..2_usize),
        prop::option::of(scopes()),
        prop::bool::weighted(0.7),
        0..5_usize,
    )
        .prop_map(|((tenant, connector, principal, role), scopes, instance, status)| Connected {
            tenant,
            connector,
            principal,
            role,
            scopes,
            instance,
            status,
        });
    (operations, prop::collection::vec(role, 2), prop::collection::vec(account, 10..30))
        .prop_map(|(operations, roles, accounts)| World { operations, roles, accounts })
}

fn ask() -> impl Strategy<Value = Ask> {
    let who = (0..TENANTS.len(), prop::sample::select(vec![0, 0, 0, 1, 1, 1, 2]), any::<bool>());
    let what = (0..CONNECTORS.len(), 0..3_usize, 0..METHODS.len(), 0..PATHS.len());
    (who, what).prop_map(|((tenant, role, user), (connector, host, method, path))| Ask {
        tenant,
        role,
        user,
        connector,
        host,
        method,
        path,
    })
}

impl World {
    fn policy(&self) -> String {
        let mut text = String::new();
        for (index, (name, host, _)) in CONNECTORS.iter().enumerate() {
            write!(
                text,
                "apiVersion: keybearer.dev/v1\nkind: Connector\nmetadata: {{name: {name}}}\nspec:\n  hosts: [\"{host}\"]\n  \
                 auth: {{type: static}}\n  inject: [{{header: Authorization, value: \"Bearer {{token}}\"}}]\n  \
                 scopes: {{a: [], b: [], c: []}}\n  operations: ["
            )
            .unwrap();
            for operation in self.of(index) {
                let Operation { request: (method, path), scopes, .. } = operation;
                let (method, path) = (METHODS[*method], PATHS[*path]);
                let name = operation.name();
                write!(text, "{{name: {name}, request: {method} {path}, scopes: {}}}, ", json!(scopes))
                    .unwrap();
            }
            text.push_str("]\n---\n");
        }
        for (role, name) in self.roles.iter().zip(ROLES) {
            let tenants = if role.everywhere { "\"*\"" } else { "acme" };
            let mode = if role.observed { "observe" } else { "enforce" };
            write!(
                text,
                "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {{name: {name}}}\nspec:\n  tenants: [{tenants}]\n  \
                 mode: {mode}\n  grants: ["
            )
            .unwrap();
            for (connector, principal, scopes, only) in &role.grants {
                let narrowed = self.narrowed(*connector, *only);
                let (connector, principal) = (CONNECTORS[*connector].0, PRINCIPALS[*principal]);
                let scopes = json!(scopes);
                write!(text, "{{connector: {connector}, as: {principal}, scopes: {scopes}{narrowed}}}, ")
                    .unwrap();
            }
            text.push_str("]\n  deny: [");
            for (connector, only) in &role.deny {
                let narrowed = self.narrowed(*connector, *only);
                write!(text, "{{connector: {}{narrowed}}}, ", CONNECTORS[*connector].0).unwrap();
            }
            text.push_str("]\n---\n");
        }
        text.trim_end_matches("---\n").to_owned()
    }

    fn of(&self, connector: usize) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| operation.connector == connector)
    }

    fn narrowed(&self, connector: usize, only: bool) -> String {
        let first = self.of(connector).next().filter(|_| only);
        first.map_or_else(String::new, |operation| format!(", operations: [{}]", operation.name()))
    }

    async fn open(&self) -> Stage {
        let names = CONNECTORS
            .iter()
            .flat_map(|(_, _, hosts)| hosts.iter().map(|host| host.split(':').next().unwrap()));
        let mut known = BTreeSet::new();
        let accounts: Vec<(&Connected, NewAccount)> = self
            .accounts
            .iter()
            .map(|connected| (connected, connected.account()))
            .filter(|(_, account)| known.insert(account.key.to_string()))
            .collect();
        let staging = Staging {
            policies: vec![("policy.yaml", self.policy())],
            accounts: accounts.iter().map(|(_, account)| account.clone()).collect(),
            names: names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect(),
            ..Staging::default()
        };
        let stage = Stage::set(staging).await;
        for (connected, account) in accounts {
            let vault = &stage.app().vault;
            match connected.status {
                0 => drop(vault.freeze(&account.key, "on-call").await.unwrap()),
                1 => drop(vault.revoke(&account.key).await.unwrap()),
                _ => {}
            }
        }
        stage
    }
}

impl Operation {
    fn name(&self) -> String {
        format!("{}.{}", METHODS[self.request.0].to_ascii_lowercase(), self.request.1)
    }
}

impl Connected {
    fn account(&self) -> NewAccount {
        let role = RoleName::new(ROLES[self.role]).unwrap();
        let principal = match PRINCIPALS[self.principal] {
            "developer" => Principal::Developer,
            "tenant" => Principal::Tenant,
            "role" => Principal::Role(role),
            _ => Principal::User { user: UserId::new("alice").unwrap(), role },
        };
        let (tenant, connector) = (TENANTS[self.tenant], CONNECTORS[self.connector].0);
        let secret = format!("kb-canary-{tenant}-{connector}-{}-{}-5d1e", self.principal, self.role);
        let instance = self.instance.then(|| ("instance".to_owned(), "na47".to_owned()));
        let scopes = self.scopes.as_ref();
        NewAccount {
            scopes: scopes.map(|scopes| scopes.iter().map(|scope| Scope::new(scope).unwrap()).collect()),
            metadata: instance.into_iter().collect(),
            ..account(tenant, connector, principal, &secret)
        }
    }
}

impl Ask {
    fn identity(self) -> String {
        let user = if self.user { ", user=\"alice\"" } else { "" };
        format!("tenant=\"{}\", role=\"{}\"{user}", TENANTS[self.tenant], ROLES[self.role])
    }

    fn url(self) -> String {
        let (name, _, hosts) = CONNECTORS[self.connector];
        let by_name = format!("{name}.connector.internal");
        let host = hosts.get(self.host).copied().unwrap_or(&by_name);
        format!("http://{host}{}", PATHS[self.path])
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// What the request is told, by its code or its absence, so that a run can be seen to have had them all.
async fn check(
    stage: &Stage,
    direct: &mut Connection,
    world: &World,
    ask: Ask,
) -> Result<String, TestCaseError> {
    let (method, url) = (METHODS[ask.method], ask.url());
    let request = absolute(method, &url).header("agent-identity", ask.identity());
    let real = direct.call(request.body(Body::default()).unwrap()).await;
    let is_operation = |operation: &&Operation| operation.request == (ask.method, ask.path);
    let named = world.of(ask.connector).find(is_operation).filter(|_| ask.host == 2);
    let connector = CONNECTORS[ask.connector].0;
    let by_name = named.map(|operation| json!({"connector": connector, "operation": operation.name()}));
    for asked in by_name.into_iter().chain([json!({"method": method, "url": url})]) {
        let answer = post(stage, &ask.identity(), json!([asked]).to_string()).await;
        prop_assert_eq!(answer.status, 200, "{}", answer.text());
        let foretold = foretold(answer.json()["operations"][0].clone(), &asked);
        prop_assert_eq!(foretold, without(told(&real), &asked), "{}: {}", ask.identity(), asked);
    }
    Ok(real.error().unwrap_or_default())
}

#[test]
fn a_verdict_is_what_the_request_is_told() {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let codes = std::cell::RefCell::new(BTreeSet::new());
    proptest!(config, |(world in world(), asks in prop::collection::vec(ask(), 60))| {
        RUNTIME.block_on(async {
            let stage = world.open().await;
            let mut direct = stage.direct().await;
            for ask in asks {
                let code = check(&stage, &mut direct, &world, ask).await?;
                codes.borrow_mut().insert(code);
            }
            Ok::<_, TestCaseError>(())
        })?;
    });
    assert!(codes.borrow().len() >= 8, "only {:?} were met", codes.borrow());
}
