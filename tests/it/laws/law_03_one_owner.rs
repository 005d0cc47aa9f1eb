//! Law 3. Whatever tenants, roles and users share connections to the proxy, each request carries the credential
//! of its own principal, and no upstream connection ever carries two tenants.

use std::fmt::Write as _;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use futures_util::future::join_all;
use http::Request;
use keybearer::{
    id::{AccountKey, Principal, RoleName, UserId},
    secret::Secret,
};
use proptest::prelude::*;
use tokio::{runtime::Runtime, sync::Mutex};

use crate::support::{
    agent::{Answer, Body, Connection},
    provider::Speaks,
    stage::{Stage, Staging, account},
};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Each acts as the principal that it is named after; the last two share that kind.
const ROLES: [&str; 5] = ["as-developer", "as-tenant", "as-role", "as-user", "as-user-too"];
const USERS: [&str; 2] = ["alice", "bob"];
/// Connector, host, and the path where the provider takes its credential.
const CONNECTORS: [(&str, &str, &str); 3] = [
    ("crm", "api.crm.test", "/echo"),
    ("desk", "desk.crm.test", "/anything"),
    ("maps", "maps.crm.test", "/anything"),
];
/// How many secrets an account has one after the other.
const GENERATIONS: usize = 4;

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: ["api.crm.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  operations: [{name: read, request: "GET /echo"}]
---
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: desk}
spec:
  hosts: ["desk.crm.test"]
  auth: {type: static}
  inject: [{header: X-Desk-Key, value: "{token}"}]
  operations: [{name: read, request: "GET /anything"}]
---
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: maps}
spec:
  hosts: ["maps.crm.test"]
  auth: {type: static}
  inject: [{query: key, value: "{token}"}]
  operations: [{name: read, request: "GET /anything"}]
"#;

fn policy() -> String {
    let mut text = POLICY.to_owned();
    for (role, kind) in ROLES.iter().zip(["developer", "tenant", "role", "user", "user"]) {
        let grants =
            CONNECTORS.map(|(connector, ..)| format!("{{connector: {connector}, as: {kind}}}")).join(", ");
        write!(
            text,
            "---\napiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {{name: {role}}}\nspec: {{tenants: [\"*\"], grants: [{grants}]}}\n"
        )
        .unwrap();
    }
    text
}

/// One request, and the way it takes to the proxy.
#[derive(Debug, Clone, Copy)]
struct Ask {
    tenant: usize,
    role: usize,
    user: usize,
    connector: usize,
    /// Absolute-form, a tunnel of HTTP/1.1, or one of HTTP/2. Each is one connection for everybody.
    way: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(Ask),
    /// The account that such a request would use gets another secret.
    Rotate(Ask),
}

impl Ask {
    fn principal(self) -> Principal {
        let role = RoleName::new(ROLES[self.role]).unwrap();
        match self.role {
            0 => Principal::Developer,
            1 => Principal::Tenant,
            2 => Principal::Role(role),
            _ => Principal::User { user: UserId::new(USERS[self.user]).unwrap(), role },
        }
    }

    /// Whose credential it must carry, as the provider tells it.
    fn owner(self) -> String {
        owner(TENANTS[self.tenant], CONNECTORS[self.connector].0, &self.principal())
    }

    fn identity(self) -> String {
        format!(
            "tenant=\"{}\", role=\"{}\", user=\"{}\"",
            TENANTS[self.tenant], ROLES[self.role], USERS[self.user]
        )
    }

    fn request(self) -> Request<Body> {
        let (_, host, path) = CONNECTORS[self.connector];
        let uri = match self.way {
            0 => format!("http://{host}{path}"),
            1 => path.to_owned(),
            _ => format!("https://{host}{path}"),
        };
        let mut request = Request::get(uri).header("agent-identity", self.identity());
        if self.way < 2 {
            request = request.header("host", host);
        }
        request.body(Body::default()).unwrap()
    }
}

fn owner(tenant: &str, connector: &str, principal: &Principal) -> String {
    format!("{tenant}/{connector}/{principal}")
}

fn secret(owner: &str, generation: usize) -> String {
    format!("kb-{}-{}", owner.replace(['/', ':'], "-"), generation % GENERATIONS)
}

fn ask() -> impl Strategy<Value = Ask> {
    (0..TENANTS.len(), 0..ROLES.len(), 0..USERS.len(), 0..CONNECTORS.len(), 0..3usize)
        .prop_map(|(tenant, role, user, connector, way)| Ask { tenant, role, user, connector, way })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![9 => ask().prop_map(Step::Ask), 1 => ask().prop_map(Step::Rotate)]
}

/// A stage that lives through all cases, with the connections that everybody shares.
struct Town {
    stage: Stage,
    direct: Mutex<Connection>,
    tunnels: Vec<[Mutex<Connection>; 2]>,
    generations: Mutex<BTreeMap<String, usize>>,
}

impl Town {
    async fn open(speaks: Speaks) -> Self {
        let mut accounts = Vec::new();
        let mut credentials = Vec::new();
        for tenant in TENANTS {
            for (connector, ..) in CONNECTORS {
                for principal in principals() {
                    let owner = owner(tenant, connector, &principal);
                    credentials.extend(
                        (0..GENERATIONS).map(|generation| (secret(&owner, generation), owner.clone())),
                    );
                    accounts.push(account(tenant, connector, principal, &secret(&owner, 0)));
                }
            }
        }
        let names = CONNECTORS.map(|(_, host, _)| host.to_owned()).to_vec();
        let policies = vec![("policy.yaml", policy())];
        let stage =
            Stage::set(Staging { policies, speaks, accounts, credentials, names, ..Staging::default() })
                .await;
        let mut tunnels = Vec::new();
        for (_, host, _) in CONNECTORS {
            tunnels.push([
                Mutex::new(stage.tunnel(host, "http/1.1").await),
                Mutex::new(stage.tunnel(host, "h2").await),
            ]);
        }
        Self { direct: Mutex::new(stage.direct().await), stage, tunnels, generations: Mutex::default() }
    }

    async fn take(&self, step: Step) -> Option<(Ask, Answer)> {
        match step {
            Step::Rotate(ask) => {
                self.rotate(ask).await;
                None
            }
            Step::Ask(ask) => Some((ask, self.call(ask).await)),
        }
    }

    async fn call(&self, ask: Ask) -> Answer {
        let connection = match ask.way {
            0 => &self.direct,
            way => &self.tunnels[ask.connector][way - 1],
        };
        let mut connection = connection.lock().await;
        if let Connection::Two(sender) = &*connection {
            let mut multiplexed = Connection::Two(sender.clone());
            drop(connection);
            return multiplexed.call(ask.request()).await;
        }
        connection.call(ask.request()).await
    }

    async fn rotate(&self, ask: Ask) {
        let owner = ask.owner();
        let mut generations = self.generations.lock().await;
        let generation = generations.entry(owner.clone()).or_default();
        *generation += 1;
        let fields = [("token".to_owned(), Secret::new(secret(&owner, *generation).into_bytes()))];
        let [tenant, connector, _] = [TENANTS[ask.tenant], CONNECTORS[ask.connector].0, ""];
        let key = AccountKey { principal: ask.principal(), ..super::wire::key(tenant, connector) };
        self.stage.app().vault.rotate(&key, fields.into()).await.unwrap();
    }
}

fn principals() -> Vec<Principal> {
    let all = (0..ROLES.len()).flat_map(|role| {
        (0..USERS.len()).map(move |user| Ask { tenant: 0, role, user, connector: 0, way: 0 }.principal())
    });
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Takes the steps side by side and checks everything that was seen since the town was opened.
async fn check(town: &Town, steps: &[Step]) -> Result<(), TestCaseError> {
    let before = town.stage.provider.requests().len();
    let taken = join_all(steps.iter().map(|step| town.take(*step))).await;
    for (ask, answer) in taken.iter().flatten() {
        prop_assert_eq!(answer.status.as_u16(), 200, "{:?}: {}", ask, answer.text());
        prop_assert_eq!(answer.headers["x-provider-tenant"].to_str().unwrap(), ask.owner(), "{:?}", ask);
    }
    let seen = town.stage.provider.requests();
    prop_assert_eq!(seen.len() - before, taken.iter().flatten().count());
    let mut tenants: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for seen in &seen {
        let tenant = seen.tenant.as_ref().unwrap().split('/').next().unwrap().to_owned();
        tenants.entry(seen.peer.connection).or_default().insert(tenant);
    }
    prop_assert!(tenants.values().all(|tenants| tenants.len() == 1), "{:?}", tenants);
    Ok(())
}

fn owners_are_kept_apart(speaks: Speaks) {
    let town = RUNTIME.block_on(Town::open(speaks));
    let steps = prop::collection::vec(step(), 1..60);
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps)| RUNTIME.block_on(check(&town, &steps))?);
    RUNTIME.block_on(async {
        // The audit says the same as the provider saw.
        for event in town.stage.actions().await {
            let account = event["account"].as_str().unwrap();
            assert_eq!(account.split('/').next(), event["tenant"].as_str(), "{event}");
        }
    });
}

#[test]
fn each_request_carries_its_own_owners_credential_to_an_http1_provider() {
    owners_are_kept_apart(Speaks::Http1);
}

#[test]
fn each_request_carries_its_own_owners_credential_to_an_http2_provider() {
    owners_are_kept_apart(Speaks::Http2);
}
