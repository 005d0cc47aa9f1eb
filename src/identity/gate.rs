//! From a claim to an identity, and whether it may pass.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use quick_cache::sync::Cache;

use super::{
    Bindings, Claim, Config, ConfigError, Error, FetchJwks, Identity, Mode, Workload, chain::Chains,
    keys::Keys, signed::Signed, token::Expected,
};
use crate::{drain::Drain, id::Subject};

/// How many statements are remembered: a few KiB each at the longest.
const REMEMBERED: usize = 2048;

/// Who may pass. One for the whole proxy.
pub struct Gate {
    mode: Mode,
    way: Way,
    default: Option<Arc<Identity>>,
    chains: Chains,
}

/// How a claim becomes an identity.
enum Way {
    /// It is what it says: modes `open` and `bound`.
    Stated(Cache<Claim, Arc<Identity>>),
    /// It is what it proves.
    Signed(Box<Signed>),
}

impl Gate {
    /// Makes the gate. In mode `signed` a key file is read here; a key set's address is fetched with `fetch`
    /// when the first token comes.
    ///
    /// # Errors
    /// [`ConfigError`] where mode `signed` has no keys, or none that can be used.
    pub fn new(config: Config, fetch: FetchJwks, drain: &Drain) -> Result<Self, ConfigError> {
        let way = match config.mode {
            Mode::Open | Mode::Bound => Way::Stated(Cache::new(REMEMBERED)),
            Mode::Signed => {
                let keys = Keys::open(config.jwks.ok_or(ConfigError::NoKeys)?, fetch, drain.clone())?;
                let expected = Expected::new(config.audience.as_deref(), config.issuer.as_deref());
                Way::Signed(Box::new(Signed::new(keys, expected)))
            }
        };
        let default = config.default.map(|names| {
            let subject = Subject { tenant: names.tenant, role: names.role, user: names.user };
            Arc::new(Identity { subject, agent: None, delegation: Vec::new(), chain: None })
        });
        Ok(Self { mode: config.mode, way, default, chains: Chains::default() })
    }

    /// Whose claim this is; without one, the configured default. A claim seen before costs one lookup (and, in
    /// mode `signed`, a digest).
    ///
    /// # Errors
    /// [`Error::Required`] without claim and default, [`Error::Invalid`] for a claim that cannot be read or
    /// believed, [`Error::Unavailable`] where the keys to check it cannot be had.
    pub async fn identify(&self, claim: Option<&Claim>) -> Result<Arc<Identity>, Error> {
        let Some(claim) = claim else { return self.default.clone().ok_or(Error::Required) };
        match &self.way {
            Way::Stated(memo) => stated(memo, claim),
            Way::Signed(signed) => signed.identity(claim, unix_now()).await,
        }
    }

    /// Whether the workload may speak for the identity. Mode `bound` asks the bindings, also about the default
    /// identity; in mode `open` everybody may, in mode `signed` the signature said so.
    ///
    /// # Errors
    /// [`Error::NotAllowed`].
    pub fn admit(&self, identity: &Identity, workload: &Workload, bindings: &Bindings) -> Result<(), Error> {
        match self.mode {
            Mode::Open | Mode::Signed => Ok(()),
            Mode::Bound if bindings.allows(workload, &identity.subject) => Ok(()),
            Mode::Bound => {
                Err(Error::NotAllowed { workload: workload.clone(), subject: identity.subject.clone() })
            }
        }
    }

    /// Keeps a chain to the tenant and user of its first action. Call it after [`Gate::admit`], or a workload
    /// could begin chains for tenants that it may not speak for.
    ///
    /// # Errors
    /// [`Error::Drift`] when the chain is another's.
    pub fn pin(&self, identity: &Identity, workload: &Workload) -> Result<(), Error> {
        self.chains.pin(identity, workload)
    }
}

fn stated(memo: &Cache<Claim, Arc<Identity>>, claim: &Claim) -> Result<Arc<Identity>, Error> {
    if let Some(identity) = memo.get(claim) {
        return Ok(identity);
    }
    let identity = Arc::new(claim.stated()?);
    memo.insert(claim.detached(), Arc::clone(&identity));
    Ok(identity)
}

/// Unix seconds. A clock before 1970 is broken: every token counts as expired then.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    use super::{
        super::fixture::{Signer, agent_identity, basic_claim, bearer_claim, name, no_fetch, subject},
        *,
    };

    fn gate(yaml: &str) -> Gate {
        Gate::new(serde_saphyr::from_str(yaml).unwrap(), no_fetch(), &Drain::default()).unwrap()
    }

    fn local_crew() -> Bindings {
        let spec = "{workloads: [{local: true}], tenants: [acme], roles: [researcher], users: [alice]}";
        Bindings::compile(vec![(name("crew"), serde_saphyr::from_str(spec).unwrap())])
    }

    #[tokio::test]
    async fn open_and_bound_believe_the_statement() {
        for mode in ["open", "bound"] {
            let gate = gate(&format!("mode: {mode}"));
            let header = agent_identity("tenant=acme, role=researcher, user=alice");
            let password = basic_claim("acme/researcher/alice", "x");
            for claim in [&header, &password] {
                let identity = gate.identify(Some(claim)).await.unwrap();
                assert_eq!(identity.subject, subject("acme", "researcher", Some("alice")));
            }
            let bearer = gate.identify(Some(&bearer_claim("eyJh.e30.c2ln"))).await.unwrap_err();
            assert!(bearer.to_string().contains("identity.mode: signed"), "{bearer}");
        }
    }

    #[tokio::test]
    async fn a_claim_seen_before_is_the_same_identity_and_a_bad_one_is_refused_each_time() {
        let gate = gate("{}");
        let text = "tenant=acme, role=researcher";
        let first = gate.identify(Some(&agent_identity(text))).await.unwrap();
        let again = gate.identify(Some(&agent_identity(text))).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for _ in 0..2 {
            assert!(matches!(
                gate.identify(Some(&agent_identity("tenant=acme"))).await,
                Err(Error::Invalid(_))
            ));
        }
    }

    #[tokio::test]
    async fn a_remembered_claim_is_not_mistaken_for_the_same_bytes_in_another_header() {
        let gate = gate("{}");
        let text = "tenant=acme, role=researcher";
        gate.identify(Some(&agent_identity(text))).await.unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::PROXY_AUTHORIZATION, text.parse().unwrap());
        let claim = super::super::claimed(&headers).unwrap();
        assert!(matches!(gate.identify(claim.as_ref()).await, Err(Error::Invalid(_))));
    }

    #[tokio::test]
    async fn the_default_is_for_requests_without_a_claim_only() {
        let gate = gate("default: {tenant: acme, role: researcher}");
        assert_eq!(gate.identify(None).await.unwrap().subject, subject("acme", "researcher", None));
        let stated = gate.identify(Some(&agent_identity("tenant=globex, role=writer"))).await.unwrap();
        assert_eq!(stated.subject, subject("globex", "writer", None));
        assert!(gate.identify(Some(&agent_identity("tenant=globex"))).await.is_err());
        let without = Gate::new(Config::default(), no_fetch(), &Drain::default()).unwrap();
        assert_eq!(without.identify(None).await, Err(Error::Required));
    }

    #[tokio::test]
    async fn only_bound_asks_the_bindings_and_it_asks_for_the_default_too() {
        let alice = agent_identity("tenant=acme, role=researcher, user=alice");
        let other = agent_identity("tenant=acme, role=publisher, user=alice");
        let default = "default: {tenant: globex, role: writer}";
        for (mode, refused) in [("open", false), ("bound", true), ("signed", false)] {
            let open = gate(&format!("{{mode: open, {default}}}"));
            let jwks = "jwks: {url: 'https://idp.example/'}";
            let gate = gate(&format!("{{mode: {mode}, {default}, {jwks}}}"));
            for (claim, refused) in [(Some(&alice), false), (Some(&other), refused), (None, refused)] {
                let identity = open.identify(claim).await.unwrap();
                let admitted = gate.admit(&identity, &Workload::Local, &local_crew());
                assert_eq!(admitted.is_err(), refused, "{mode} {identity:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_says_who_spoke_for_whom() {
        let gate = gate("mode: bound");
        let identity =
            gate.identify(Some(&agent_identity("tenant=acme, role=writer, user=bob"))).await.unwrap();
        let refused = gate.admit(&identity, &Workload::Local, &local_crew()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no binding lets workload local speak for tenant acme, role writer, user bob"
        );
    }

    #[tokio::test]
    async fn chains_are_pinned_in_every_mode() {
        let gate = gate("{}");
        let pin = async |text: &str| {
            let identity = gate.identify(Some(&agent_identity(text))).await.unwrap();
            gate.pin(&identity, &Workload::Local)
        };
        assert_eq!(pin("tenant=acme, role=writer, user=alice, chain=run-42").await, Ok(()));
        assert_eq!(pin("tenant=acme, role=editor, user=alice, chain=run-42").await, Ok(()));
        let drift = pin("tenant=acme, role=editor, user=bob, chain=run-42").await.unwrap_err();
        assert!(drift.to_string().starts_with("chain run-42 belongs to tenant acme, user alice"), "{drift}");
    }

    #[tokio::test]
    async fn signed_believes_a_token_by_the_clock_on_the_wall() {
        let signer = Signer::new(Algorithm::ES256, "k1");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("jwks.json"), signer.jwks()).unwrap();
        let file = dir.path().join("jwks.json");
        let gate = gate(&format!("{{mode: signed, jwks: {{file: {}}}, audience: kb}}", file.display()));
        let token = |exp: u64| {
            bearer_claim(&signer.sign(&json!({"tenant": "acme", "role": "r", "aud": "kb", "exp": exp})))
        };
        assert!(gate.identify(Some(&token(unix_now() + 100))).await.is_ok());
        let expired = gate.identify(Some(&token(unix_now() - 100))).await.unwrap_err();
        assert!(expired.to_string().contains("expired"), "{expired}");
        assert!(gate.identify(Some(&agent_identity("tenant=acme, role=r"))).await.is_err());
    }

    #[test]
    fn signed_needs_keys_that_come_protected() {
        let new =
            |yaml: &str| Gate::new(serde_saphyr::from_str(yaml).unwrap(), no_fetch(), &Drain::default());
        assert!(matches!(new("mode: signed").err(), Some(ConfigError::NoKeys)));
        assert!(matches!(new("{mode: signed, jwks: 'http://idp.example/'}").err(), Some(ConfigError::Url)));
        assert!(matches!(new("{mode: signed, jwks: /nowhere}").err(), Some(ConfigError::File { .. })));
        assert!(new("{mode: signed, jwks: 'https://idp.example/'}").is_ok());
    }

    #[tokio::test]
    async fn the_memo_is_bounded() {
        let gate = gate("{}");
        for n in 0..3 * REMEMBERED {
            gate.identify(Some(&agent_identity(&format!("tenant=t{n}, role=r")))).await.unwrap();
        }
        let Way::Stated(memo) = &gate.way else { panic!("open is stated") };
        assert!(memo.len() <= REMEMBERED, "{}", memo.len());
    }

    #[test]
    fn identifying_adds_little_to_the_requests_future_and_may_change_threads() {
        fn size_of_send<F: Send>(future: &F) -> usize {
            size_of_val(future)
        }
        let size = size_of_send(&gate("{}").identify(None));
        assert!(size <= 128, "{size} bytes");
    }
}
