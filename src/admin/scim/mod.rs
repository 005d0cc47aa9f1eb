//! SCIM 2.0 (RFC 7643, 7644): an identity provider says which users there are, and which of them may still act.
//!
//! Each token belongs to one tenant, and sees and changes that tenant's users only. A user who is not active, or was
//! deleted, is frozen as a whole: every account of theirs, of every connector and role, also one that is connected
//! later. Who becomes active again is unfrozen as far as SCIM froze them.

mod attributes;
mod directory;
mod discovery;
mod error;
mod filter;
mod patch;
mod urn;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

pub(super) use self::directory::Directory;
use self::{attributes::Attributes, directory::User, error::Error, filter::Equals};
use super::{Error as AdminError, LifecycleConfig, TokenSource, lifecycle::Refusals};
use crate::{
    id::{TenantId, UserId},
    identity::bearer,
    secret::Secret,
};

/// More than any user with photos and certificates.
const LARGEST_BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most users in one answer; it is also in discovery.json.
const LARGEST_PAGE: usize = 200;

/// One entry of `lifecycle.scim`: who may provision the users of which tenant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose users.
    pub tenant: TenantId,
    /// The bearer token. A tenant may have several entries, as while a token is replaced.
    pub token: TokenSource,
    /// Which attribute is the name that agents give of the user.
    #[serde(default)]
    pub user: UserFrom,
}

/// Which attribute is the name that agents give of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum UserFrom {
    /// The whole `userName`.
    #[default]
    #[serde(rename = "userName")]
    UserName,
    /// What stands before the `@` of the `userName`.
    #[serde(rename = "userName.local")]
    UserNameLocal,
    /// The primary address, or the first one.
    #[serde(rename = "email")]
    Email,
    /// What stands before the `@` of the primary address.
    #[serde(rename = "email.local")]
    EmailLocal,
    /// The identity provider's own identifier.
    #[serde(rename = "externalId")]
    ExternalId,
}

impl UserFrom {
    /// The user's name here; `None` where it cannot be one, and there can be no account under it.
    fn name(self, attributes: &Attributes) -> Option<UserId> {
        let local = |text: &str| text.split('@').next().unwrap_or_default().to_owned();
        let email = || attributes.emails().first().map(|email| (*email).to_owned());
        let text = match self {
            Self::UserName => attributes.user_name().to_owned(),
            Self::UserNameLocal => local(attributes.user_name()),
            Self::Email => email()?,
            Self::EmailLocal => local(&email()?),
            Self::ExternalId => attributes.external_id()?.to_owned(),
        };
        UserId::new(&text.to_ascii_lowercase()).ok()
    }
}

/// Whom a token belongs to.
#[derive(Clone)]
struct Client {
    tenant: TenantId,
    user: UserFrom,
}

struct Served {
    clients: Vec<(Secret, Client)>,
    directory: Directory,
    refusals: Refusals,
    /// What stands before the locations of resources.
    base: String,
}

type Shared = Arc<Served>;

/// The routes below `/scim/v2`.
///
/// # Errors
/// Where a token cannot be read, or two tenants have the same.
pub(super) fn router(config: &LifecycleConfig, directory: Directory) -> Result<Router, AdminError> {
    let mut clients: Vec<(Secret, Client)> = Vec::new();
    for entry in &config.scim {
        let token = entry.token.read()?;
        if clients.iter().any(|(other, _)| *other == token) {
            let why = format!("the token in {} is another entry's, too", entry.token.file.display());
            return Err(AdminError::Lifecycle(why));
        }
        clients.push((token, Client { tenant: entry.tenant.clone(), user: entry.user }));
    }
    let base = config.url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned() + "/scim/v2";
    let refusals = Refusals::new("scim.refused");
    let served = Arc::new(Served { clients, directory, refusals, base });
    Ok(Router::new()
        .route("/scim/v2/Users", get(list).post(create).fallback(not_allowed))
        .route(
            "/scim/v2/Users/{id}",
            get(show).put(replace).patch(patched).delete(delete).fallback(not_allowed),
        )
        .route("/scim/v2/{*resource}", any(discover))
        .with_state(served))
}

/// The client of a request: nothing of it is read before its token was found.
impl FromRequestParts<Shared> for Client {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, served: &Shared) -> Result<Self, Error> {
        let given = bearer(&parts.headers);
        // Every token is compared, so that time does not tell how many there are before the right one.
        let mut found = None;
        for (token, client) in &served.clients {
            if given.as_ref().is_some_and(|given| given == token) {
                found = Some(client);
            }
        }
        if let Some(client) = found {
            return Ok(client.clone());
        }
        served
            .refusals
            .record(&served.directory.desk, "no token of lifecycle.scim came with the request")
            .await;
        Err(Error::Unauthorized)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    filter: Option<String>,
    start_index: Option<i64>,
    count: Option<i64>,
}

async fn list(
    State(served): State<Shared>,
    client: Client,
    query: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Error> {
    let Query(page) = query.map_err(|_| Error::Value("startIndex and count are numbers"))?;
    let filter = page.filter.as_deref().map(Equals::of_query).transpose()?;
    let users = served.directory.users(&client.tenant).await?;
    let found: Vec<&User> =
        users.iter().filter(|user| filter.as_ref().is_none_or(|filter| user.fits(filter))).collect();
    // RFC 7644 §3.4.2.4: counted from 1, and what is less means 1 and 0.
    let start = usize::try_from(page.start_index.unwrap_or(1).max(1)).unwrap_or(usize::MAX);
    let count = page.count.map_or(LARGEST_PAGE, |count| usize::try_from(count.max(0)).unwrap_or(usize::MAX));
    let resources: Vec<Value> = found
        .iter()
        .skip(start - 1)
        .take(count.min(LARGEST_PAGE))
        .map(|user| served.resource(user))
        .collect();
    let body = json!({
        "schemas": [urn::LIST], "totalResults": found.len(), "startIndex": start,
        "itemsPerPage": resources.len(), "Resources": resources,
    });
    Ok(answer(StatusCode::OK, &body))
}

async fn show(
    State(served): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let user = served.directory.user(&client.tenant, &id).await?.ok_or(Error::Missing)?;
    Ok(answer(StatusCode::OK, &served.resource(&user)))
}

async fn create(State(served): State<Shared>, client: Client, request: Request) -> Result<Response, Error> {
    let attributes = Attributes::read(read(request).await?, true)?;
    let user = served.directory.create(client, attributes).await?;
    let mut response = answer(StatusCode::CREATED, &served.resource(&user));
    if let Ok(location) = HeaderValue::try_from(served.location(&user)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn replace(
    State(served): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let body = read(request).await?;
    // Who does not say whether the user is active does not say that they are again.
    let edit = move |before: &Attributes| Attributes::read(body.clone(), before.is_active());
    let user = served.directory.change(client, id, edit).await?;
    Ok(answer(StatusCode::OK, &served.resource(&user)))
}

async fn patched(
    State(served): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let body = read(request).await?;
    let edit = move |before: &Attributes| patch::apply(before, &body);
    let user = served.directory.change(client, id, edit).await?;
    Ok(answer(StatusCode::OK, &served.resource(&user)))
}

async fn delete(
    State(served): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    served.directory.delete(client, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn discover(
    State(served): State<Shared>,
    _client: Client,
    request: Request,
) -> Result<Response, Error> {
    let resource = request.uri().path().strip_prefix("/scim/v2/").unwrap_or_default();
    let found = discovery::resource(resource, &served.base).ok_or(Error::Missing)?;
    if request.method() != http::Method::GET {
        return Err(Error::Method);
    }
    Ok(answer(StatusCode::OK, &found))
}

async fn not_allowed(State(_): State<Shared>, _client: Client) -> Error {
    Error::Method
}

impl Served {
    fn location(&self, user: &User) -> String {
        format!("{}/Users/{}", self.base, user.id)
    }

    /// A user as clients see it.
    fn resource(&self, user: &User) -> Value {
        let attributes = &user.record.attributes;
        let mut resource: Map<String, Value> = Map::new();
        resource.insert("schemas".to_owned(), json!(attributes.schemas()));
        resource.insert("id".to_owned(), user.id.clone().into());
        resource.extend(attributes.as_map().clone());
        let meta = json!({
            "resourceType": "User", "created": user.record.created,
            "lastModified": user.record.modified, "location": self.location(user),
        });
        resource.insert("meta".to_owned(), meta);
        resource.into()
    }
}

/// Reads a body, whatever type it says it has: clients say `application/scim+json` and `application/json`.
async fn read(request: Request) -> Result<Map<String, Value>, Error> {
    let collected = timeout(PATIENCE, Limited::new(request.into_body(), LARGEST_BODY).collect()).await;
    let Ok(Ok(body)) = collected else { return Err(Error::Syntax) };
    serde_json::from_slice(&body.to_bytes()).map_err(|_| Error::Syntax)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/scim+json"));
    (status, [kind], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(from: UserFrom, body: &Value) -> Option<String> {
        let attributes = Attributes::read(body.as_object().unwrap().clone(), true).unwrap();
        from.name(&attributes).map(|user| user.to_string())
    }

    #[test]
    fn the_user_is_named_by_the_attribute_that_is_configured() {
        let user = json!({"userName": "Alice@Acme.example", "externalId": "00U1",
            "emails": [{"value": "second@x"}, {"value": "Al@acme.example", "primary": true}]});
        for (from, name) in [
            ("userName", "alice@acme.example"),
            ("userName.local", "alice"),
            ("email", "al@acme.example"),
            ("email.local", "al"),
            ("externalId", "00u1"),
        ] {
            let from: UserFrom = serde_json::from_value(json!(from)).unwrap();
            assert_eq!(named(from, &user).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_can_be_no_name_here_names_nobody() {
        assert_eq!(named(UserFrom::UserName, &json!({"userName": "a b"})), None);
        assert_eq!(named(UserFrom::UserName, &json!({"userName": "guest_x#EXT#@acme.example"})), None);
        assert_eq!(named(UserFrom::Email, &json!({"userName": "a"})), None);
        assert_eq!(named(UserFrom::ExternalId, &json!({"userName": "a"})), None);
        assert_eq!(named(UserFrom::UserNameLocal, &json!({"userName": "@acme.example"})), None);
    }
}
