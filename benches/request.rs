//! What is done to every request, without the network: its path read, its operation found, decided, the
//! credential taken from the cache; the agent's carriers removed and ours put in.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use criterion::{BatchSize, Criterion};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, header};
use keybearer::{
    catalog::{Catalog, Connector, ConnectorSpec},
    credential::{Credential, Resolver},
    drain::Drain,
    host::Host,
    id::{AccountKey, ConnectorName, Principal, RoleName, Subject, TenantId},
    path::CanonicalPath,
    policy::{Op, Permit, Policy, Question, RoleSpec},
    proxy::strip::{self, Stripped},
    secret::Secret,
    vault::{Material, NewAccount, Vault},
};
use serde_json::{Value, json};

const HOST: &str = "api.bench.test";
const PATH: &str = "/repos/acme/widgets/issues/1347/comments";
const QUERY: &str = "per_page=100&page=2&access_token=from-the-agent";

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let house = runtime.block_on(House::build())?;
    let credential = runtime.block_on(house.credential())?;
    let (sent, query) = outbound(agents_headers(), &house.connector, &credential);
    ensure!(sent.get(header::AUTHORIZATION) == Some(&HeaderValue::from_static("Bearer bench-credential")));
    ensure!(!sent.contains_key(header::COOKIE) && query.as_deref() == Some("per_page=100&page=2"));

    let mut group = criterion.benchmark_group("request");
    group.bench_function("path", |bencher| bencher.iter(|| CanonicalPath::parse(black_box(PATH))));
    group.bench_function("path, operation, decision", |bencher| bencher.iter(|| house.permit()));
    group.bench_function("path, operation, decision, credential", |bencher| {
        // A cached credential is there at the first poll.
        bencher.iter(|| house.credential().now_or_never());
    });
    group.bench_function("strip, inject", |bencher| {
        bencher.iter_batched(
            agents_headers,
            |headers| outbound(headers, &house.connector, &credential),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// As an SDK sends it, with what it must not send.
fn agents_headers() -> HeaderMap {
    [
        (header::USER_AGENT, "octokit-core.js/6.1.2 Node.js/20.18.0"),
        (header::ACCEPT, "application/vnd.github+json"),
        (header::ACCEPT_LANGUAGE, "en"),
        (header::CONNECTION, "keep-alive"),
        (header::HeaderName::from_static("x-github-api-version"), "2022-11-28"),
        (header::HeaderName::from_static("agent-identity"), r#"tenant="acme", role="bench""#),
        (header::AUTHORIZATION, "Bearer from-the-agent"),
        (header::COOKIE, "session=from-the-agent"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect()
}

fn outbound(
    mut headers: HeaderMap,
    connector: &Connector,
    credential: &Credential,
) -> (HeaderMap, Option<String>) {
    let mut stripped = Stripped::new();
    strip::head(&mut headers, connector, &mut stripped);
    let query = strip::parameters(QUERY, &connector.strip.query, &mut stripped);
    let query = credential.inject(&mut headers, query);
    (headers, query)
}

/// One connector, one role, one account.
struct House {
    catalog: Catalog,
    policy: Policy,
    resolver: Resolver,
    connector: Arc<Connector>,
    subject: Subject,
    host: Host,
}

impl House {
    async fn build() -> Result<Self> {
        let (tenant, role) = (TenantId::new("acme")?, RoleName::new("bench")?);
        let name = ConnectorName::new("bench")?;
        let spec: ConnectorSpec = serde_json::from_value(connector())?;
        let catalog =
            Catalog::compile(vec![(name.clone(), spec)]).map_err(|problems| anyhow!("{problems:?}"))?;
        let connector = catalog.connector("bench").context("no connector")?.clone();
        let grants = json!([{"connector": "bench", "as": "role", "scopes": ["issues:read"]}]);
        let spec: RoleSpec = serde_json::from_value(json!({"tenants": ["acme"], "grants": grants}))?;
        let policy =
            Policy::compile(vec![(role.clone(), spec)]).map_err(|problems| anyhow!("{problems:?}"))?;
        let vault = Vault::in_memory(&Drain::default()).await?;
        let token = Secret::new(b"bench-credential".to_vec());
        let account = NewAccount {
            key: AccountKey {
                tenant: tenant.clone(),
                connector: name,
                principal: Principal::Role(role.clone()),
            },
            material: Material::Static { fields: BTreeMap::from([("token".to_owned(), token)]) },
            scopes: None,
            metadata: BTreeMap::new(),
            authorization: None,
        };
        vault.add(account).await?;
        let resolver = Resolver::new(Arc::new(vault));
        let subject = Subject { tenant, role, user: None };
        Ok(Self { catalog, policy, resolver, connector, subject, host: Host::parse(HOST)? })
    }

    fn permit(&self) -> Result<Permit> {
        let path = CanonicalPath::parse(black_box(PATH))?;
        let located = self.catalog.locate(&self.host, None).context("no connector")?;
        let route = located.operation(&Method::GET, &path, None).context("no operation")?;
        let operation = &route.operation;
        let op = Op { name: &operation.name, effect: operation.effect, scopes: &operation.scopes };
        let question =
            Question { subject: &self.subject, connector: &route.connector.name, operation: Some(op) };
        Ok(self.policy.decide(question)?)
    }

    async fn credential(&self) -> Result<Arc<Credential>> {
        Ok(self.resolver.resolve(&self.permit()?, &self.connector, None).await?)
    }
}

fn connector() -> Value {
    let operations: Vec<Value> =
        ["", "/{number}", "/{number}/comments", "/{number}/labels", "/{number}/events"]
            .iter()
            .enumerate()
            .map(|(index, rest)| {
                let request = format!("GET /repos/{{owner}}/{{repo}}/issues{rest}");
                json!({"name": format!("issue.read{index}"), "request": request, "scopes": ["issues:read"]})
            })
            .collect();
    json!({
        "hosts": [HOST],
        "auth": {"type": "static"},
        "inject": [{"header": "Authorization", "value": "Bearer {token}"}],
        "scopes": {"issues:read": []},
        "operations": operations,
    })
}
