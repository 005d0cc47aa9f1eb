//! What an account's tokens are minted from: read where it comes in, checked before it is sealed, and turned into the
//! question for the provider each time a token is needed (F51).
//!
//! Who asks is an app of ours: the account's own, if it holds a `client_id`, or else the one of the configuration.

mod error;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

pub use self::error::SeedError;

use crate::{
    catalog::{AuthType, Connector},
    id::AccountKey,
    oauth::{App, Asserter, ClientAuth, Exchange, Narrowed, SigningKey, TypedToken, WebIdentity},
    regular,
    secret::Secret,
    vault::{SecretError, parse_seed_input},
};

/// Names of what an account may hold.
const CLIENT: [&str; 4] = ["client_id", "client_secret", "private_key", "key_id"];
const EXCHANGE: [&str; 6] =
    ["subject_token", "actor_token", "client_id", "client_secret", "private_key", "key_id"];
const INSTALLATION: [&str; 2] = ["client_id", "private_key"];
/// A service account's key, as Google's console gives it out: the whole file.
const SERVICE_ACCOUNT: &str = "service_account";

/// What all names of kinds of tokens begin with (RFC 8693 §3).
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";
/// No token is longer, in bytes.
const LONGEST: u64 = 64 * 1024;
/// AWS takes no longer name of a session.
const SESSION: usize = 64;

/// A question to a provider that is answered with a token.
#[derive(Debug, Clone)]
pub enum Ask {
    /// RFC 6749 §4.4.
    ClientCredentials {
        /// What the token is for.
        scopes: Vec<String>,
    },
    /// RFC 7523 §2.1.
    JwtBearer {
        /// Who signs.
        asserter: Asserter,
        /// What the token is for.
        scopes: Vec<String>,
    },
    /// RFC 8693, or on behalf of.
    TokenExchange(Exchange),
    /// A GitHub App's installation.
    Installation(Narrowed),
    /// A role of AWS.
    WebIdentity(WebIdentity),
}

/// What a person is told to write for this kind of connector.
#[must_use]
pub const fn seed_form(kind: AuthType) -> &'static str {
    match kind {
        AuthType::ClientCredentials => {
            r#"{"client_id": "...", "client_secret": "..."}, or --no-secret to use the app of oauth.apps"#
        }
        AuthType::JwtBearer => {
            r#"a service account's JSON file, {"client_id": "...", "private_key": "..."}, or --no-secret to use the app of oauth.apps"#
        }
        AuthType::TokenExchange => {
            r#"the token to exchange, alone or as {"subject_token": "...", "client_id": "...", "client_secret": "..."}, or --no-secret with --meta subject_token_file=..."#
        }
        AuthType::GithubApp => {
            r#"{"client_id": "...", "private_key": "..."}, or --no-secret to use the app of oauth.apps"#
        }
        _ => "--no-secret with --meta role_arn=... --meta web_identity_token_file=...",
    }
}

/// Reads what somebody wrote for an account of this kind of connector.
///
/// # Errors
/// [`SeedError`].
pub fn parse_seed(kind: AuthType, input: &[u8]) -> Result<BTreeMap<String, Secret>, SeedError> {
    let whole = |name: &str| {
        let text = input.trim_ascii();
        Ok(BTreeMap::from([(name.to_owned(), Secret::new(text.to_vec()))]))
    };
    let is_object = input.trim_ascii_start().starts_with(b"{");
    if kind == AuthType::TokenExchange && !is_object && !input.trim_ascii().is_empty() {
        return whole("subject_token");
    }
    match parse_seed_input(input, known(kind)) {
        // It has members of its own, which are read where they are checked.
        Err(SecretError::Unknown { .. }) if kind == AuthType::JwtBearer => whole(SERVICE_ACCOUNT),
        read => Ok(read?),
    }
}

/// Whether tokens could be minted from this for the connector, as far as can be told without asking anybody.
///
/// # Errors
/// [`SeedError`], which says what to write instead.
pub fn check_seed(
    connector: &Connector,
    fields: &BTreeMap<String, Secret>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), SeedError> {
    let seed = Seed { connector, fields, metadata };
    let own = seed.own_app()?;
    seed.check_fields()?;
    seed.check_urls(own.as_ref())?;
    match connector.auth.kind {
        AuthType::JwtBearer if !fields.is_empty() => seed.asserter(own.as_ref()).map(drop),
        AuthType::TokenExchange => {
            let subject = seed.typed("subject_token", "subject_token_type")?;
            seed.typed("actor_token", "actor_token_type")?;
            let file = seed.token_file("subject_token_file")?;
            let missing = SeedError::Missing("subject_token", seed_form(AuthType::TokenExchange));
            (file.is_some() || subject.is_some()).then_some(()).ok_or(missing)
        }
        AuthType::GithubApp => seed.narrowed(&[]).map(drop),
        AuthType::AwsSigv4 => seed.role().map(drop),
        _ => Ok(()),
    }
}

const fn known(kind: AuthType) -> &'static [&'static str] {
    match kind {
        AuthType::ClientCredentials | AuthType::JwtBearer => &CLIENT,
        AuthType::TokenExchange => &EXCHANGE,
        AuthType::GithubApp => &INSTALLATION,
        _ => &[],
    }
}

/// What an account's tokens are minted from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) connector: &'a Connector,
    pub(super) fields: &'a BTreeMap<String, Secret>,
    pub(super) metadata: &'a BTreeMap<String, String>,
}

impl Seed<'_> {
    /// The account's own app, if it holds one.
    pub(super) fn own_app(&self) -> Result<Option<App>, SeedError> {
        let form = seed_form(self.connector.auth.kind);
        let Some(client_id) = self.text("client_id")? else {
            let stray = CLIENT.iter().find(|name| self.fields.contains_key(**name));
            return stray.map_or(Ok(None), |_| Err(SeedError::Missing("client_id", form)));
        };
        let auth = match (self.fields.get("client_secret"), self.fields.get("private_key")) {
            (Some(_), Some(_)) => return Err(SeedError::Two),
            (Some(_), None) => ClientAuth::Secret(self.secret("client_secret")?),
            (None, Some(key)) => {
                let key = SigningKey::from_pem(key, self.text("key_id")?).ok_or(SeedError::Key)?;
                ClientAuth::PrivateKey(key)
            }
            (None, None) => return Err(SeedError::Missing("the client's secret or key", form)),
        };
        Ok(Some(App { client_id, auth, redirect_url: None }))
    }

    /// The question, for these scopes of the provider's. Reads the file that a token is in.
    pub(super) fn ask(&self, account: &AccountKey, app: &App, scopes: Vec<String>) -> Result<Ask, SeedError> {
        Ok(match self.connector.auth.kind {
            AuthType::JwtBearer => Ask::JwtBearer { asserter: self.asserter(Some(app))?, scopes },
            AuthType::TokenExchange => Ask::TokenExchange(self.exchange(scopes)?),
            AuthType::GithubApp => Ask::Installation(self.narrowed(&scopes)?),
            AuthType::AwsSigv4 => {
                let (role, file) = self.role()?;
                let (token, session) = (token_in(file)?, session(account));
                Ask::WebIdentity(WebIdentity { role, session, token, policies: self.list("policy_arns") })
            }
            _ => Ask::ClientCredentials { scopes },
        })
    }

    fn check_fields(&self) -> Result<(), SeedError> {
        let kind = self.connector.auth.kind;
        let is_known = |name: &str| {
            known(kind).contains(&name) || (kind == AuthType::JwtBearer && name == SERVICE_ACCOUNT)
        };
        match self.fields.keys().find(|name| !is_known(name)) {
            Some(stranger) => Err(SeedError::Unused(stranger.clone(), seed_form(kind))),
            None => Ok(()),
        }
    }

    /// Everything that the metadata has to fill.
    fn check_urls(&self, own: Option<&App>) -> Result<(), SeedError> {
        let Some(provider) = &self.connector.auth.provider else { return Ok(()) };
        let value = |name: &str| match (name, own) {
            ("client_id", Some(app)) => Some(app.client_id.as_str()),
            ("client_id" | "redirect_uri", _) => Some("the-app"),
            _ => self.metadata.get(name).map(String::as_str),
        };
        if let Some(url) = &provider.token_url {
            url.fill(&value).map_err(SeedError::Metadata)?;
        }
        for extra in provider.dialect.token_extra.values() {
            extra.fill(&value).map_err(SeedError::Metadata)?;
        }
        Ok(())
    }

    /// Who signs an assertion: the service account, or the app.
    fn asserter(&self, app: Option<&App>) -> Result<Asserter, SeedError> {
        let subject = self.metadata.get("subject").cloned();
        if let Some(file) = self.fields.get(SERVICE_ACCOUNT) {
            return Asserter::service_account(file, subject).ok_or(SeedError::ServiceAccount);
        }
        match app.map(|app| (&app.auth, &app.client_id)) {
            Some((ClientAuth::PrivateKey(key), issuer)) => {
                Ok(Asserter { key: key.clone(), issuer: issuer.clone(), subject })
            }
            _ if self.fields.is_empty() => Err(SeedError::AppKey),
            _ => Err(SeedError::Missing("private_key", seed_form(AuthType::JwtBearer))),
        }
    }

    fn exchange(&self, scopes: Vec<String>) -> Result<Exchange, SeedError> {
        let subject = match self.token_file("subject_token_file")? {
            Some(file) => {
                let kind = self.token_type("subject_token_type", "jwt")?;
                TypedToken { token: token_in(file)?, r#type: kind }
            }
            None => self
                .typed("subject_token", "subject_token_type")?
                .ok_or(SeedError::Missing("subject_token", seed_form(AuthType::TokenExchange)))?,
        };
        let actor = self.typed("actor_token", "actor_token_type")?;
        Ok(Exchange { subject, actor, audience: self.metadata.get("audience").cloned(), scopes })
    }

    fn typed(&self, field: &'static str, kind: &'static str) -> Result<Option<TypedToken>, SeedError> {
        let kind = self.token_type(kind, "access_token")?;
        let token = self.fields.contains_key(field).then(|| self.secret(field)).transpose()?;
        Ok(token.map(|token| TypedToken { token, r#type: kind }))
    }

    fn token_type(&self, name: &'static str, default: &str) -> Result<String, SeedError> {
        let said = self.metadata.get(name).map_or(default, String::as_str);
        match said {
            "access_token" | "refresh_token" | "id_token" | "jwt" | "saml1" | "saml2" => {
                Ok(format!("{TOKEN_TYPE}{said}"))
            }
            urn if urn.starts_with("urn:") => Ok(urn.to_owned()),
            other => {
                Err(SeedError::Unfit(name, other.to_owned(), "access_token, id_token, jwt, saml2 or a urn:"))
            }
        }
    }

    /// What the installation's token may do: what the metadata says, or else what the scopes stand for. Never all that
    /// the installation may: with nothing else, a token reads metadata, which every installation can.
    fn narrowed(&self, scopes: &[String]) -> Result<Narrowed, SeedError> {
        let own = self.list("permissions");
        let unfit = |text: &String| {
            SeedError::Unfit(
                "permissions",
                text.clone(),
                "a list of permissions as in issues:read,contents:write",
            )
        };
        let mut permissions = BTreeMap::<&str, &str>::new();
        for text in if own.is_empty() { scopes } else { &own[..] } {
            let (name, level) = Narrowed::permission(text).ok_or_else(|| unfit(text))?;
            let most = permissions.entry(name).or_insert(level);
            *most = std::cmp::max_by_key(*most, level, |level| match *level {
                "read" => 0,
                "write" => 1,
                _ => 2,
            });
        }
        if permissions.is_empty() {
            permissions.insert("metadata", "read");
        }
        let owned = |(name, level): (&str, &str)| (name.to_owned(), level.to_owned());
        Ok(Narrowed {
            repositories: self.list("repositories"),
            permissions: permissions.into_iter().map(owned).collect(),
        })
    }

    fn role(&self) -> Result<(String, &Path), SeedError> {
        const FILE: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";
        const ROLE: &str = "arn:aws:iam::123456789012:role/NAME";
        let role = self.metadata.get("role_arn").ok_or(SeedError::NoMetadata("role_arn", ROLE))?;
        if !role.starts_with("arn:") {
            return Err(SeedError::Unfit("role_arn", role.clone(), "the ARN of a role"));
        }
        let file = self.token_file("web_identity_token_file")?;
        Ok((role.clone(), file.ok_or(SeedError::NoMetadata("web_identity_token_file", FILE))?))
    }

    fn token_file(&self, name: &'static str) -> Result<Option<&Path>, SeedError> {
        let Some(path) = self.metadata.get(name) else { return Ok(None) };
        if !path.starts_with('/') {
            return Err(SeedError::Unfit(name, path.clone(), "an absolute path, as the proxy sees it"));
        }
        Ok(Some(Path::new(path)))
    }

    /// A list in the metadata, separated by commas.
    fn list(&self, name: &str) -> Vec<String> {
        let text = self.metadata.get(name).map(String::as_str).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, SeedError> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        #[expect(clippy::disallowed_methods, reason = "it names the client, or its key")]
        let text = str::from_utf8(value.expose()).map_err(|_| SeedError::Text(name))?.trim();
        let is_plain = !text.is_empty() && !text.contains(|c: char| c.is_control());
        is_plain.then(|| Some(text.to_owned())).ok_or(SeedError::Text(name))
    }

    /// A secret of one line; the line break at its end is the editor's.
    fn secret(&self, name: &'static str) -> Result<Secret, SeedError> {
        let value = self.fields.get(name).ok_or(SeedError::Text(name))?;
        #[expect(clippy::disallowed_methods, reason = "checked before it is sent to a token endpoint")]
        let text = value.expose().trim_ascii();
        if text.is_empty() || text.iter().any(u8::is_ascii_control) {
            return Err(SeedError::Text(name));
        }
        Ok(Secret::new(text.to_vec()))
    }
}

/// The token that is in a file at present, which is small and on this machine. It has to look like one, so that no other file is ever sent anywhere.
fn token_in(file: &Path) -> Result<Secret, SeedError> {
    let failed = |why| SeedError::File { path: file.to_owned(), why };
    let bytes = regular::read(file, LONGEST).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => failed("it is too long"),
        io::ErrorKind::InvalidInput => failed("it is no regular file"),
        _ => failed("it cannot be read"),
    });
    let bytes = zeroize::Zeroizing::new(bytes?);
    let token = bytes.trim_ascii();
    let is_part = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let mut parts = token.split(|b| *b == b'.');
    let is_jwt = parts.by_ref().take(3).filter(|part| is_part(part)).count() == 3 && parts.next().is_none();
    is_jwt.then(|| Secret::new(token.to_vec())).ok_or_else(|| failed("it is no JWT"))
}

/// The account, in the letters that AWS takes.
fn session(account: &AccountKey) -> String {
    let text = format!("keybearer-{account}");
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_=,.@-".contains(c) { c } else { '-' };
    text.chars().map(plain).take(SESSION).collect()
}

/// Who asks: the account's own app, the configured one, or nobody in particular where the question says who.
pub(super) fn asking(own: Option<App>, configured: Option<&Arc<App>>, kind: AuthType) -> Option<Arc<App>> {
    let needs_none = matches!(kind, AuthType::TokenExchange | AuthType::AwsSigv4 | AuthType::JwtBearer);
    let anonymous = || needs_none.then(|| Arc::new(App::anonymous()));
    own.map(Arc::new).or_else(|| configured.map(Arc::clone)).or_else(anonymous)
}
