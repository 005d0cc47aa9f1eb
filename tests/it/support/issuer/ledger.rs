//! What was granted to whom, which token was sold for which, and what nobody is forgiven.

use std::collections::{HashMap, HashSet};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    profile::{AccessForm, Grace, OldAccess, Profile, Reach, Rotation},
    refusal::{Cause, Why},
};

/// What every token and secret begins with, so that `tests/canary.rs` finds it wherever it should not be.
pub(super) const MARK: &str = "kb-canary";

/// What a client did that a strict provider punishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Two POSTs with one refresh token at the same time.
    Together { account: String, generation: usize },
    /// A refresh token that was sold, and whose answer went out whole, came back.
    SpentTwice { account: String, generation: usize },
    /// A code came back.
    CodeTwice,
    /// The client named itself in the body and as Basic.
    ProvedTwice,
    /// A secret stood in a URL.
    InUrl(String),
    /// A redirect of the token endpoint was followed.
    Followed,
}

/// What a token request gets when all is well.
#[derive(Clone, Debug)]
pub(crate) struct Sold {
    pub(crate) generation: usize,
    pub(crate) access: String,
    pub(crate) access_until: Timestamp,
    /// None where none is told: no offline access, or the one before stays.
    pub(crate) refresh: Option<String>,
    pub(crate) scopes: Vec<String>,
}

/// What a token at the API is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    Live {
        account: String,
        generation: usize,
    },
    Expired,
    /// Its consent ended, or a refresh killed it.
    Revoked,
    Unknown,
}

/// Which consent, and which of its generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    consent: usize,
    generation: usize,
}

/// What one person agreed to.
#[derive(Debug)]
struct Consent {
    account: String,
    client: String,
    scopes: Vec<String>,
    offline: bool,
    redirect_uri: Option<String>,
    ended: Option<Cause>,
    generations: Vec<Generation>,
}

#[derive(Debug)]
struct Generation {
    access_until: Timestamp,
    access_used: bool,
    refresh: Option<String>,
    refresh_until: Option<Timestamp>,
    touched: Timestamp,
    spent: Option<Timestamp>,
    /// The answer that spent it went out whole.
    answered: bool,
    in_flight: usize,
}

/// What a code stands for.
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) account: String,
    pub(super) scopes: Vec<String>,
    pub(super) offline: bool,
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<String>,
}

#[derive(Default)]
pub(super) struct Ledger {
    consents: Vec<Consent>,
    refresh: HashMap<String, Place>,
    access: HashMap<String, Place>,
    codes: HashMap<String, Option<Code>>,
    assertions: HashSet<String>,
    violations: Vec<Violation>,
}

/// How a consent begins.
pub(super) struct Begun {
    pub(super) account: String,
    pub(super) client: String,
    pub(super) scopes: Vec<String>,
    pub(super) offline: bool,
    pub(super) redirect_uri: Option<String>,
}

impl Ledger {
    /// The first tokens of a new consent.
    pub(super) fn begin(&mut self, begun: Begun, profile: &Profile, now: Timestamp) -> Sold {
        let Begun { account, client, scopes, offline, redirect_uri } = begun;
        let generations = Vec::new();
        self.consents.push(Consent {
            account,
            client,
            scopes,
            offline,
            redirect_uri,
            ended: None,
            generations,
        });
        self.sell(self.consents.len() - 1, profile, now)
    }

    /// The next tokens for a refresh token.
    pub(super) fn refresh(
        &mut self,
        token: &str,
        client: &str,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<Sold, Why> {
        let place = *self.refresh.get(token).ok_or(Why::Grant(Cause::Unknown))?;
        let consent = &self.consents[place.consent];
        if consent.client != client {
            return Err(Why::Grant(Cause::OtherClient));
        }
        if let Some(cause) = consent.ended {
            return Err(Why::Grant(cause));
        }
        let generation = &consent.generations[place.generation];
        if generation.refresh_until.is_some_and(|until| until <= now) {
            return Err(Why::Grant(Cause::Expired));
        }
        if profile.idle_seconds.is_some_and(|idle| generation.touched + seconds(idle) <= now) {
            return Err(Why::Grant(Cause::Idle));
        }
        if !self.forgiven(place, profile, now) {
            if profile.reuse_revokes {
                self.consents[place.consent].ended = Some(Cause::Unknown);
            }
            return Err(Why::Grant(Cause::Unknown));
        }
        Ok(self.exchange(place, profile, now))
    }

    /// Whether a refresh token was not spent yet, or the provider takes it again.
    fn forgiven(&self, place: Place, profile: &Profile, now: Timestamp) -> bool {
        let consent = &self.consents[place.consent];
        let (Some(spent), Rotation::Single(grace)) =
            (consent.generations[place.generation].spent, profile.rotation)
        else {
            return true;
        };
        match grace {
            Grace::None => false,
            Grace::Seconds(grace) => now <= spent + seconds(grace),
            Grace::UntilReplacementUsed => {
                let later = &consent.generations[place.generation + 1..];
                later.iter().all(|next| next.spent.is_none() && !next.access_used)
            }
            Grace::Forever => true,
        }
    }

    fn exchange(&mut self, place: Place, profile: &Profile, now: Timestamp) -> Sold {
        let latest = self.consents[place.consent].generations.len() - 1;
        for generation in &mut self.consents[place.consent].generations[place.generation..=latest] {
            match profile.old_access {
                OldAccess::Lives => {}
                OldAccess::Dies => generation.access_until = generation.access_until.min(now),
                OldAccess::DiesAfter(after) => {
                    generation.access_until = generation.access_until.min(now + seconds(after));
                }
            }
        }
        let generation = &mut self.consents[place.consent].generations[place.generation];
        if profile.rotation != Rotation::Never {
            generation.spent.get_or_insert(now);
        }
        let old = generation.refresh.clone();
        let mut sold = self.sell(place.consent, profile, now);
        if profile.rotation == Rotation::Never
            && let Some(old) = old
        {
            let place = self.access[&sold.access];
            let made =
                self.consents[place.consent].generations[place.generation].refresh.replace(old.clone());
            self.refresh.remove(&made.unwrap());
            self.refresh.insert(old, place);
            sold.refresh = None;
        }
        sold
    }

    fn sell(&mut self, consent: usize, profile: &Profile, now: Timestamp) -> Sold {
        let of = &mut self.consents[consent];
        let generation = of.generations.len();
        let label = format!("{}-{generation}-{}", of.account, uuid::Uuid::now_v7().simple());
        let access_until = now + seconds(profile.access_seconds);
        let access = match profile.access_form {
            AccessForm::Opaque => format!("{MARK}-at-{label}"),
            AccessForm::Jwt => jwt(&format!("{MARK}-at-{label}"), access_until),
        };
        let refresh = of.offline.then(|| format!("{MARK}-rt-{label}"));
        of.generations.push(Generation {
            access_until,
            access_used: false,
            refresh: refresh.clone(),
            refresh_until: profile.refresh_expiry.map(|(_, life)| now + seconds(life)),
            touched: now,
            spent: None,
            answered: false,
            in_flight: 0,
        });
        let scopes = of.scopes.clone();
        let place = Place { consent, generation };
        self.access.insert(access.clone(), place);
        self.refresh.extend(refresh.clone().map(|refresh| (refresh, place)));
        Sold { generation, access, access_until, refresh, scopes }
    }

    /// Notes that a POST with this refresh token has come.
    pub(super) fn arrived(&mut self, refresh: &str) -> Option<Place> {
        let place = *self.refresh.get(refresh)?;
        let consent = &mut self.consents[place.consent];
        let account = consent.account.clone();
        let generation = &mut consent.generations[place.generation];
        generation.in_flight += 1;
        if generation.in_flight > 1 {
            self.violations.push(Violation::Together { account, generation: place.generation });
        } else if generation.answered {
            self.violations.push(Violation::SpentTwice { account, generation: place.generation });
        }
        Some(place)
    }

    /// Notes that the POST is over, and whether an answer that sold its token went out whole.
    pub(super) fn left(&mut self, place: Place, sold_and_answered: bool) {
        let generation = &mut self.consents[place.consent].generations[place.generation];
        generation.in_flight -= 1;
        generation.answered |= sold_and_answered && generation.spent.is_some();
    }

    pub(super) fn account(&self, place: Place) -> (String, usize) {
        (self.consents[place.consent].account.clone(), place.generation)
    }

    /// What an access token is worth now. A live one counts as used.
    pub(super) fn worth(&mut self, access: &str, now: Timestamp) -> Worth {
        let Some(place) = self.access.get(access) else { return Worth::Unknown };
        let consent = &mut self.consents[place.consent];
        let superseded = consent.generations[place.generation].spent.is_some();
        let generation = &mut consent.generations[place.generation];
        if consent.ended.is_some() {
            Worth::Revoked
        } else if generation.access_until <= now {
            if superseded { Worth::Revoked } else { Worth::Expired }
        } else {
            generation.access_used = true;
            Worth::Live { account: consent.account.clone(), generation: place.generation }
        }
    }

    /// Client, scopes and end of a live access or refresh token.
    pub(super) fn introspect(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Option<(String, String, Vec<String>, Option<Timestamp>)> {
        let access = self.access.get(token);
        let place = *access.or_else(|| self.refresh.get(token))?;
        let consent = &self.consents[place.consent];
        let generation = &consent.generations[place.generation];
        let until = if access.is_some() { Some(generation.access_until) } else { generation.refresh_until };
        let live = consent.ended.is_none()
            && until.is_none_or(|until| until > now)
            && (access.is_some() || generation.spent.is_none());
        live.then(|| (consent.account.clone(), consent.client.clone(), consent.scopes.clone(), until))
    }

    /// What revoking the token ends. Whether it was known.
    pub(super) fn revoke(&mut self, token: &str, reach: Reach, now: Timestamp) -> bool {
        let of_access = self.access.get(token).copied();
        let Some(place) = of_access.or_else(|| self.refresh.get(token).copied()) else { return false };
        let consent = &mut self.consents[place.consent];
        match (reach, of_access) {
            (Reach::Consent, _) => consent.ended = Some(Cause::Revoked),
            (Reach::Token, Some(_)) => consent.generations[place.generation].access_until = now,
            (Reach::RefreshOnly, Some(_)) => {}
            (Reach::RefreshOnly | Reach::Token, None) => {
                for generation in &mut consent.generations {
                    generation.refresh_until = Some(now);
                }
            }
        }
        true
    }

    pub(super) fn end(&mut self, account: &str, cause: Cause) {
        for consent in self.consents.iter_mut().filter(|consent| consent.account == account) {
            consent.ended = Some(cause);
        }
    }

    pub(super) fn rescope(&mut self, account: &str, scopes: &[&str]) {
        for consent in self.consents.iter_mut().filter(|consent| consent.account == account) {
            consent.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        }
    }

    /// What a live access token was granted.
    pub(super) fn scopes_of(&self, access: &str) -> &[String] {
        self.access.get(access).map_or(&[], |place| &self.consents[place.consent].scopes)
    }

    /// What the consent behind a refresh token was given with.
    pub(super) fn terms(&self, refresh: &str) -> Option<(&[String], Option<&str>)> {
        let consent = &self.consents[self.refresh.get(refresh)?.consent];
        Some((&consent.scopes, consent.redirect_uri.as_deref()))
    }

    pub(super) fn offer(&mut self, code: Code) -> String {
        let text = format!("{MARK}-code-{}", uuid::Uuid::now_v7().simple());
        self.codes.insert(text.clone(), Some(code));
        text
    }

    /// A code, once.
    pub(super) fn redeem(&mut self, code: &str) -> Result<Code, Why> {
        let slot = self.codes.get_mut(code).ok_or(Why::Grant(Cause::Unknown))?;
        slot.take().ok_or_else(|| {
            self.violations.push(Violation::CodeTwice);
            Why::Grant(Cause::Unknown)
        })
    }

    /// Whether an assertion's id has not been seen before.
    pub(super) fn is_new(&mut self, assertion: &str) -> bool {
        self.assertions.insert(assertion.to_owned())
    }

    pub(super) fn violated(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(super) fn pardon(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }
}

pub(super) fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

/// A JWT that nobody checks but for its `exp`.
fn jwt(id: &str, until: Timestamp) -> String {
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "none", "typ": "at+jwt"}));
    format!("{header}.{}.{MARK}", part(json!({"jti": id, "exp": until.as_second()})))
}
