//! Providers as connectors, each with the strict provider that it has to get on with.

use crate::support::issuer::{AccessForm, ClientAuth, Expiry, Profile, Told, profiles};

/// One provider.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) profile: Profile,
    /// `spec.auth` of its connector; none for one that is shipped under the name.
    pub(super) auth: Option<&'static str>,
}

const fn shipped(name: &'static str, profile: Profile) -> Row {
    Row { name, profile, auth: None }
}

pub(super) const fn of(name: &'static str, profile: Profile, auth: &'static str) -> Row {
    Row { name, profile, auth: Some(auth) }
}

/// A provider that is a standard one but for the dialect.
macro_rules! standard {
    ($dialect:literal) => {
        concat!(
            "{type: oauth2, authorize_url: https://auth.provider.test/authorize, ",
            "token_url: https://auth.provider.test/token, revoke_url: https://auth.provider.test/revoke, ",
            "pkce: S256, dialect: {",
            $dialect,
            "}}"
        )
    };
}

/// A connector without a dialect, but for rotation.
pub(super) fn standard(profile: Profile) -> Row {
    of("standard", profile, standard!("rotation: {rotates: always}"))
}

/// The shipped connectors with a consent of their own.
pub(super) fn connectors() -> Vec<Row> {
    vec![
        shipped("slack", profiles::slack()),
        shipped("github", profiles::github()),
        shipped("gmail", profiles::google()),
        shipped("salesforce", profiles::salesforce()),
        shipped("salesforce", profiles::salesforce_rotating()),
    ]
}

/// Every value of an axis that an exchange can meet, at a provider that has it where one is known.
pub(super) fn values() -> Vec<Row> {
    let mut rows = axes();
    rows.extend(providers());
    rows
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn axes() -> Vec<Row> {
    let plain = Profile::default;
    let rotating = standard!("rotation: {rotates: always}");
    let introspected = standard!(
        "rotation: {rotates: always}, expiry: introspection, introspect_url: https://auth.provider.test/introspect"
    );
    vec![
        of("D9 basic", Profile { client_auth: ClientAuth::Basic, ..plain() }, rotating),
        of(
            "D9 basic_plain",
            Profile { client_auth: ClientAuth::BasicPlain, ..plain() },
            standard!("client_auth: basic_plain, rotation: {rotates: always}"),
        ),
        of(
            "D9 private_key_jwt",
            Profile { client_auth: ClientAuth::Assertion, ..plain() },
            standard!("client_auth: private_key_jwt, rotation: {rotates: always}"),
        ),
        of("D6 a string", Profile { expiry: Expiry::SecondsText, ..plain() }, rotating),
        of(
            "D6 expires_at, a date",
            Profile { expiry: Expiry::At("expires_at"), ..plain() },
            standard!("expiry: expires_at, rotation: {rotates: always}"),
        ),
        of(
            "D6 expires_at, seconds",
            Profile { expiry: Expiry::AtEpoch("expires_at"), ..plain() },
            standard!("expiry: expires_at, rotation: {rotates: always}"),
        ),
        of(
            "D6 expires_at, a clock ten minutes off",
            Profile { expiry: Expiry::AtEpoch("expires_at"), clock_off: 600, ..plain() },
            standard!("expiry: expires_at, rotation: {rotates: always}"),
        ),
        of(
            "D6 jwt",
            Profile { expiry: Expiry::Untold, access_form: AccessForm::Jwt, ..plain() },
            standard!("expiry: jwt, rotation: {rotates: always}"),
        ),
        of("D6 introspection", Profile { expiry: Expiry::Untold, ..plain() }, introspected),
        of(
            "D5 data.token, D6 expires_in in ms",
            profiles::fiserv(),
            standard!("token_at: data.token, expiry: expires_in_ms, rotation: {rotates: always}"),
        ),
        of(
            "D8 an array",
            Profile { told_scopes: Told::List("scopes"), ..plain() },
            standard!("scope_at: scopes, rotation: {rotates: always}"),
        ),
        of("D8 not told", Profile { told_scopes: Told::Untold, ..plain() }, rotating),
        of(
            "D12 the scopes again",
            Profile { refresh_repeats: &["scope"], ..plain() },
            standard!("refresh_scopes: true, rotation: {rotates: always}"),
        ),
        of(
            "RFC 9207 iss",
            Profile { iss: Some("https://auth.provider.test"), ..plain() },
            standard!("issuer: https://auth.provider.test, rotation: {rotates: always}"),
        ),
        of("D7 x_refresh_token_expires_in", profiles::intuit(), rotating),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn providers() -> Vec<Row> {
    vec![
        of(
            "slack's user token",
            profiles::slack_user(),
            "{type: oauth2, authorize_url: https://slack.com/oauth/v2/authorize,
              token_url: https://slack.com/api/oauth.v2.access, revoke_url: https://slack.com/api/auth.revoke,
              dialect: {success: ok_true, scope_separator: ',', scope_parameter: user_scope, client_auth: body,
              errors: {invalid_refresh_token: revoked, token_revoked: revoked, bad_client_secret: app},
              token_at: authed_user.access_token, refreshed_token_at: access_token, revocation: post_bearer,
              rotation: {rotates: always}}}",
        ),
        of(
            "microsoft",
            profiles::microsoft(),
            "{type: oauth2, authorize_url: https://login.microsoftonline.com/common/oauth2/v2.0/authorize,
              token_url: https://login.microsoftonline.com/common/oauth2/v2.0/token, pkce: S256,
              dialect: {client_auth: body, offline_scopes: [offline_access], rotation: {rotates: always},
              idle_ttl: 90d}}",
        ),
        of(
            "atlassian",
            profiles::atlassian(),
            "{type: oauth2, authorize_url: https://auth.atlassian.com/authorize,
              token_url: https://auth.atlassian.com/oauth/token,
              dialect: {client_auth: body, body: json, offline_scopes: [offline_access],
              errors: {access_denied: app}, authorize_extra: {audience: api.atlassian.com, prompt: consent},
              rotation: {rotates: always, grace: 10m}}}",
        ),
        of(
            "hubspot",
            profiles::hubspot(),
            "{type: oauth2, authorize_url: https://app.hubspot.com/oauth/authorize,
              token_url: https://api.hubapi.com/oauth/2026-03/token,
              revoke_url: https://api.hubapi.com/oauth/2026-03/token/revoke, pkce: S256,
              dialect: {client_auth: body, scope_at: scopes, revocation_reach: refresh_token, subject_from: hub_id}}",
        ),
        of(
            "hubspot's first",
            profiles::hubspot_v1(),
            "{type: oauth2, authorize_url: https://app.hubspot.com/oauth/authorize,
              token_url: https://api.hubapi.com/oauth/v1/token, pkce: S256,
              dialect: {client_auth: body, scope_at: scopes, error_at: status, error_description_at: message,
              errors: {BAD_REFRESH_TOKEN: revoked, BAD_CLIENT_SECRET: app}}}",
        ),
        of(
            "notion",
            profiles::notion(),
            "{type: oauth2, authorize_url: https://api.notion.com/v1/oauth/authorize,
              token_url: https://api.notion.com/v1/oauth/token, revoke_url: https://api.notion.com/v1/oauth/revoke,
              dialect: {body: json, authorize_extra: {owner: user}, rotation: {rotates: always},
              subject_from: workspace_id}}",
        ),
        of(
            "gitlab",
            profiles::gitlab(),
            "{type: oauth2, authorize_url: https://gitlab.com/oauth/authorize, token_url: https://gitlab.com/oauth/token,
              revoke_url: https://gitlab.com/oauth/revoke, pkce: S256,
              dialect: {refresh_extra: {redirect_uri: '{redirect_uri}'},
              rotation: {rotates: always, old_access_dies: true}}}",
        ),
        of(
            "zendesk",
            profiles::zendesk(),
            "{type: oauth2, authorize_url: 'https://{subdomain}.zendesk.com/oauth/authorizations/new',
              token_url: 'https://{subdomain}.zendesk.com/oauth/tokens',
              revoke_url: 'https://{subdomain}.zendesk.com/api/v2/oauth/tokens/current', pkce: S256,
              dialect: {client_auth: body, body: json, token_extra: {expires_in: '1800'}, revocation: delete_bearer,
              rotation: {rotates: always, old_access_dies: true}}}",
        ),
        of(
            "figma",
            profiles::figma(),
            "{type: oauth2, authorize_url: https://www.figma.com/oauth, token_url: https://api.figma.com/v1/oauth/token,
              dialect: {refresh_url: https://api.figma.com/v1/oauth/refresh, scope_separator: ',',
              subject_from: user_id_string}}",
        ),
        of(
            "stripe",
            profiles::stripe(),
            "{type: oauth2, authorize_url: https://marketplace.stripe.com/oauth/v2/authorize,
              token_url: https://api.stripe.com/v1/oauth/token,
              dialect: {client_auth: basic_secret, lifetime: 1h, rotation: {rotates: always},
              subject_from: stripe_user_id}}",
        ),
        of(
            "gong",
            profiles::gong(),
            "{type: oauth2, authorize_url: https://app.gong.io/oauth2/authorize,
              token_url: https://app.gong.io/oauth2/generate-customer-token,
              dialect: {body: query, authorize_extra: {access_type: offline}, rotation: {rotates: always},
              host_from: api_base_url_for_customer, host_must_match: ['*.api.gong.io']}}",
        ),
        of(
            "airtable without a secret",
            profiles::airtable_public(),
            "{type: oauth2, authorize_url: https://airtable.com/oauth2/v1/authorize,
              token_url: https://airtable.com/oauth2/v1/token, pkce: S256,
              dialect: {client_auth: none, rotation: {rotates: always}, idle_ttl: 60d}}",
        ),
        of(
            "shopify",
            profiles::shopify(),
            "{type: oauth2, authorize_url: 'https://{shop}.myshopify.com/admin/oauth/authorize',
              token_url: 'https://{shop}.myshopify.com/admin/oauth/access_token',
              dialect: {client_auth: body, body: json, scope_separator: ',', token_extra: {expiring: '1'},
              rotation: {rotates: always}}}",
        ),
        of(
            "dropbox",
            profiles::dropbox(),
            "{type: oauth2, authorize_url: https://www.dropbox.com/oauth2/authorize,
              token_url: https://api.dropboxapi.com/oauth2/token,
              revoke_url: https://api.dropboxapi.com/2/auth/token/revoke, pkce: S256,
              dialect: {authorize_extra: {token_access_type: offline}, revocation: post_bearer,
              revocation_reach: grant, subject_from: account_id}}",
        ),
        of(
            "linear",
            profiles::linear(),
            "{type: oauth2, authorize_url: https://linear.app/oauth/authorize,
              token_url: https://api.linear.app/oauth/token, revoke_url: https://api.linear.app/oauth/revoke,
              pkce: S256, dialect: {client_auth: body, scope_separator: ',', response_scope_separator: ' ',
              rotation: {rotates: always}}}",
        ),
    ]
}
