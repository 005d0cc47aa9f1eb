//! One Security Event Token (RFC 8417), after its signature was checked.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{error::Refused, subject::Subject};
use crate::identity::SignedClaims;

/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 60;
/// The longest `jti`, in bytes.
const LONGEST_JTI: usize = 1024;

/// What happened, of what is acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventType {
    /// CAEP: sessions of the user were ended. RISC's older `sessions-revoked` is read as this.
    SessionRevoked,
    /// CAEP: a password, key or the like was made, changed or taken away.
    CredentialChange,
    /// RISC: the account was disabled.
    AccountDisabled,
    /// RISC: the account was deleted.
    AccountPurged,
    /// RISC: a credential of the account is known to others.
    CredentialCompromise,
    /// RISC: the account was enabled again.
    AccountEnabled,
}

impl EventType {
    /// What freezes an account unless the configuration says otherwise.
    pub(super) const FREEZING: [Self; 5] = [
        Self::SessionRevoked,
        Self::CredentialChange,
        Self::AccountDisabled,
        Self::AccountPurged,
        Self::CredentialCompromise,
    ];

    fn of(uri: &str) -> Option<Self> {
        let event = uri.strip_prefix("https://schemas.openid.net/secevent/")?;
        Some(match event {
            "caep/event-type/session-revoked" | "risc/event-type/sessions-revoked" => Self::SessionRevoked,
            "caep/event-type/credential-change" => Self::CredentialChange,
            "risc/event-type/account-disabled" => Self::AccountDisabled,
            "risc/event-type/account-purged" => Self::AccountPurged,
            "risc/event-type/credential-compromise" => Self::CredentialCompromise,
            "risc/event-type/account-enabled" => Self::AccountEnabled,
            _ => return None,
        })
    }

    /// As the configuration and the audit log name it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SessionRevoked => "session-revoked",
            Self::CredentialChange => "credential-change",
            Self::AccountDisabled => "account-disabled",
            Self::AccountPurged => "account-purged",
            Self::CredentialCompromise => "credential-compromise",
            Self::AccountEnabled => "account-enabled",
        }
    }
}

/// A token that was signed for us, lately.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecurityEvent {
    /// Tells it from all others of its issuer.
    pub(super) jti: String,
    /// When it was issued, in Unix seconds.
    pub(super) issued: u64,
    /// When it happened, in Unix seconds.
    pub(super) happened: u64,
    /// What happened to whom, of what is acted upon. Empty for all else, such as a test of the connection.
    pub(super) events: Vec<(EventType, Subject)>,
}

/// What a token is checked against.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    /// The oldest that is taken, in seconds.
    pub(super) max_age: u64,
    /// Now, in Unix seconds.
    pub(super) now: u64,
}

impl SecurityEvent {
    /// Reads what was signed.
    pub(super) fn read(signed: SignedClaims, expected: &Expected<'_>) -> Result<Self, Refused> {
        // An ID token or an access token of the same issuer is no event (RFC 8417 §4.5, RFC 8725 §3.11).
        let typ = signed.typ.unwrap_or_default().to_ascii_lowercase();
        if typ.trim_start_matches("application/") != "secevent+jwt" {
            return Err(Refused::Request("the token's typ is not secevent+jwt"));
        }
        let claims = &signed.claims;
        if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
            return Err(Refused::Issuer);
        }
        if !audiences(claims).any(|audience| audience == expected.audience) {
            return Err(Refused::Audience);
        }
        let issued = seconds(claims, "iat")?.ok_or(Refused::Request("the token lacks iat"))?;
        if issued > expected.now.saturating_add(LEEWAY) {
            return Err(Refused::Request("the token's iat is in the future"));
        }
        if issued.saturating_add(expected.max_age) < expected.now {
            return Err(Refused::Request("the token is too old (iat)"));
        }
        if seconds(claims, "exp")?.is_some_and(|until| until.saturating_add(LEEWAY) <= expected.now) {
            return Err(Refused::Request("the token has expired (exp)"));
        }
        let jti = claims.get("jti").and_then(Value::as_str);
        let jti = jti.filter(|jti| (1..=LONGEST_JTI).contains(&jti.len()));
        let jti = jti.ok_or(Refused::Request("the token lacks jti"))?.to_owned();
        // What has not happened yet is taken for what happens now.
        let happened = seconds(claims, "toe")?.unwrap_or(issued).min(expected.now);
        Ok(Self { jti, issued, happened, events: events(claims)? })
    }
}

fn audiences(claims: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let (one, several) = match claims.get("aud") {
        Some(Value::Array(several)) => (None, several.as_slice()),
        one => (one, [].as_slice()),
    };
    one.into_iter().chain(several).filter_map(Value::as_str)
}

/// A date (RFC 7519 §2: seconds, which may have a fraction).
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Refused> {
    let Some(value) = claims.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let date = value.as_f64().and_then(|date| std::time::Duration::try_from_secs_f64(date).ok());
    date.map(|date| Some(date.as_secs())).ok_or(Refused::Request("iat, toe and exp are dates"))
}

fn events(claims: &Map<String, Value>) -> Result<Vec<(EventType, Subject)>, Refused> {
    let all = claims.get("events").and_then(Value::as_object).filter(|all| !all.is_empty());
    let all = all.ok_or(Refused::Request("the token has no events"))?;
    let of_token = claims.get("sub_id");
    let mut known = Vec::new();
    for (uri, payload) in all {
        let Some(event) = EventType::of(uri) else { continue };
        // The final specifications have the subject beside the events, the drafts in each.
        let subject = of_token.or_else(|| payload.get("subject"));
        let subject = subject.ok_or(Refused::Request("the token has no sub_id"))?;
        let subject = Subject::read(subject).ok_or(Refused::Request("the token's subject cannot be read"))?;
        known.push((event, subject));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::subject::Name, *};

    const NOW: u64 = 1_800_000_000;
    const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

    fn claims() -> Value {
        json!({
            "iss": "https://idp.example", "aud": "https://kb.example", "iat": NOW - 5, "jti": "j1",
            "sub_id": {"format": "email", "email": "alice@acme.example"}, "events": {(REVOKED): {}},
        })
    }

    fn read_as(typ: Option<&str>, claims: &Value) -> Result<SecurityEvent, Refused> {
        let expected = Expected {
            issuer: "https://idp.example",
            audience: "https://kb.example",
            max_age: 600,
            now: NOW,
        };
        let claims = claims.as_object().unwrap().clone();
        SecurityEvent::read(SignedClaims { typ: typ.map(str::to_owned), claims }, &expected)
    }

    fn with(member: &str, value: Value) -> Result<SecurityEvent, Refused> {
        let mut claims = claims();
        claims[member] = value;
        read_as(Some("secevent+jwt"), &claims)
    }

    #[test]
    fn an_event_is_read() {
        let alice = Subject { names: vec![Name::Address("alice@acme.example".to_owned())], tenant: None };
        let expected = SecurityEvent {
            jti: "j1".to_owned(),
            issued: NOW - 5,
            happened: NOW - 5,
            events: vec![(EventType::SessionRevoked, alice.clone())],
        };
        assert_eq!(with("txn", json!(7)), Ok(expected));
        assert_eq!(with("toe", json!(NOW - 60)).unwrap().happened, NOW - 60);
        assert_eq!(with("toe", json!(NOW + 9000)).unwrap().happened, NOW);
        assert!(with("aud", json!(["x", "https://kb.example"])).is_ok());
        let mut draft = claims();
        let subject = draft.as_object_mut().unwrap().remove("sub_id").unwrap();
        draft["events"] = json!({(REVOKED): {"subject": subject}});
        assert_eq!(read_as(Some("SECEVENT+JWT"), &draft).unwrap().events[0].1, alice);
    }

    #[test]
    fn each_type_is_known_by_its_uri_and_named_as_it_is_configured() {
        for (uri, named) in [
            (REVOKED, "session-revoked"),
            ("https://schemas.openid.net/secevent/risc/event-type/sessions-revoked", "session-revoked"),
            ("https://schemas.openid.net/secevent/caep/event-type/credential-change", "credential-change"),
            ("https://schemas.openid.net/secevent/risc/event-type/account-disabled", "account-disabled"),
            ("https://schemas.openid.net/secevent/risc/event-type/account-purged", "account-purged"),
            (
                "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
                "credential-compromise",
            ),
            ("https://schemas.openid.net/secevent/risc/event-type/account-enabled", "account-enabled"),
        ] {
            let event = EventType::of(uri).unwrap();
            assert_eq!(event.as_str(), named);
            assert_eq!(serde_json::from_value::<EventType>(json!(named)).unwrap(), event);
        }
    }

    #[test]
    fn events_that_nothing_follows_from_are_taken() {
        let verification = "https://schemas.openid.net/secevent/ssf/event-type/verification";
        assert_eq!(with("events", json!({(verification): {"state": "x"}})).unwrap().events, []);
        assert_eq!(with("events", json!({"https://acme.example/own": {}})).unwrap().events, []);
    }

    #[test]
    fn a_token_that_is_no_event_for_us_of_now_is_refused() {
        let request = |found: Result<SecurityEvent, Refused>| matches!(found, Err(Refused::Request(_)));
        for typ in [None, Some("JWT"), Some("at+jwt"), Some("secevent")] {
            assert!(request(read_as(typ, &claims())), "{typ:?}");
        }
        assert_eq!(with("iss", json!("https://evil.example")), Err(Refused::Issuer));
        assert_eq!(with("iss", json!(null)), Err(Refused::Issuer));
        for audience in [json!("https://kb.example/"), json!(["x"]), json!([]), json!(null), json!(7)] {
            assert_eq!(with("aud", audience.clone()), Err(Refused::Audience), "{audience}");
        }
        for (member, value) in [
            ("iat", json!(NOW - 601)),
            ("iat", json!(NOW + LEEWAY + 1)),
            ("iat", json!(null)),
            ("iat", json!("now")),
            ("iat", json!(-1)),
            ("exp", json!(NOW - LEEWAY)),
            ("jti", json!(null)),
            ("jti", json!("")),
            ("jti", json!("x".repeat(LONGEST_JTI + 1))),
            ("events", json!(null)),
            ("events", json!({})),
            ("events", json!([])),
            ("sub_id", json!("alice")),
            ("sub_id", json!({"format": "email"})),
        ] {
            assert!(request(with(member, value.clone())), "{member} {value}");
        }
        assert!(with("iat", json!(NOW - 600)).is_ok() && with("iat", json!(NOW + LEEWAY)).is_ok());
    }
}
