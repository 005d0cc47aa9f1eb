//! Whether an account fits its connector as the policy files describe it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{AuthType, Catalog, Connector},
    document::did_you_mean,
    id::{AccountKey, ConnectorName, Scope},
};

/// Why an account would be of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The policy files have no such connector.
    #[error("there is no connector {name}{guess}")]
    Connector {
        /// As it was written.
        name: ConnectorName,
        /// `; did you mean ...?`, or nothing.
        guess: String,
    },
    /// The connector injects nothing.
    #[error("connector {0} has `auth: {{type: none}}`: it needs no account")]
    NoAuth(ConnectorName),
    /// Nobody can be asked for consent.
    #[error(
        "connector {0} asks nobody for consent: it has no `auth.authorize_url`; add its account with `keybearer account add`"
    )]
    NoConsent(ConnectorName),
    /// The policy lets no request use the account.
    #[error(
        "no role's grants use {0}: nothing would be asked for; name the principal that a grant has as `as:`"
    )]
    Unused(Box<AccountKey>),
    /// The connector's hosts leave something open that the account does not fill.
    #[error(
        "connector {connector} is at {host}, and the account does not say which {name}: add --meta {name}=..."
    )]
    Metadata {
        /// The connector.
        connector: ConnectorName,
        /// Its host pattern.
        host: String,
        /// What is open in it.
        name: String,
    },
    /// What fills a host makes no host of that pattern.
    #[error("the metadata {name}={value} makes no host of connector {connector} ({hosts})")]
    Host {
        /// The connector.
        connector: ConnectorName,
        /// Its host patterns.
        hosts: String,
        /// Which of the metadata.
        name: String,
        /// What it says.
        value: String,
    },
    /// The connector has no such scope.
    #[error("connector {connector} has no scope {scope}{guess}")]
    Scope {
        /// The connector.
        connector: ConnectorName,
        /// As it was written.
        scope: Scope,
        /// `; did you mean ...?`, or nothing.
        guess: String,
    },
}

/// What is to be given for an account, as its connector wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// The external system.
    pub connector: ConnectorName,
    /// The kind of its credentials.
    pub kind: AuthType,
    /// What a secret consists of, by name.
    pub fields: Vec<String>,
    /// Whether tokens may be minted without a secret of the account's own.
    pub may_mint: bool,
}

/// What is to be given for an account of this connector. What is known of the account has to fit: where there is
/// metadata, it has to say all that a new account's must.
///
/// # Errors
/// [`Misfit`], for the first thing that does not fit.
pub fn form(
    catalog: &Catalog,
    name: &ConnectorName,
    scopes: Option<&BTreeSet<Scope>>,
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<Form, Misfit> {
    let connector = match metadata {
        Some(metadata) => connector_for(catalog, name, scopes, metadata)?,
        None => connector_of(catalog, name)?,
    };
    let (kind, fields) = (connector.auth.kind, connector.auth.fields.clone());
    Ok(Form { connector: name.clone(), kind, fields, may_mint: connector.auth.may_mint() })
}

/// The connector of a new account, if the account fits it.
///
/// # Errors
/// [`Misfit`], for the first thing that does not fit.
pub(super) fn connector_for<'a>(
    catalog: &'a Catalog,
    name: &ConnectorName,
    scopes: Option<&BTreeSet<Scope>>,
    metadata: &BTreeMap<String, String>,
) -> Result<&'a Arc<Connector>, Misfit> {
    let connector = connector_of(catalog, name)?;
    check_metadata(connector, metadata)?;
    check_scopes(connector, scopes.into_iter().flatten())?;
    Ok(connector)
}

/// The connector of an account that a person is to consent to, if the account fits it.
///
/// # Errors
/// [`Misfit`], for the first thing that does not fit.
pub fn connector_to_connect<'a>(
    catalog: &'a Catalog,
    name: &ConnectorName,
    metadata: &BTreeMap<String, String>,
) -> Result<&'a Arc<Connector>, Misfit> {
    let connector = connector_of(catalog, name)?;
    if !asks_consent(connector) {
        return Err(Misfit::NoConsent(name.clone()));
    }
    match check_metadata(connector, metadata) {
        Err(Misfit::Metadata { .. }) if names_host(connector) => {}
        checked => checked?,
    }
    Ok(connector)
}

/// Whether a person can be asked for consent.
pub(super) fn asks_consent(connector: &Connector) -> bool {
    let url = connector.auth.provider.as_ref().and_then(|provider| provider.authorize_url.as_ref());
    connector.auth.kind == AuthType::Oauth2 && url.is_some()
}

/// Whether the provider says with the tokens where the account is.
pub(super) fn names_host(connector: &Connector) -> bool {
    connector.auth.provider.as_ref().is_some_and(|provider| provider.dialect.host_from.is_some())
}

/// The connector of that name, which must take accounts.
///
/// # Errors
/// [`Misfit::Connector`], [`Misfit::NoAuth`].
pub(super) fn connector_of<'a>(
    catalog: &'a Catalog,
    name: &ConnectorName,
) -> Result<&'a Arc<Connector>, Misfit> {
    let Some(connector) = catalog.connector(name.as_str()) else {
        let guess = did_you_mean(name.as_str(), catalog.connectors().map(|other| other.name.as_str()));
        return Err(Misfit::Connector { name: name.clone(), guess });
    };
    match connector.auth.kind {
        AuthType::None => Err(Misfit::NoAuth(name.clone())),
        _ => Ok(connector),
    }
}

/// What an account's metadata must say, because all of the connector's hosts leave it open. Where one host is
/// fixed, the others are for accounts that say more.
pub fn needed(connector: &Connector) -> impl Iterator<Item = &str> {
    let all_open = connector.hosts.iter().all(|host| host.placeholder().is_some());
    connector.placeholders().take(usize::from(all_open))
}

fn check_scopes<'a>(
    connector: &Connector,
    mut scopes: impl Iterator<Item = &'a Scope>,
) -> Result<(), Misfit> {
    match scopes.find(|scope| !connector.scopes.contains_key(*scope)) {
        None => Ok(()),
        Some(scope) => Err(Misfit::Scope {
            connector: connector.name.clone(),
            scope: scope.clone(),
            guess: did_you_mean(scope.as_str(), connector.scopes.keys().map(Scope::as_str)),
        }),
    }
}

pub(super) fn check_metadata(
    connector: &Connector,
    metadata: &BTreeMap<String, String>,
) -> Result<(), Misfit> {
    let no_host = |name: &str, value: &str| Misfit::Host {
        connector: connector.name.clone(),
        hosts: connector.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let has_target = connector.target(metadata).is_some();
    if let Some(url) = metadata.get("instance_url").filter(|_| !has_target) {
        return Err(no_host("instance_url", url));
    }
    for pattern in &connector.hosts {
        if let Some(name) = pattern.placeholder()
            && let Some(value) = metadata.get(name)
            && pattern.fill(value).is_none()
        {
            return Err(no_host(name, value));
        }
    }
    match needed(connector).next() {
        Some(name) if !has_target => Err(Misfit::Metadata {
            connector: connector.name.clone(),
            host: connector.hosts.first().map(ToString::to_string).unwrap_or_default(),
            name: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let describe = |name: &str, hosts: &str, auth: &str, inject: &str| {
            let spec = format!(
                "{{hosts: {hosts}, auth: {{type: {auth}}}, inject: {inject}, scopes: {{\"items:read\": []}}}}"
            );
            (name.parse().unwrap(), serde_saphyr::from_str(&spec).unwrap())
        };
        let token = r#"[{header: Authorization, value: "Bearer {token}"}]"#;
        Catalog::compile(vec![
            describe("salesforce", r#"["{instance}.sf.test"]"#, "static", token),
            describe("openai", r#"["api.ai.test", "{region}.ai.test"]"#, "static", token),
            describe("open", r#"["open.test"]"#, "none", "[]"),
        ])
        .unwrap()
    }

    fn told(connector: &str, scopes: &[&str], metadata: &[(&str, &str)]) -> Result<(), String> {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let metadata = metadata.iter().map(owned).collect();
        connector_for(&catalog(), &connector.parse().unwrap(), Some(&scopes), &metadata)
            .map(drop)
            .map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn what_fits_is_taken() {
        assert_eq!(told("salesforce", &["items:read"], &[("instance", "na47")]), Ok(()));
        assert_eq!(told("salesforce", &[], &[("instance_url", "https://na47.sf.test")]), Ok(()));
        assert_eq!(told("openai", &[], &[]), Ok(()));
        assert_eq!(told("openai", &[], &[("region", "eu")]), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_told_with_a_way_out() {
        for (outcome, says) in [
            (told("salesfroce", &[], &[]), "did you mean `salesforce`?"),
            (told("open", &[], &[]), "needs no account"),
            (told("salesforce", &[], &[]), "add --meta instance=..."),
            (told("salesforce", &[], &[("instance", "a/b")]), "instance=a/b makes no host"),
            (told("salesforce", &[], &[("instance_url", "https://evil.test")]), "makes no host"),
            (told("openai", &["items:raed"], &[]), "did you mean `items:read`?"),
        ] {
            let told = outcome.unwrap_err();
            assert!(told.contains(says), "{told}");
        }
    }
}
