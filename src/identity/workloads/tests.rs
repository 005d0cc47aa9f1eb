use std::{collections::BTreeMap, sync::Mutex};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::time::advance;

use super::{
    super::{
        JwksSource,
        fixture::{NOW, Signer, jwks, no_fetch},
    },
    *,
};

const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
const DOCUMENT: &str = "https://kubernetes.default.svc.cluster.local/.well-known/openid-configuration";
const KEYS: &str = "https://10.0.0.1:6443/openid/v1/jwks";

/// A web: what is served where, and what was asked for.
#[derive(Clone, Default)]
struct Web {
    served: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// An API server's discovery document and these keys.
    fn cluster(signers: &[&Signer]) -> Self {
        let web = Self::default();
        web.serves(DOCUMENT, &document(CLUSTER, KEYS)).rotates(signers);
        web
    }

    fn serves(&self, url: &str, body: &Value) -> &Self {
        self.served.lock().unwrap().insert(url.to_owned(), body.to_string().into_bytes());
        self
    }

    fn rotates(&self, signers: &[&Signer]) -> &Self {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.served.lock().unwrap().insert(KEYS.to_owned(), jwks(&keys));
        self
    }

    fn fails(&self) {
        self.served.lock().unwrap().clear();
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn fetch(&self) -> FetchJwks {
        let web = self.clone();
        Arc::new(move |url| {
            web.asked.lock().unwrap().push(url.clone());
            let found = web.served.lock().unwrap().get(&url).cloned();
            Box::pin(async move { found.ok_or_else(|| "connection refused".to_owned()) })
        })
    }

    fn workloads(&self) -> Workloads {
        opened(&[CLUSTER_YAML], &self.fetch()).unwrap()
    }
}

const CLUSTER_YAML: &str = "{issuer: 'https://kubernetes.default.svc.cluster.local', kind: kubernetes}";

fn opened(issuers: &[&str], fetch: &FetchJwks) -> Result<Workloads, String> {
    let issuers =
        issuers.iter().map(|yaml| (serde_saphyr::from_str(yaml).unwrap(), Arc::clone(fetch))).collect();
    Workloads::open(issuers, "keybearer", &Drain::default()).map_err(|error| error.to_string())
}

fn document(issuer: &str, jwks_uri: &str) -> Value {
    json!({"issuer": issuer, "jwks_uri": jwks_uri, "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"]})
}

/// What a projected token of `agents/crew` claims.
fn crew() -> Value {
    json!({
        "aud": ["keybearer"], "exp": NOW + 3600, "iat": NOW, "iss": CLUSTER, "nbf": NOW,
        "jti": "0192", "sub": "system:serviceaccount:agents:crew",
        "kubernetes.io": {
            "namespace": "agents", "pod": {"name": "crew-7d9", "uid": "2"}, "node": {"name": "n1", "uid": "3"},
            "serviceaccount": {"name": "crew", "uid": "1"},
        },
    })
}

fn with(claims: Value, more: &Value) -> Value {
    let mut claims = claims;
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn without(claims: Value, claim: &str) -> Value {
    let mut claims = claims;
    claims.as_object_mut().unwrap().remove(claim).unwrap();
    claims
}

fn rs(kid: &str) -> Signer {
    Signer::new(Algorithm::RS256, kid)
}

fn ed(kid: &str) -> Signer {
    Signer::new(Algorithm::EdDSA, kid)
}

async fn proved(workloads: &Workloads, token: String) -> Result<Proven, Unproven> {
    workloads.verify_at(Secret::new(token.into()), NOW).await
}

/// Why a token of that cluster with these claims is not believed.
async fn refusal(claims: &Value) -> String {
    let key = ed("k1");
    proved(&Web::cluster(&[&key]).workloads(), key.sign(claims)).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_projected_token_proves_its_service_account_until_it_ends() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = Signer::new(algorithm, "k1");
        let web = Web::cluster(&[&key]);
        let proven = proved(&web.workloads(), key.sign(&crew())).await.unwrap();
        assert_eq!(proven.workload, Workload::service_account("agents/crew").unwrap());
        let until = proven.until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(until, NOW + 3600 + LEEWAY);
        assert_eq!(web.asked(), [DOCUMENT, KEYS]);
    }
}

#[tokio::test]
async fn what_kubernetes_says_twice_must_be_the_same() {
    let key = ed("k1");
    let workloads = Web::cluster(&[&key]).workloads();
    assert!(proved(&workloads, key.sign(&without(crew(), "kubernetes.io"))).await.is_ok());
    let other = |namespace: &str, name: &str| {
        with(
            crew(),
            &json!({"kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}}}),
        )
    };
    assert!(proved(&workloads, key.sign(&other("agents", "crew"))).await.is_ok());
    for (namespace, name) in [("agents", "admin"), ("kube-system", "crew"), ("", ""), ("agents", "Crew")] {
        let refused = refusal(&other(namespace, name)).await;
        assert!(refused.contains("different service accounts"), "{refused}");
    }
    for unreadable in [json!("agents"), json!({}), json!({"namespace": "agents"}), json!([])] {
        let refused = refusal(&with(crew(), &json!({"kubernetes.io": unreadable}))).await;
        assert!(refused.contains("cannot be read"), "{refused}");
    }
}

#[tokio::test]
async fn a_sub_of_another_form_is_no_workload() {
    for sub in [
        "",
        "agents:crew",
        "system:serviceaccount:agents",
        "system:serviceaccount:agents:",
        "system:serviceaccount::crew",
        "system:serviceaccount:agents:crew:x",
        "system:serviceaccount:agents/x:crew",
        "system:serviceaccount:agents:crew/x",
        "system:serviceaccount:Agents:crew",
        "system:serviceaccounts:agents:crew",
        "system:node:crew",
        "system:serviceaccount:agents:*",
        "local",
    ] {
        let refused = refusal(&without(with(crew(), &json!({"sub": sub})), "kubernetes.io")).await;
        assert!(refused.contains("no service account"), "{sub}: {refused}");
    }
    for sub in [json!(7), json!(null), json!(["system:serviceaccount:agents:crew"])] {
        let refused = refusal(&with(crew(), &json!({"sub": sub}))).await;
        assert!(refused.contains("cannot be read"), "{sub}: {refused}");
    }
    assert!(refusal(&without(crew(), "sub")).await.contains("cannot be read"));
}

#[tokio::test]
async fn a_token_is_for_us_from_our_issuer_and_of_now_or_not_believed() {
    let table = [
        (with(crew(), &json!({"aud": ["https://kubernetes.default.svc"]})), "another audience"),
        (with(crew(), &json!({"aud": "keybearer2"})), "another audience"),
        (with(crew(), &json!({"aud": []})), "another audience"),
        (without(crew(), "aud"), "names no audience"),
        (with(crew(), &json!({"iss": "https://evil.example"})), "none of ours (iss)"),
        (with(crew(), &json!({"iss": format!("{CLUSTER}/")})), "none of ours (iss)"),
        (without(crew(), "iss"), "names no issuer"),
        (with(crew(), &json!({"exp": NOW - LEEWAY})), "has expired"),
        (without(crew(), "exp"), "needs exp"),
        (with(crew(), &json!({"exp": "soon"})), "cannot be read"),
        (with(crew(), &json!({"exp": -1})), "not a time"),
        (with(crew(), &json!({"nbf": NOW + LEEWAY + 1})), "not valid yet"),
    ];
    for (claims, why) in table {
        let refused = refusal(&claims).await;
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn an_exp_of_the_far_future_is_believed_for_a_year_at_once() {
    let key = ed("k1");
    let workloads = Web::cluster(&[&key]).workloads();
    for exp in [json!(u64::MAX / 2), json!(1e18), json!(4_102_444_800_u64)] {
        let proven = proved(&workloads, key.sign(&with(crew(), &json!({"exp": exp})))).await.unwrap();
        assert_eq!(proven.until, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + LONGEST));
    }
}

#[tokio::test]
async fn a_signature_is_of_the_issuers_key_or_nothing_is_believed() {
    let (ours, theirs) = (ed("k1"), ed("k1"));
    let web = Web::cluster(&[&ours]);
    let workloads = web.workloads();
    let forged = proved(&workloads, theirs.sign(&crew())).await.unwrap_err().to_string();
    assert!(forged.contains("signature"), "{forged}");
    let unknown = proved(&workloads, ed("k2").sign(&crew())).await.unwrap_err().to_string();
    assert!(unknown.contains("not in its issuer's key set"), "{unknown}");
    web.asked();
    let payload = crew();
    for header in [
        json!({"alg": "none", "kid": "k1"}),
        json!({"alg": "HS256", "kid": "k1"}),
        json!({"alg": "PS256", "kid": "k1"}),
        json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"]}),
    ] {
        let refused = proved(&workloads, Signer::unsigned(&header, &payload)).await.unwrap_err();
        assert!(refused.to_string().contains("no JWT signed"), "{refused}");
    }
    for bad in ["", "a.b.c", "..", "kb-canary-not-a-token", "eyJ.eyJ.x"] {
        let refused = proved(&workloads, bad.to_owned()).await.unwrap_err().to_string();
        assert!(refused.contains("no JWT signed") && !refused.contains("canary"), "{refused}");
    }
    assert_eq!(web.asked(), [""; 0], "nobody is asked for the sake of what is no token");
}

#[tokio::test]
async fn a_token_of_another_kind_is_no_workloads_though_its_key_is() {
    let key = ed("k1");
    let workloads = Web::cluster(&[&key]).workloads();
    for (typ, is_believed) in [("JWT", true), ("JOSE", true), ("secevent+jwt", false), ("at+jwt", false)] {
        let token = key.sign_as(typ, &crew());
        assert_eq!(proved(&workloads, token).await.is_ok(), is_believed, "{typ}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_keys_are_followed_and_the_document_is_read_again_with_them() {
    let (old, new) = (rs("old"), rs("new"));
    let web = Web::cluster(&[&old]);
    let workloads = web.workloads();
    assert!(proved(&workloads, old.sign(&crew())).await.is_ok());
    web.asked();
    // Moved to another address, too.
    let moved = "https://10.0.0.2:6443/openid/v1/jwks";
    web.serves(DOCUMENT, &document(CLUSTER, moved)).serves(moved, &json!({"keys": [new.jwk()]}));
    assert!(proved(&workloads, new.sign(&crew())).await.is_ok());
    assert_eq!(web.asked(), [DOCUMENT, moved]);
    assert!(proved(&workloads, old.sign(&crew())).await.is_err(), "withdrawn");
    assert_eq!(web.asked(), [""; 0], "an unknown key is looked for once a minute");
}

#[tokio::test(start_paused = true)]
async fn while_the_issuer_is_away_its_last_keys_hold_for_an_hour() {
    let key = rs("k1");
    let web = Web::cluster(&[&key]);
    let workloads = web.workloads();
    assert!(proved(&workloads, key.sign(&crew())).await.is_ok());
    web.fails();
    advance(Duration::from_secs(3599)).await;
    assert!(proved(&workloads, key.sign(&crew())).await.is_ok());
    advance(Duration::from_secs(7)).await;
    assert_eq!(proved(&workloads, key.sign(&crew())).await, Err(Unproven::Unavailable));
    web.serves(DOCUMENT, &document(CLUSTER, KEYS)).rotates(&[&key]);
    advance(Duration::from_secs(6)).await;
    assert!(proved(&workloads, key.sign(&crew())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_was_never_there_makes_tokens_unavailable_and_not_wrong() {
    let web = Web::default();
    let workloads = web.workloads();
    for _ in 0..5 {
        assert_eq!(proved(&workloads, rs("k1").sign(&crew())).await, Err(Unproven::Unavailable));
    }
    assert_eq!(web.asked(), [DOCUMENT], "left alone for a while");
}

#[tokio::test(start_paused = true)]
async fn a_discovery_document_speaks_for_its_own_issuer_only() {
    let key = ed("k1");
    for bad in [
        document("https://evil.example", KEYS),
        document(&format!("{CLUSTER}/"), KEYS),
        document(CLUSTER, "http://10.0.0.1/jwks"),
        document(CLUSTER, "/openid/v1/jwks"),
        json!({"issuer": CLUSTER}),
        json!("<html>"),
    ] {
        let web = Web::cluster(&[&key]);
        web.serves(DOCUMENT, &bad);
        assert_eq!(proved(&web.workloads(), key.sign(&crew())).await, Err(Unproven::Unavailable), "{bad}");
        assert_eq!(web.asked(), [DOCUMENT], "no key set was fetched");
    }
}

#[tokio::test]
async fn the_document_or_the_keys_may_be_elsewhere() {
    let key = ed("k1");
    let web = Web::cluster(&[&key]);
    web.serves("https://mirror.example/x/.well-known/openid-configuration", &document(CLUSTER, KEYS));
    let elsewhere =
        format!("{{issuer: '{CLUSTER}', kind: kubernetes, discovery: 'https://mirror.example/x/'}}");
    let workloads = opened(&[&elsewhere], &web.fetch()).unwrap();
    assert!(proved(&workloads, key.sign(&crew())).await.is_ok());
    web.asked();
    let direct = format!("{{issuer: '{CLUSTER}', kind: kubernetes, jwks: {{url: '{KEYS}'}}}}");
    let workloads = opened(&[&direct], &web.fetch()).unwrap();
    assert!(proved(&workloads, key.sign(&crew())).await.is_ok());
    assert_eq!(web.asked(), [KEYS]);
}

/// A trust domain's keys in a file, as of a SPIFFE bundle.
fn domain_file(signer: &Signer) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut own = signer.jwk();
    own["use"] = json!("jwt-svid");
    std::fs::write(file.path(), jwks(&[own])).unwrap();
    let yaml = format!(
        "{{issuer: 'spiffe://acme.example', kind: spiffe, jwks: {{file: {}}}}}",
        file.path().display()
    );
    (file, yaml)
}

fn svid() -> Value {
    json!({"aud": ["keybearer"], "exp": NOW + 300, "iat": NOW, "sub": "spiffe://acme.example/ns/agents/crew"})
}

#[tokio::test]
async fn a_jwt_svid_proves_its_spiffe_id_within_its_trust_domain() {
    let key = Signer::new(Algorithm::ES256, "k1");
    let (_file, yaml) = domain_file(&key);
    let workloads = opened(&[&yaml], &no_fetch()).unwrap();
    for claims in [svid(), with(svid(), &json!({"iss": "https://oidc.acme.example"}))] {
        let proven = proved(&workloads, key.sign(&claims)).await.unwrap();
        assert_eq!(proven.workload, Workload::spiffe("spiffe://acme.example/ns/agents/crew").unwrap());
    }
    let table = [
        (with(svid(), &json!({"sub": "spiffe://other.example/ns/agents/crew"})), "trust domain"),
        (with(svid(), &json!({"sub": "spiffe://acme.example.evil/x"})), "trust domain"),
        (with(svid(), &json!({"sub": "spiffe://acme.example:443/x"})), "trust domain"),
        (with(svid(), &json!({"sub": "spiffe://acme.example/../x"})), "no SPIFFE id"),
        (with(svid(), &json!({"sub": "spiffe://acme.example/x?y"})), "no SPIFFE id"),
        (with(svid(), &json!({"sub": "SPIFFE://acme.example/x", "iss": "x"})), "none of ours (iss)"),
        (with(svid(), &json!({"aud": "other"})), "another audience"),
        (without(svid(), "aud"), "names no audience"),
        (without(svid(), "exp"), "needs exp"),
        (with(svid(), &json!({"exp": NOW - LEEWAY})), "has expired"),
    ];
    for (claims, why) in table {
        let refused = proved(&workloads, key.sign(&claims)).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn an_issuer_vouches_for_its_own_workloads_only() {
    let (cluster, domain) = (ed("k1"), ed("k1"));
    let (_file, yaml) = domain_file(&domain);
    let web = Web::cluster(&[&cluster]);
    let workloads = opened(&[CLUSTER_YAML, &yaml], &web.fetch()).unwrap();
    assert!(proved(&workloads, cluster.sign(&crew())).await.is_ok());
    assert!(proved(&workloads, domain.sign(&svid())).await.is_ok());
    let of_other = with(crew(), &json!({"sub": "spiffe://acme.example/ns/agents/crew"}));
    for forged in [domain.sign(&crew()), cluster.sign(&svid()), cluster.sign(&of_other)] {
        let refused = proved(&workloads, forged).await.unwrap_err().to_string();
        assert!(refused.contains("signature"), "{refused}");
    }
}

#[test]
fn issuers_that_cannot_be_used_are_refused_at_start_with_what_to_write() {
    let table = [
        ("{issuer: 'spiffe://acme.example', kind: spiffe}", "needs jwks"),
        ("{issuer: 'https://acme.example', kind: spiffe, jwks: {url: 'https://a/'}}", "spiffe://example.org"),
        ("{issuer: 'spiffe://acme.example/x', kind: spiffe, jwks: {url: 'https://a/'}}", "without a path"),
        ("{issuer: 'spiffe://acme.example', kind: spiffe, jwks: {url: 'http://a/'}}", "https:// URL"),
        ("{issuer: 'spiffe://acme.example', kind: spiffe, jwks: {file: /nowhere.json}}", "/nowhere.json"),
        ("{issuer: 'http://api.example', kind: kubernetes}", "https:// URL"),
        ("{issuer: kubernetes/serviceaccount, kind: kubernetes}", "name another with discovery"),
        (
            "{issuer: 'https://a', kind: kubernetes, discovery: 'https://b', jwks: {url: 'https://c'}}",
            "either",
        ),
    ];
    for (yaml, says) in table {
        let error = opened(&[yaml], &no_fetch()).err().unwrap();
        assert!(error.contains(says), "{yaml}: {error}");
    }
    let twice = opened(&[CLUSTER_YAML, CLUSTER_YAML], &no_fetch()).err().unwrap();
    assert!(twice.contains("is there twice"), "{twice}");
    for unknown in ["{issuer: x}", "{issuer: x, kind: oidc}", "{issuer: x, kind: spiffe, jwk: y}"] {
        assert!(serde_saphyr::from_str::<IssuerConfig>(unknown).is_err(), "{unknown}");
    }
    let mut full: IssuerConfig = serde_saphyr::from_str(
        "{issuer: 'https://a', kind: kubernetes, jwks: {file: k}, roots: {file: r}, token_file: t}",
    )
    .unwrap();
    let files: Vec<_> = full.files_mut().map(|path| path.display().to_string()).collect();
    assert_eq!(files, ["k", "r", "t"]);
    assert_eq!(full.jwks, Some(JwksSource::File("k".into())));
}
