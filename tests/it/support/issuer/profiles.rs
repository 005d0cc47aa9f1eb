//! Providers, each where it departs from the default. What was read at the provider and what is recalled stands in
//! the connectors' files; here the stricter reading is taken.

use serde_json::{Map, Value, json};

use super::{AccessForm, RevokedBy, Rotation, Takes, Told, Wording};
use super::{Challenge, ClientAuth, Expiry, Grace, Offline, OldAccess, Pkce, Profile, Reach, Revocation};

const NO_REVOCATION: Revocation = Revocation { by: RevokedBy::Nothing, reach: Reach::Consent };
const ROTATES: Rotation = Rotation::Single(Grace::None);

fn extras(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The bot's chain: 200 whatever happens, and commas.
pub(crate) fn slack() -> Profile {
    Profile {
        hosts: &["slack.com", "files.slack.com"],
        authorize: "/oauth/v2/authorize",
        token: "/api/oauth.v2.access",
        introspect: None,
        revocation: Revocation { by: RevokedBy::PostBearer("/api/auth.revoke"), reach: Reach::Token },
        ok: true,
        access_seconds: 43_200,
        asked_scopes: ',',
        told_scopes: Told::Text("scope", ","),
        offline: Offline::Always,
        pkce: Pkce::Refused,
        extras: extras(json!({"team": {"id": "T1"}, "bot_user_id": "U0", "authed_user": {"id": "U1"}})),
        wording: Wording::Slack,
        challenge: Challenge::Slack,
        ..Profile::default()
    }
}

/// The user's chain: in an object of its own at first, and at the top when refreshed.
pub(crate) fn slack_user() -> Profile {
    Profile { tokens_in: &["authed_user"], refreshed_in: Some(&[]), scope_parameter: "user_scope", ..slack() }
}

/// A GitHub App's user tokens: form-encoded unless asked, errors with 200, the old access token dies.
pub(crate) fn github() -> Profile {
    Profile {
        hosts: &["github.com", "api.github.com", "uploads.github.com"],
        authorize: "/login/oauth/authorize",
        token: "/login/oauth/access_token",
        introspect: None,
        revocation: Revocation {
            by: RevokedBy::DeleteBasic("/applications/keybearer-test/token"),
            reach: Reach::Token,
        },
        client_auth: ClientAuth::Body,
        form_unless_asked: true,
        access_seconds: 28_800,
        refresh_expiry: Some(("refresh_token_expires_in", 15_897_600)),
        idle_seconds: Some(15_552_000),
        told_scopes: Told::Text("scope", ","),
        old_access: OldAccess::Dies,
        wording: Wording::GitHub,
        challenge: Challenge::GitHub,
        ..Profile::default()
    }
}

/// A GitHub OAuth App: a token without end, and no refresh.
pub(crate) fn github_oauth_app() -> Profile {
    Profile { expiry: Expiry::Untold, offline: Offline::Never, access_seconds: 31_536_000, ..github() }
}

/// No expiry told; the host is in the answer.
pub(crate) fn salesforce() -> Profile {
    Profile {
        hosts: &["login.salesforce.com", "na47.my.salesforce.com", "na48.my.salesforce.com"],
        authorize: "/services/oauth2/authorize",
        token: "/services/oauth2/token",
        introspect: Some("/services/oauth2/introspect"),
        revocation: Revocation { by: RevokedBy::Rfc7009("/services/oauth2/revoke"), reach: Reach::Consent },
        access_seconds: 7200,
        expiry: Expiry::Untold,
        rotation: Rotation::Never,
        offline: Offline::Scope("refresh_token"),
        pkce: Pkce::Supported,
        authorize_needs: &[("prompt", "consent")],
        extras: extras(json!({
            "instance_url": "https://na47.my.salesforce.com",
            "id": "https://login.salesforce.com/id/00D000000000001/005000000000001",
            "issued_at": "1700000000000",
            "signature": "c2lnbmF0dXJl",
        })),
        wording: Wording::Salesforce,
        challenge: Challenge::Salesforce,
        ..Profile::default()
    }
}

/// With rotation switched on for the app: the old refresh token dies at once.
pub(crate) fn salesforce_rotating() -> Profile {
    Profile { rotation: ROTATES, ..salesforce() }
}

pub(crate) fn google() -> Profile {
    Profile {
        hosts: &["accounts.google.com", "oauth2.googleapis.com", "gmail.googleapis.com"],
        authorize: "/o/oauth2/v2/auth",
        token: "/token",
        introspect: None,
        revocation: Revocation { by: RevokedBy::Rfc7009("/revoke"), reach: Reach::Consent },
        access_seconds: 3599,
        refresh_expiry: Some(("refresh_token_expires_in", 604_800)),
        idle_seconds: Some(15_552_000),
        rotation: Rotation::Never,
        offline: Offline::Parameter("access_type", "offline"),
        authorize_needs: &[("prompt", "consent")],
        wording: Wording::Google,
        challenge: Challenge::Google,
        ..Profile::default()
    }
}

/// The old refresh token is never revoked.
pub(crate) fn microsoft() -> Profile {
    Profile {
        hosts: &["login.microsoftonline.com", "graph.microsoft.com"],
        authorize: "/common/oauth2/v2.0/authorize",
        token: "/common/oauth2/v2.0/token",
        introspect: None,
        revocation: NO_REVOCATION,
        idle_seconds: Some(7_776_000),
        rotation: Rotation::Single(Grace::Forever),
        reuse_revokes: false,
        offline: Offline::Scope("offline_access"),
        extras: extras(json!({"ext_expires_in": 3600})),
        wording: Wording::Microsoft,
        challenge: Challenge::Microsoft,
        ..Profile::default()
    }
}

/// Microsoft with a certificate: a signed assertion instead of a secret.
pub(crate) fn microsoft_certificate() -> Profile {
    Profile { client_auth: ClientAuth::Assertion, ..microsoft() }
}

/// Ten minutes in which both old tokens live; 403 for a bad one; 401 for a missing scope.
pub(crate) fn atlassian() -> Profile {
    Profile {
        hosts: &["auth.atlassian.com", "api.atlassian.com"],
        authorize: "/authorize",
        token: "/oauth/token",
        introspect: None,
        revocation: NO_REVOCATION,
        takes: Takes::Either,
        client_auth: ClientAuth::Body,
        idle_seconds: Some(7_776_000),
        rotation: Rotation::Single(Grace::Seconds(600)),
        old_access: OldAccess::DiesAfter(600),
        offline: Offline::Scope("offline_access"),
        pkce: Pkce::Supported,
        authorize_needs: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
        wording: Wording::Atlassian,
        challenge: Challenge::Atlassian,
        ..Profile::default()
    }
}

/// The date-versioned endpoint; scopes as a list.
pub(crate) fn hubspot() -> Profile {
    Profile {
        hosts: &["app.hubspot.com", "api.hubapi.com"],
        authorize: "/oauth/authorize",
        token: "/oauth/2026-03/token",
        introspect: Some("/oauth/2026-03/token/introspect"),
        revocation: Revocation {
            by: RevokedBy::Rfc7009("/oauth/2026-03/token/revoke"),
            reach: Reach::RefreshOnly,
        },
        client_auth: ClientAuth::Body,
        access_seconds: 1800,
        told_scopes: Told::List("scopes"),
        rotation: Rotation::Never,
        extras: extras(json!({"hub_id": 62_515, "user_id": 123, "token_use": "access_token"})),
        challenge: Challenge::HubSpot,
        ..Profile::default()
    }
}

/// The endpoint before it, which has words of its own.
pub(crate) fn hubspot_v1() -> Profile {
    Profile { token: "/oauth/v1/token", wording: Wording::HubSpotV1, ..hubspot() }
}

/// JSON both ways, no expiry, no scopes.
pub(crate) fn notion() -> Profile {
    Profile {
        hosts: &["api.notion.com"],
        authorize: "/v1/oauth/authorize",
        token: "/v1/oauth/token",
        introspect: Some("/v1/oauth/introspect"),
        revocation: Revocation { by: RevokedBy::Rfc7009("/v1/oauth/revoke"), reach: Reach::Consent },
        takes: Takes::Json,
        client_auth: ClientAuth::Basic,
        expiry: Expiry::Untold,
        told_scopes: Told::Untold,
        pkce: Pkce::Supported,
        authorize_needs: &[("owner", "user")],
        extras: extras(json!({"bot_id": "b1", "workspace_id": "w1", "owner": {"type": "user"}})),
        ..Profile::default()
    }
}

/// The `redirect_uri` of the consent again at every refresh; both old tokens die at once.
pub(crate) fn gitlab() -> Profile {
    Profile {
        hosts: &["gitlab.com"],
        authorize: "/oauth/authorize",
        token: "/oauth/token",
        introspect: Some("/oauth/introspect"),
        revocation: Revocation { by: RevokedBy::Rfc7009("/oauth/revoke"), reach: Reach::Token },
        access_seconds: 7200,
        old_access: OldAccess::Dies,
        refresh_repeats: &["redirect_uri"],
        extras: extras(json!({"created_at": 1_700_000_000})),
        wording: Wording::Unauthorized,
        ..Profile::default()
    }
}

/// JSON or form; revoked by DELETE with the token itself.
pub(crate) fn zendesk() -> Profile {
    Profile {
        hosts: &["acme.zendesk.com"],
        authorize: "/oauth/authorizations/new",
        token: "/oauth/tokens",
        introspect: None,
        revocation: Revocation {
            by: RevokedBy::DeleteBearer("/api/v2/oauth/tokens/current"),
            reach: Reach::Token,
        },
        takes: Takes::Either,
        client_auth: ClientAuth::Body,
        access_seconds: 1800,
        refresh_expiry: Some(("refresh_token_expires_in", 2_592_000)),
        old_access: OldAccess::Dies,
        token_needs: &[("expires_in", "1800")],
        ..Profile::default()
    }
}

/// A refresh endpoint of its own; nothing rotates.
pub(crate) fn figma() -> Profile {
    Profile {
        hosts: &["www.figma.com", "api.figma.com"],
        authorize: "/oauth",
        token: "/v1/oauth/token",
        refresh: Some("/v1/oauth/refresh"),
        introspect: None,
        revocation: NO_REVOCATION,
        client_auth: ClientAuth::Basic,
        access_seconds: 7_776_000,
        asked_scopes: ',',
        told_scopes: Told::Untold,
        rotation: Rotation::Never,
        pkce: Pkce::Supported,
        extras: extras(json!({"user_id_string": "1"})),
        ..Profile::default()
    }
}

/// The platform's secret key as the user name of Basic, and no expiry.
pub(crate) fn stripe() -> Profile {
    Profile {
        hosts: &["marketplace.stripe.com", "api.stripe.com"],
        authorize: "/oauth/v2/authorize",
        token: "/v1/oauth/token",
        introspect: None,
        revocation: NO_REVOCATION,
        client_auth: ClientAuth::SecretAsUser,
        expiry: Expiry::Untold,
        pkce: Pkce::Refused,
        extras: extras(json!({"stripe_user_id": "acct_1", "livemode": false})),
        ..Profile::default()
    }
}

/// Parameters in the URL; the host is in the answer.
pub(crate) fn gong() -> Profile {
    Profile {
        hosts: &["app.gong.io", "acme.api.gong.io"],
        authorize: "/oauth2/authorize",
        token: "/oauth2/generate-customer-token",
        introspect: None,
        revocation: NO_REVOCATION,
        takes: Takes::Query,
        client_auth: ClientAuth::Basic,
        access_seconds: 86_400,
        pkce: Pkce::Refused,
        authorize_needs: &[("access_type", "offline")],
        extras: extras(json!({"api_base_url_for_customer": "https://acme.api.gong.io"})),
        ..Profile::default()
    }
}

/// Basic only; server to server by a grant type of its own.
pub(crate) fn zoom() -> Profile {
    Profile {
        hosts: &["zoom.us", "api.zoom.us"],
        authorize: "/oauth/authorize",
        token: "/oauth/token",
        introspect: None,
        revocation: Revocation { by: RevokedBy::Rfc7009("/oauth/revoke"), reach: Reach::Consent },
        client_auth: ClientAuth::Basic,
        idle_seconds: Some(7_776_000),
        pkce: Pkce::Supported,
        extras: extras(json!({"api_url": "https://api.zoom.us"})),
        challenge: Challenge::Zoom,
        ..Profile::default()
    }
}

pub(crate) fn airtable() -> Profile {
    Profile {
        hosts: &["airtable.com", "api.airtable.com"],
        authorize: "/oauth2/v1/authorize",
        token: "/oauth2/v1/token",
        introspect: None,
        revocation: NO_REVOCATION,
        client_auth: ClientAuth::Basic,
        refresh_expiry: Some(("refresh_expires_in", 5_184_000)),
        idle_seconds: Some(5_184_000),
        ..Profile::default()
    }
}

/// 403 for a dead token.
pub(crate) fn vercel() -> Profile {
    Profile {
        hosts: &["vercel.com", "api.vercel.com"],
        authorize: "/oauth/authorize",
        token: "/api/login/oauth/token",
        introspect: None,
        offline: Offline::Scope("offline_access"),
        challenge: Challenge::Vercel,
        ..Profile::default()
    }
}

/// A client without a secret.
pub(crate) fn airtable_public() -> Profile {
    Profile { client_auth: ClientAuth::Public, ..airtable() }
}

/// The old refresh token lives until its replacement is used; another header for the token.
pub(crate) fn shopify() -> Profile {
    Profile {
        hosts: &["acme.myshopify.com"],
        authorize: "/admin/oauth/authorize",
        token: "/admin/oauth/access_token",
        introspect: None,
        revocation: NO_REVOCATION,
        takes: Takes::Either,
        client_auth: ClientAuth::Body,
        refresh_expiry: Some(("refresh_token_expires_in", 7_776_000)),
        asked_scopes: ',',
        told_scopes: Told::Text("scope", ","),
        rotation: Rotation::Single(Grace::UntilReplacementUsed),
        token_needs: &[("expiring", "1")],
        pkce: Pkce::Refused,
        challenge: Challenge::Shopify,
        ..Profile::default()
    }
}

/// Ten minutes of life, single use, and reuse ends the family.
pub(crate) fn snowflake() -> Profile {
    Profile {
        hosts: &["acme.snowflakecomputing.com"],
        authorize: "/oauth/authorize",
        token: "/oauth/token-request",
        introspect: None,
        revocation: NO_REVOCATION,
        client_auth: ClientAuth::Basic,
        access_seconds: 600,
        old_access: OldAccess::Dies,
        offline: Offline::Scope("refresh_token"),
        ..Profile::default()
    }
}

pub(crate) fn dropbox() -> Profile {
    Profile {
        hosts: &["www.dropbox.com", "api.dropboxapi.com"],
        authorize: "/oauth2/authorize",
        token: "/oauth2/token",
        introspect: None,
        revocation: Revocation { by: RevokedBy::PostBearer("/2/auth/token/revoke"), reach: Reach::Consent },
        access_seconds: 14_400,
        rotation: Rotation::Never,
        offline: Offline::Parameter("token_access_type", "offline"),
        extras: extras(json!({"account_id": "dbid:1", "uid": "1"})),
        challenge: Challenge::Dropbox,
        ..Profile::default()
    }
}

pub(crate) fn linear() -> Profile {
    Profile {
        hosts: &["linear.app", "api.linear.app"],
        authorize: "/oauth/authorize",
        token: "/oauth/token",
        introspect: None,
        revocation: Revocation { by: RevokedBy::Rfc7009("/oauth/revoke"), reach: Reach::Consent },
        client_auth: ClientAuth::Body,
        access_seconds: 86_400,
        asked_scopes: ',',
        challenge: Challenge::Linear,
        ..Profile::default()
    }
}

/// JSON is rejected.
pub(crate) fn discord() -> Profile {
    Profile {
        hosts: &["discord.com"],
        authorize: "/api/oauth2/authorize",
        token: "/api/oauth2/token",
        introspect: None,
        revocation: Revocation { by: RevokedBy::Rfc7009("/api/oauth2/token/revoke"), reach: Reach::Consent },
        access_seconds: 604_800,
        ..Profile::default()
    }
}

/// Its own name for the refresh token's end.
pub(crate) fn intuit() -> Profile {
    Profile {
        client_auth: ClientAuth::Basic,
        refresh_expiry: Some(("x_refresh_token_expires_in", 8_726_400)),
        rotation: Rotation::Single(Grace::Seconds(86_400)),
        reuse_revokes: false,
        ..Profile::default()
    }
}

/// A year of refreshing, which does not slide.
pub(crate) fn linkedin() -> Profile {
    Profile {
        hosts: &["www.linkedin.com", "api.linkedin.com"],
        authorize: "/oauth/v2/authorization",
        token: "/oauth/v2/accessToken",
        introspect: Some("/oauth/v2/introspectToken"),
        revocation: Revocation { by: RevokedBy::Rfc7009("/oauth/v2/revoke"), reach: Reach::Token },
        client_auth: ClientAuth::Body,
        access_seconds: 5_184_000,
        refresh_expiry: Some(("refresh_token_expires_in", 31_536_000)),
        rotation: Rotation::Never,
        pkce: Pkce::Refused,
        challenge: Challenge::LinkedIn,
        ..Profile::default()
    }
}

/// Tokens in `data`, under another name, with milliseconds.
pub(crate) fn fiserv() -> Profile {
    Profile {
        tokens_in: &["data"],
        access_name: "token",
        expiry: Expiry::Milliseconds("expires_in"),
        ..Profile::default()
    }
}

/// The expiry is in the token itself.
pub(crate) fn self_describing() -> Profile {
    Profile { access_form: AccessForm::Jwt, expiry: Expiry::Untold, ..Profile::default() }
}

/// All of them.
pub(crate) fn all() -> Vec<Profile> {
    vec![
        Profile::default(),
        slack(),
        slack_user(),
        github(),
        github_oauth_app(),
        salesforce(),
        salesforce_rotating(),
        google(),
        microsoft(),
        microsoft_certificate(),
        atlassian(),
        hubspot(),
        hubspot_v1(),
        notion(),
        gitlab(),
        zendesk(),
        figma(),
        stripe(),
        gong(),
        zoom(),
        airtable(),
        airtable_public(),
        shopify(),
        vercel(),
        snowflake(),
        dropbox(),
        linear(),
        discord(),
        intuit(),
        linkedin(),
        fiserv(),
        self_describing(),
    ]
}
