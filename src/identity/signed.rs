//! Identities that are believed because someone we trust signed them.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::{
    Claim, Error, Identity,
    keys::Keys,
    token::{Expected, Token},
};

/// How many verified tokens are remembered.
const REMEMBERED: usize = 2048;

/// Checks tokens, and remembers those that were good.
pub(super) struct Signed {
    keys: Arc<Keys>,
    expected: Expected,
    /// By digest: a token at rest here could be read from a core dump and used.
    memo: Cache<[u8; 32], Verified>,
}

#[derive(Clone)]
struct Verified {
    identity: Arc<Identity>,
    /// `exp`, in Unix seconds. In the leeway after it, the token is checked each time.
    expires: u64,
    /// The key set that it was checked with: a key that was withdrawn takes its tokens along.
    generation: u64,
}

impl Signed {
    pub(super) fn new(keys: Arc<Keys>, expected: Expected) -> Self {
        Self { keys, expected, memo: Cache::new(REMEMBERED) }
    }

    /// Whose token the claim is, at `now` in Unix seconds.
    pub(super) async fn identity(&self, claim: &Claim, now: u64) -> Result<Arc<Identity>, Error> {
        let digest = claim.digest();
        if let Some(identity) = self.recall(&digest, now) {
            return Ok(identity);
        }
        // Boxed: rare, and far larger than what the common case needs in the request's future.
        Box::pin(self.verify(claim, digest, now)).await
    }

    fn recall(&self, digest: &[u8; 32], now: u64) -> Option<Arc<Identity>> {
        let verified = self.memo.get(digest)?;
        let set = self.keys.trusted()?;
        (verified.generation == set.generation && now < verified.expires).then_some(verified.identity)
    }

    async fn verify(&self, claim: &Claim, digest: [u8; 32], now: u64) -> Result<Arc<Identity>, Error> {
        let token = Token::read(claim.token()?)?;
        let kid = token.kid.as_deref();
        let set = self.keys.having(kid, token.algorithm).await?;
        let Some(key) = set.find(kid, token.algorithm) else {
            return Err(Error::invalid("the token is signed with a key that is not in the key set (kid)"));
        };
        let checked = token.check(key, &self.expected, now)?;
        let identity = Arc::new(checked.identity);
        let generation = set.generation;
        let verified = Verified { identity: Arc::clone(&identity), expires: checked.expires, generation };
        self.memo.insert(digest, verified);
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use jsonwebtoken::Algorithm;
    use serde_json::{Value, json};
    use tokio::time::advance;

    use super::{
        super::{
            FetchJwks, JwksSource,
            fixture::{NOW, Signer, agent_identity, basic_claim, bearer_claim, claims, jwks, subject},
        },
        *,
    };
    use crate::drain::Drain;

    /// A key set server: what it answers can be changed, and its calls are counted.
    #[derive(Clone, Default)]
    struct Issuer {
        answer: Arc<Mutex<Option<Vec<u8>>>>,
        calls: Arc<AtomicUsize>,
    }

    impl Issuer {
        fn serves(&self, signers: &[&Signer]) -> &Self {
            let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
            *self.answer.lock().unwrap() = Some(jwks(&keys));
            self
        }

        fn fails(&self) {
            *self.answer.lock().unwrap() = None;
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }

        fn fetch(&self) -> FetchJwks {
            let issuer = self.clone();
            Arc::new(move |_url| {
                let issuer = issuer.clone();
                Box::pin(async move {
                    issuer.calls.fetch_add(1, Ordering::SeqCst);
                    // A network in between: whoever can run meanwhile does.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    issuer.answer.lock().unwrap().clone().ok_or_else(|| "connection refused".to_owned())
                })
            })
        }

        fn signed(&self) -> Signed {
            let source = JwksSource::Url("https://idp.example/jwks".into());
            let keys = Keys::open(source, self.fetch(), Drain::default()).unwrap();
            Signed::new(keys, Expected::new(None, None))
        }
    }

    fn ed(kid: &str) -> Signer {
        Signer::new(Algorithm::EdDSA, kid)
    }

    fn claim(signer: &Signer) -> Claim {
        agent_identity(&signer.sign(&claims()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_believed_as_header_bearer_and_password() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        let token = key.sign(&claims());
        for claim in [agent_identity(&token), bearer_claim(&token), basic_claim("globex/admin", &token)] {
            let identity = signed.identity(&claim, NOW).await.unwrap();
            assert_eq!(identity.subject, subject("acme", "researcher", Some("alice")));
        }
        for claim in [agent_identity("tenant=acme, role=researcher"), basic_claim("acme/researcher", "x")] {
            assert!(matches!(signed.identity(&claim, NOW).await, Err(Error::Invalid(_))));
        }
        assert_eq!(issuer.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_token_is_not_checked_again_and_never_outlives_its_exp() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        let claim = claim(&key);
        let first = signed.identity(&claim, NOW).await.unwrap();
        let again = signed.identity(&claim, NOW + 299).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let in_leeway = signed.identity(&claim, NOW + 300).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &in_leeway), "after exp it is checked each time");
        let expired = signed.identity(&claim, NOW + 360).await.unwrap_err();
        assert!(expired.to_string().contains("expired"), "{expired}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_fetched_once_and_a_rotation_is_followed() {
        let (issuer, old, new) = (Issuer::default(), ed("old"), ed("new"));
        let signed = issuer.serves(&[&old]).signed();
        signed.identity(&claim(&old), NOW).await.unwrap();
        issuer.serves(&[&new]);
        assert!(signed.identity(&claim(&new), NOW).await.is_ok());
        assert_eq!(issuer.calls(), 2);
        let withdrawn = signed.identity(&claim(&old), NOW).await.unwrap_err();
        assert!(withdrawn.to_string().contains("not in the key set"), "{withdrawn}");
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_make_at_most_one_fetch_a_minute() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        for n in 0..50 {
            let stranger = ed(&format!("stranger-{n}"));
            assert!(matches!(signed.identity(&claim(&stranger), NOW).await, Err(Error::Invalid(_))));
        }
        assert_eq!(issuer.calls(), 2, "the first fetch, and one for all strangers");
        assert!(signed.identity(&claim(&key), NOW).await.is_ok());
        advance(Duration::from_mins(1)).await;
        assert!(signed.identity(&claim(&ed("stranger")), NOW).await.is_err());
        assert_eq!(issuer.calls(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_other_algorithms_make_no_fetch() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        let none = Signer::unsigned(&json!({"alg": "none", "kid": "k9"}), &claims());
        assert!(matches!(signed.identity(&agent_identity(&none), NOW).await, Err(Error::Invalid(_))));
        assert_eq!(issuer.calls(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_first_requests_makes_one_fetch() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        let claims: Vec<Claim> = (0..20)
            .map(|n| bearer_claim(&key.sign(&json!({"tenant": "a", "role": "r", "exp": NOW + 9 + n}))))
            .collect();
        let all =
            futures_util::future::join_all(claims.iter().map(|claim| signed.identity(claim, NOW))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(issuer.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_when_the_one_who_asked_hangs_up() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        let claim = claim(&key);
        let hung_up = tokio::time::timeout(Duration::from_millis(1), signed.identity(&claim, NOW)).await;
        assert!(hung_up.is_err());
        assert!(signed.identity(&claim, NOW).await.is_ok());
        assert_eq!(issuer.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_keys_tokens_are_refused_as_unavailable_and_the_issuer_is_left_alone_a_while() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.signed();
        for _ in 0..10 {
            assert_eq!(signed.identity(&claim(&key), NOW).await, Err(Error::Unavailable));
        }
        assert_eq!(issuer.calls(), 1);
        issuer.serves(&[&key]);
        advance(Duration::from_secs(5)).await;
        assert!(signed.identity(&claim(&key), NOW).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_fetch_keeps_the_last_good_keys() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        signed.identity(&claim(&key), NOW).await.unwrap();
        issuer.fails();
        assert_eq!(signed.identity(&claim(&ed("new")), NOW).await, Err(Error::Unavailable));
        *issuer.answer.lock().unwrap() = Some(b"<html>".to_vec());
        advance(Duration::from_mins(1)).await;
        assert_eq!(signed.identity(&claim(&ed("new")), NOW).await, Err(Error::Unavailable));
        let fresh = bearer_claim(&key.sign(&claims()));
        assert!(signed.identity(&fresh, NOW).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawn_key_takes_remembered_tokens_along() {
        let (issuer, old, new) = (Issuer::default(), ed("old"), ed("new"));
        let signed = issuer.serves(&[&old]).signed();
        let remembered = claim(&old);
        signed.identity(&remembered, NOW).await.unwrap();
        issuer.serves(&[&new]);
        advance(Duration::from_secs(301)).await;
        signed.identity(&remembered, NOW).await.unwrap(); // the aged set; read again meanwhile
        tokio::time::sleep(Duration::from_millis(30)).await; // paused time: the reading ends
        assert!(matches!(signed.identity(&remembered, NOW).await, Err(Error::Invalid(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_could_not_be_read_for_an_hour_are_not_believed() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        let remembered = claim(&key);
        signed.identity(&remembered, NOW).await.unwrap();
        issuer.fails();
        advance(Duration::from_secs(3599)).await;
        assert!(signed.identity(&remembered, NOW).await.is_ok());
        advance(Duration::from_secs(7)).await;
        assert_eq!(signed.identity(&remembered, NOW).await, Err(Error::Unavailable));
        issuer.serves(&[&key]);
        advance(Duration::from_secs(6)).await;
        assert!(signed.identity(&remembered, NOW).await.is_ok());
    }

    #[tokio::test]
    async fn a_key_file_is_checked_at_start_and_read_again_for_an_unknown_key() {
        let (old, new) = (ed("old"), ed("new"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        let open = || Keys::open(JwksSource::File(path.clone()), Issuer::default().fetch(), Drain::default());
        assert!(open().err().unwrap().to_string().contains("jwks.json"));
        std::fs::write(&path, old.jwks()).unwrap();
        let signed = Signed::new(open().unwrap(), Expected::new(None, None));
        assert!(signed.identity(&claim(&old), NOW).await.is_ok());
        std::fs::write(&path, new.jwks()).unwrap();
        assert!(signed.identity(&claim(&new), NOW).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memo_is_bounded() {
        let (issuer, key) = (Issuer::default(), ed("k1"));
        let signed = issuer.serves(&[&key]).signed();
        for n in 0..REMEMBERED as u64 + 500 {
            let token = key.sign(&json!({"tenant": "acme", "role": "r", "exp": NOW + 300 + n}));
            signed.identity(&bearer_claim(&token), NOW).await.unwrap();
        }
        assert!(signed.memo.len() <= REMEMBERED, "{}", signed.memo.len());
    }
}
