//! Putting an account's secrets into the form in which its connector wants them.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

use super::{Credential, Error, Needles, Signer, found::Bare};
use crate::{
    catalog::{AuthType, Connector, Injection, Template},
    secret::Secret,
};

/// The credential of a connector that takes none: everything of the agent's is stripped, nothing is put in.
pub(super) fn nothing(connector: &Connector) -> Credential {
    Credential {
        label: None,
        generation: None,
        authorization: None,
        obtained: None,
        headers: Vec::new(),
        query: Vec::new(),
        signer: None,
        target: connector.target(&BTreeMap::new()),
        needles: Arc::new(Needles::new([])),
        ended: Arc::default(),
    }
}

/// The account's credential, of these secrets.
pub(super) fn render(
    account: &Bare,
    connector: &Connector,
    fields: &BTreeMap<String, Secret>,
    obtained: Option<Timestamp>,
) -> Result<Credential, Error> {
    let mut echoes: Vec<Secret> = fields.values().cloned().collect();
    let mut headers = Vec::with_capacity(connector.inject.len()); // one, mostly; left to itself it takes room for four
    let mut query = Vec::new();
    for injection in &connector.inject {
        match injection {
            Injection::Header(name, template) => {
                let value = fill(template, fields, &mut echoes)?;
                headers.push((name.clone(), header(name, &value)?));
            }
            Injection::Query(name, template) => {
                query.push((name.clone(), fill(template, fields, &mut echoes)?));
            }
        }
    }
    let signer = match connector.auth.kind {
        AuthType::AwsSigv4 => Some(Signer::new(fields)?),
        _ => None,
    };
    Ok(Credential {
        label: Some(account.key.to_string().into()),
        generation: Some(account.generation),
        authorization: account.authorization.as_deref().map(Arc::from),
        obtained,
        headers,
        query,
        signer,
        target: connector.target(&account.metadata),
        needles: Arc::new(Needles::new(&echoes)),
        ended: Arc::default(),
    })
}

#[expect(clippy::disallowed_methods, reason = "this is where a header credential is made")]
fn header(name: &HeaderName, value: &Secret) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_bytes(value.expose()).map_err(|_| Error::Unwritable(name.clone()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Fills a template. The last word of what it gives joins what is looked for in answers: it may be an encoding
/// of a secret, as in `Basic dXNlcjpwYXNz`.
#[expect(clippy::disallowed_methods, reason = "this is where a credential is put together")]
fn fill(
    template: &Template,
    fields: &BTreeMap<String, Secret>,
    echoes: &mut Vec<Secret>,
) -> Result<Secret, Error> {
    let value = template.render(|name| fields.get(name).map(Secret::expose))?;
    let last = value.rsplit(|byte| *byte == b' ').next().unwrap_or(&value);
    echoes.push(Secret::new(last.to_vec()));
    Ok(Secret::new(value.to_vec()))
}
