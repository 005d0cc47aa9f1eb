//! Connecting an account: a person is asked, comes back, and what they consented to is stored.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Asked, Consents, Desk, Error, Fault, Misfit, Reply,
    consent::{Answered, Outcome, Untaken},
    desk::Change,
    fit::{check_metadata, connector_to_connect},
};
use crate::{
    catalog::{Connector, Repinned},
    id::{AccountKey, ActionId, Scope},
    oauth::{
        self, Ask, Callback, CallbackError, Consented, HostRefused, NotSent, Pending, Provider,
        TokenEndpoint, Tokens, Values,
    },
    ruleset::Needs,
    vault::{self, Access, Account, Grant, GrantState, Material, NewAccount},
};

/// An account that a person has just connected.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) account: Account,
    /// What was asked for and is not there.
    pub(super) missing: Vec<Scope>,
}

/// Why a callback connected nothing. Neither a code nor a token is in it, nor a text of the provider's but its error code.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{source}{}", said(code.as_deref()))]
    Callback { source: CallbackError, code: Option<String> },
    #[error("{}", Fault::over().detail)]
    Late,
    #[error("the provider gave no tokens for the consent: {}; {}", .0, way_out(.0))]
    Exchange(#[from] oauth::Failure),
    #[error(
        "the provider does not say whose account it is; whoever runs the proxy has to correct the connector's subject_from"
    )]
    Subject,
    #[error("{0}")]
    Host(#[from] HostRefused),
    #[error("the provider names {0} for this account, which is none of the connector's hosts")]
    Foreign(String),
    #[error(transparent)]
    Desk(#[from] Error),
}

fn said(code: Option<&str>) -> String {
    code.map(|code| format!(" (it says {code})")).unwrap_or_default()
}

/// Who can do something about an exchange that failed.
const fn way_out(failure: &oauth::Failure) -> &'static str {
    match failure {
        oauth::Failure::App(_) | oauth::Failure::Unreadable(_) => "whoever runs the proxy has to mend that",
        _ => "begin again with `keybearer account connect`, later if that does not help",
    }
}

impl Refused {
    fn unknown(source: CallbackError) -> Self {
        Self::Callback { source, code: None }
    }

    fn code(&self) -> &str {
        match self {
            Self::Callback { source: CallbackError::Declined, .. } => "consent_declined",
            Self::Callback { .. } => "consent_refused",
            Self::Late => "consent_over",
            Self::Exchange(_) => "exchange_failed",
            Self::Subject => "subject_missing",
            Self::Host(_) | Self::Foreign(_) => "host_refused",
            Self::Desk(error) => error.code(),
        }
    }

    fn fault(&self) -> Fault {
        Fault { error: self.code().to_owned(), detail: self.to_string() }
    }
}

impl Desk {
    /// Makes the URL that a person opens to connect the account.
    pub(super) async fn ask(
        &self,
        account: AccountKey,
        metadata: BTreeMap<String, String>,
    ) -> Result<Reply, Error> {
        let consents = self.consents()?;
        let rules = self.rules().current();
        let connector = connector_to_connect(&rules.catalog, &account.connector, &metadata)?;
        let needs = rules.needs(&account, connector);
        let Needs { scopes, provider_scopes } =
            needs.ok_or_else(|| Misfit::Unused(Box::new(account.clone())))?;
        let provider = provider_of(connector)?;
        let app = consents.app(&account.connector, &account.tenant)?;
        let redirect_url = consents.redirect_url()?.to_owned();
        self.vault().account(&account).await?; // one that does not open is told before anybody is asked
        let values: Values<'_> = &|name: &str| metadata.get(name).map(String::as_str);
        let ask = Ask { scopes: &provider_scopes, claims: None };
        let (url, pending) = provider.consent(app, &redirect_url, ask, values)?;
        let asked = Asked {
            id: ActionId::now(),
            account,
            url,
            scopes,
            provider_scopes: pending.scopes().to_vec(),
            redirect_url,
            until: Consents::until(),
        };
        consents.remember(asked.clone(), metadata, pending)?;
        Ok(Reply::Asked(Box::new(asked)))
    }

    /// What came of a consent: the account, or that nothing has come yet.
    pub(super) async fn outcome(&self, id: ActionId) -> Result<Reply, Error> {
        match self.consents()?.wait(id).await? {
            (asked, Outcome::Open) => Ok(Reply::Asked(Box::new(asked))),
            (asked, Outcome::Connected) => self.reply(&self.existing(&asked.account).await?).await,
            (_, Outcome::Failed(fault)) => Err(Error::NotConnected(fault)),
        }
    }

    /// Takes a question back. Where somebody has answered it already, what comes of that is the reply.
    pub(super) async fn withdraw(&self, id: ActionId) -> Result<Reply, Error> {
        if self.consents()?.withdraw(id) { Ok(Reply::Withdrawn(id)) } else { self.outcome(id).await }
    }

    /// A person is back. What has begun is finished even if they go away.
    pub(super) async fn called_back(&self, query: &str) -> Result<Connected, Refused> {
        let consents = self.consents()?;
        let callback = Callback::parse(query).map_err(Refused::unknown)?;
        let (answered, pending) = consents.take(&callback).map_err(|untaken| match untaken {
            Untaken::Unknown => Refused::unknown(CallbackError::State),
            Untaken::Late => Refused::Late,
        })?;
        let desk = self.clone();
        let connected = self.drain().spawn(async move {
            let connected = desk.connect(&answered, pending, callback).await;
            answered.tell(match &connected {
                Ok(_) => Outcome::Connected,
                Err(refused) => Outcome::Failed(refused.fault()),
            });
            connected
        });
        connected.await.map_err(|_| Error::Interrupted)?
    }

    async fn connect(
        &self,
        answered: &Answered,
        pending: Pending,
        callback: Callback,
    ) -> Result<Connected, Refused> {
        let connected = self.consented(answered, pending, callback).await;
        if let Err(refused) = &connected
            && !matches!(refused, Refused::Desk(Error::Audit(_)))
        {
            self.record_refusal(&answered.asked.account, refused.code()).await;
        }
        connected
    }

    async fn consented(
        &self,
        answered: &Answered,
        pending: Pending,
        callback: Callback,
    ) -> Result<Connected, Refused> {
        let Asked { id, account: key, scopes, .. } = answered.asked.clone();
        let code = callback.error_code().map(str::to_owned);
        let consented = pending.answered(callback).map_err(|source| {
            // Who answers under another issuer's name is not quoted.
            let is_theirs = !matches!(source, CallbackError::Issuer | CallbackError::State);
            Refused::Callback { source, code: code.filter(|_| is_theirs) }
        })?;
        let rules = self.rules().current();
        let fits = connector_to_connect(&rules.catalog, &key.connector, &answered.metadata);
        let connector = Arc::clone(fits.map_err(Error::from)?);
        let (tokens, granted) = self.exchanged(&key, &connector, &answered.metadata, &consented).await?;
        let metadata = placed(&connector, &answered.metadata, &tokens)?;
        let held = connector.scopes_of(&granted);
        let missing = scopes.difference(&held).cloned().collect();
        let new = NewAccount {
            key,
            material: Material::Oauth(Box::new(grant(provider_of(&connector)?, tokens, granted))),
            scopes: Some(held),
            metadata,
            authorization: Some(id.to_string()),
        };
        let account = self.alone(|desk| async move { desk.store(id, new).await }).await?;
        Ok(Connected { account, missing })
    }

    /// Exchanges the code. The tokens, and the provider's scopes that they have.
    async fn exchanged(
        &self,
        key: &AccountKey,
        connector: &Connector,
        metadata: &BTreeMap<String, String>,
        consented: &Consented,
    ) -> Result<(Tokens, Vec<String>), Refused> {
        let consents = self.consents()?;
        let app = consents.app(&key.connector, &key.tenant)?;
        let provider = provider_of(connector)?;
        let values: Values<'_> = &|name: &str| metadata.get(name).map(String::as_str);
        let endpoint = TokenEndpoint::new(consents.transport(), provider, app, values)?;
        let mut tokens = consented.exchange(&endpoint).await?.read(&provider.dialect)?;
        let granted = consented.granted(&tokens).map_err(Refused::unknown)?;
        if provider.dialect.introspect_url.is_some()
            && (tokens.subject.is_none() || tokens.expires.is_none())
            && let Ok(learnt) = endpoint.introspect(&tokens.access).await
        {
            tokens.subject = tokens.subject.or(learnt.subject);
            tokens.expires = tokens.expires.or(learnt.expires);
        }
        if provider.dialect.subject_from.is_some() && tokens.subject.is_none() {
            return Err(Refused::Subject); // anybody could take such an account over
        }
        Ok((tokens, granted))
    }

    /// Records the consent, then stores what it gave.
    async fn store(&self, id: ActionId, new: NewAccount) -> Result<Account, Error> {
        let key = new.key.clone();
        let before = self.vault().account(&key).await?;
        if let Some(before) = &before
            && !new.may_follow(before)
        {
            return Err(vault::Error::OtherSubject(key).into());
        }
        let change = Change {
            event: "account.connected",
            detail: None,
            generation: before.map_or(1, |before| before.generation + 1),
            authorization: new.authorization.clone(),
            scopes: new.scopes.clone(),
        };
        self.record(id, &key, change).await?;
        self.made(&key, self.vault().connect(new).await).await
    }
}

fn provider_of(connector: &Connector) -> Result<&Arc<Provider>, Error> {
    let no_consent = || Misfit::NoConsent(connector.name.clone()).into();
    connector.auth.provider.as_ref().ok_or_else(no_consent)
}

/// The account's metadata, with the host that the provider names for it.
fn placed(
    connector: &Connector,
    metadata: &BTreeMap<String, String>,
    tokens: &Tokens,
) -> Result<BTreeMap<String, String>, Refused> {
    let placed = match tokens.host.as_ref().map_err(|refused| *refused)? {
        None => metadata.clone(),
        Some(target) => match connector.repin(metadata, target) {
            Repinned::Same => metadata.clone(),
            Repinned::Moved(moved) => moved,
            Repinned::Foreign => return Err(Refused::Foreign(target.to_string())),
        },
    };
    check_metadata(connector, &placed).map_err(Error::from)?;
    Ok(placed)
}

fn grant(provider: &Provider, tokens: Tokens, provider_scopes: Vec<String>) -> Grant {
    let at_most = provider.dialect.hard_ttl.and_then(|life| tokens.obtained.checked_add(life.0).ok());
    Grant {
        access: Some(Access { token: tokens.access, expires: tokens.expires, obtained: tokens.obtained }),
        refresh: tokens.refresh,
        refresh_expires: tokens.refresh_expires,
        deadline: tokens.deadline.or(at_most),
        subject: tokens.subject,
        provider_scopes,
        used: None,
        state: GrantState::Fresh,
    }
}

impl From<NotSent> for Error {
    fn from(why: NotSent) -> Self {
        Self::Ask(why)
    }
}

#[cfg(test)]
mod tests;
