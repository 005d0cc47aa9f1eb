//! From a token to frozen accounts: who sent it, is it believed, whom does it mean, was it here before.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::{
    config::Config,
    error::Refused,
    set::{EventType, Expected, SecurityEvent},
    subject::{Name, Subject},
};
use crate::{
    admin::{Desk, Error, scim::Directory},
    audit::{Event, Kind},
    drain::Drain,
    id::{TenantId, UserId},
    identity::{ConfigError, FetchJwks, Signers, Unverified, bearer},
    secret::Secret,
    vault::{self, FactKey, FactKind, Hold, Lift, Source, Whole},
};

/// How many events that were seen are kept before those that are too old by now are looked for.
const SWEEP_AFTER: u32 = 256;

/// Takes events. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Receiver(Arc<Inner>);

struct Inner {
    transmitters: Vec<Transmitter>,
    directory: Directory,
    drain: Drain,
    /// One event at a time, so that the same one is not acted upon twice at once. Counts to the next sweep.
    acting: Mutex<u32>,
}

struct Transmitter {
    config: Config,
    signers: Signers,
    token: Option<Secret>,
}

/// One thing to do.
struct Action {
    tenant: TenantId,
    event: EventType,
    users: BTreeSet<UserId>,
}

impl Receiver {
    pub(super) fn open(
        configs: &[Config],
        directory: Directory,
        fetch: &FetchJwks,
        drain: &Drain,
    ) -> Result<Self, Error> {
        let mut transmitters: Vec<Transmitter> = Vec::new();
        for config in configs {
            let wrong = |why: String| Error::Lifecycle(format!("lifecycle.ssf, {}: {why}", config.issuer));
            let same = |other: &Transmitter| {
                (&other.config.issuer, &other.config.audience) == (&config.issuer, &config.audience)
            };
            if transmitters.iter().any(same) {
                return Err(wrong("two entries have this issuer and audience".to_owned()));
            }
            if config.tenant.is_none() && config.tenants.is_empty() {
                return Err(wrong("name the tenant, or tenants by the subject's own".to_owned()));
            }
            let opened = Signers::open(config.jwks.clone(), Arc::clone(fetch), drain.clone());
            let signers = opened.map_err(|error| {
                wrong(match error {
                    ConfigError::File { path, why } => format!("jwks.file {}: {why}", path.display()),
                    _ => "jwks.url must be an https:// URL (http:// is taken for loopback only)".to_owned(),
                })
            })?;
            let token = config.token.as_ref().map(super::super::TokenSource::read).transpose()?;
            transmitters.push(Transmitter { config: config.clone(), signers, token });
        }
        let acting = Mutex::new(SWEEP_AFTER); // what an earlier process saw is swept with the first event
        Ok(Self(Arc::new(Inner { transmitters, directory, drain: drain.clone(), acting })))
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.0.directory.desk
    }

    /// Takes one token, at `now` in Unix seconds.
    pub(super) async fn receive(&self, headers: &HeaderMap, token: Secret, now: u64) -> Result<(), Refused> {
        let (at, transmitter) = self.transmitter(&token)?;
        if transmitter.token.as_ref().is_some_and(|own| bearer(headers).as_ref() != Some(own)) {
            return Err(Refused::Authorization);
        }
        let signed = transmitter.signers.verify(token).await.map_err(|error| match error {
            Unverified::Form => Refused::Request("the body is no JWT signed with EdDSA, ES256 or RS256"),
            Unverified::UnknownKey => Refused::Key,
            Unverified::Forged => Refused::Signature,
            Unverified::Unavailable => Refused::Unavailable,
        })?;
        let Config { issuer, audience, max_age, .. } = &transmitter.config;
        let expected = Expected { issuer, audience, max_age: max_age.as_secs(), now };
        let event = SecurityEvent::read(signed, &expected)?;
        // A task of its own: an event that has begun is finished, even if the transmitter hangs up.
        let receiver = self.clone();
        let done = self.0.drain.spawn(async move { receiver.act(at, event, now).await });
        done.await.unwrap_or(Err(Refused::Unavailable))
    }

    /// Who says to have sent it. What is read here is not believed yet.
    #[expect(clippy::disallowed_methods, reason = "whose keys to check it with has to be read out of it")]
    fn transmitter(&self, token: &Secret) -> Result<(usize, &Transmitter), Refused> {
        #[derive(Deserialize)]
        struct Claims {
            iss: String,
            #[serde(default)]
            aud: Value,
        }
        const FORM: Refused = Refused::Request("the body is no JWT with an issuer");
        let mut parts = token.expose().split(|byte| *byte == b'.');
        let payload = parts.nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).ok_or(FORM)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| FORM)?;
        let is_for = |audience: &str| match &claims.aud {
            Value::String(one) => one == audience,
            Value::Array(several) => several.iter().any(|one| one == audience),
            _ => false,
        };
        let of_issuer =
            || self.0.transmitters.iter().enumerate().filter(|(_, one)| one.config.issuer == claims.iss);
        match of_issuer().find(|(_, one)| is_for(&one.config.audience)) {
            Some(found) => Ok(found),
            None if of_issuer().next().is_some() => Err(Refused::Audience),
            None => Err(Refused::Issuer),
        }
    }

    async fn act(&self, at: usize, event: SecurityEvent, now: u64) -> Result<(), Refused> {
        let mut acting = self.0.acting.lock().await;
        let Some(Transmitter { config, .. }) = self.0.transmitters.get(at) else {
            return Err(Refused::Issuer);
        };
        let actions = self.actions(config, &event).await.map_err(unavailable)?;
        if let (true, Some(tenant)) = (actions.is_empty(), &config.tenant) {
            self.tell(tenant, None, "ssf.ignored", "nothing that is acted upon").await?;
        }
        for tenant in actions.iter().map(|action| &action.tenant).collect::<BTreeSet<_>>() {
            let seen = seen_key(tenant, &config.issuer, &event.jti);
            if self.desk().vault().fact(&seen).await.map_err(vault_failed)?.is_some() {
                self.tell(tenant, None, "ssf.repeated", &config.issuer).await?;
                continue;
            }
            for action in actions.iter().filter(|action| action.tenant == *tenant) {
                self.carry_out(config, &event, action).await?;
            }
            // Last: an event that was not carried out to its end must be, when it is sent again.
            let until = event.issued.saturating_add(config.max_age.as_secs());
            self.desk()
                .vault()
                .put_fact(&seen, None, until.to_string().as_bytes())
                .await
                .map_err(vault_failed)?;
            *acting += 1;
        }
        if *acting >= SWEEP_AFTER {
            *acting = 0;
            self.sweep(now).await.map_err(vault_failed)?;
        }
        Ok(())
    }

    /// What the event asks for, tenant by tenant.
    async fn actions(&self, config: &Config, event: &SecurityEvent) -> Result<Vec<Action>, Error> {
        let mut actions = Vec::new();
        for (event, subject) in &event.events {
            let of_subject = subject.tenant.as_ref().and_then(|tenant| config.tenants.get(tenant));
            let Some(tenant) = of_subject.or(config.tenant.as_ref()).cloned() else {
                tracing::warn!(issuer = config.issuer, "an event is about a tenant that is not configured");
                continue;
            };
            let users = self.users(config, &tenant, subject).await?;
            actions.push(Action { tenant, event: *event, users });
        }
        Ok(actions)
    }

    /// The users whom a subject means: those of the configuration, then those that SCIM knows, then whom the name
    /// itself names.
    async fn users(
        &self,
        config: &Config,
        tenant: &TenantId,
        subject: &Subject,
    ) -> Result<BTreeSet<UserId>, Error> {
        let mut users = BTreeSet::new();
        for name in &subject.names {
            let (text, naming) = match name {
                Name::Address(address) => (address, config.email),
                Name::Id { issuer: Some(issuer), .. }
                    if *issuer != config.issuer && !config.subject_issuers.contains(issuer) =>
                {
                    continue; // the same identifier of another issuer is somebody else
                }
                Name::Id { id, .. } => (id, config.sub),
            };
            let configured = config.users.iter().find(|(key, _)| key.eq_ignore_ascii_case(text));
            if let Some((_, user)) = configured {
                users.insert(user.clone());
                continue;
            }
            let known = self.0.directory.named(tenant, text).await?;
            if known.is_empty() {
                users.extend(naming.name(text));
            } else {
                users.extend(known);
            }
        }
        Ok(users)
    }

    async fn carry_out(
        &self,
        config: &Config,
        event: &SecurityEvent,
        action: &Action,
    ) -> Result<(), Refused> {
        let what = action.event.as_str();
        let lifts = action.event == EventType::AccountEnabled;
        if action.users.is_empty() || !(lifts || config.freeze_on.contains(&action.event)) {
            return self.tell(&action.tenant, None, "ssf.ignored", what).await;
        }
        let happened = i64::try_from(event.happened).ok().and_then(|at| Timestamp::from_second(at).ok());
        let since = happened.unwrap_or_else(Timestamp::now);
        for user in &action.users {
            self.tell(&action.tenant, Some(user), "ssf.event", what).await?;
            let (whose, source) = (Whole::of_user(&action.tenant, user), Source::Ssf(config.issuer.clone()));
            let done = if lifts {
                self.desk().lift(&whose, Lift::Of { source, until: Some(since) }).await.map(drop)
            } else {
                let by = format!("{what} of {}", config.issuer);
                self.desk().hold(&whose, Hold { source, by, since }).await.map(drop)
            };
            done.map_err(unavailable)?;
        }
        Ok(())
    }

    /// Records what came, before anything follows from it.
    async fn tell(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        event: &'static str,
        detail: &str,
    ) -> Result<(), Refused> {
        let event = Event {
            tenant: Some(tenant.clone()),
            user: user.cloned(),
            detail: Some(detail.to_owned().into()),
            ..Event::of(Kind::Account, event)
        };
        self.desk().audit().record(event).await.map_err(|error| unavailable(error.into()))
    }

    /// Forgets the events that would be too old by now.
    async fn sweep(&self, now: u64) -> Result<(), vault::Error> {
        for seen in self.desk().vault().facts(FactKind::Event, None).await? {
            let until: Option<u64> = str::from_utf8(&seen.text).ok().and_then(|text| text.parse().ok());
            if until.is_none_or(|until| until < now) {
                self.desk().vault().delete_fact(&seen.key, seen.generation).await?;
            }
        }
        Ok(())
    }
}

/// Under which name it is kept that an event was seen: issuers choose their `jti` as they like.
fn seen_key(tenant: &TenantId, issuer: &str, jti: &str) -> FactKey {
    let digest = Sha256::new().chain_update(issuer).chain_update([0]).chain_update(jti).finalize();
    FactKey { tenant: tenant.clone(), kind: FactKind::Event, name: URL_SAFE_NO_PAD.encode(digest) }
}

fn vault_failed(error: vault::Error) -> Refused {
    unavailable(error.into())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: Error) -> Refused {
    tracing::error!(%error, "a security event could not be acted upon");
    Refused::Unavailable
}
