//! What kind of provider to be. The default is RFC 6749 to the letter, with rotation and no grace.

use serde_json::{Map, Value};

use super::{api::Challenge, refusal::Wording};

/// How a provider departs from the standards, axis by axis.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// The names on its certificate.
    pub(crate) hosts: &'static [&'static str],
    pub(crate) authorize: &'static str,
    pub(crate) token: &'static str,
    /// Left out, the token endpoint refreshes as well.
    pub(crate) refresh: Option<&'static str>,
    pub(crate) introspect: Option<&'static str>,
    pub(crate) revocation: Revocation,
    pub(crate) takes: Takes,
    pub(crate) client_auth: ClientAuth,
    /// Form-encoded answers unless the client accepts JSON.
    pub(crate) form_unless_asked: bool,
    /// Success is `"ok": true`, whatever the status says.
    pub(crate) ok: bool,
    /// The objects that the tokens lie in, outermost first.
    pub(crate) tokens_in: &'static [&'static str],
    /// The same in the answer to a refresh, where it is another place.
    pub(crate) refreshed_in: Option<&'static [&'static str]>,
    pub(crate) access_name: &'static str,
    pub(crate) access_form: AccessForm,
    pub(crate) access_seconds: i64,
    pub(crate) expiry: Expiry,
    /// The field that tells when the refresh token ends, and the seconds.
    pub(crate) refresh_expiry: Option<(&'static str, i64)>,
    /// A refresh token that has not been used for so long is dead.
    pub(crate) idle_seconds: Option<i64>,
    /// The authorization request's parameter for scopes.
    pub(crate) scope_parameter: &'static str,
    /// What stands between the scopes that a client asks for.
    pub(crate) asked_scopes: char,
    pub(crate) told_scopes: Told,
    pub(crate) rotation: Rotation,
    pub(crate) old_access: OldAccess,
    /// A spent refresh token that comes back ends the whole consent.
    pub(crate) reuse_revokes: bool,
    /// Parameters that a refresh must carry again as they were at the consent.
    pub(crate) refresh_repeats: &'static [&'static str],
    /// Parameters that every token request must carry.
    pub(crate) token_needs: &'static [(&'static str, &'static str)],
    /// Parameters without which nobody may be sent here.
    pub(crate) authorize_needs: &'static [(&'static str, &'static str)],
    pub(crate) offline: Offline,
    pub(crate) pkce: Pkce,
    /// Named as `iss` in the redirect back (RFC 9207).
    pub(crate) iss: Option<&'static str>,
    /// More fields of the answer.
    pub(crate) extras: Map<String, Value>,
    pub(crate) wording: Wording,
    pub(crate) challenge: Challenge,
    /// How far its `Date` is off, in seconds.
    pub(crate) clock_off: i64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            hosts: &["auth.provider.test", "api.provider.test"],
            authorize: "/authorize",
            token: "/token",
            refresh: None,
            introspect: Some("/introspect"),
            revocation: Revocation { by: RevokedBy::Rfc7009("/revoke"), reach: Reach::Consent },
            takes: Takes::Form,
            client_auth: ClientAuth::Either,
            form_unless_asked: false,
            ok: false,
            tokens_in: &[],
            refreshed_in: None,
            access_name: "access_token",
            access_form: AccessForm::Opaque,
            access_seconds: 3600,
            expiry: Expiry::Seconds,
            refresh_expiry: None,
            idle_seconds: None,
            scope_parameter: "scope",
            asked_scopes: ' ',
            told_scopes: Told::Text("scope", " "),
            rotation: Rotation::Single(Grace::None),
            old_access: OldAccess::Lives,
            reuse_revokes: true,
            refresh_repeats: &[],
            token_needs: &[],
            authorize_needs: &[],
            offline: Offline::Always,
            pkce: Pkce::Required,
            iss: None,
            extras: Map::new(),
            wording: Wording::Rfc6749,
            challenge: Challenge::Rfc6750,
            clock_off: 0,
        }
    }
}

/// Where the parameters of a token request may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Form,
    Json,
    Either,
    Query,
}

/// How a client proves itself. Twice at once is refused by all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Body,
    Basic,
    Either,
    /// Basic as RFC 7617 has it: the parts are taken as they are.
    BasicPlain,
    /// Basic, the secret as the user name and no password.
    SecretAsUser,
    /// RFC 7523 §2.2: a JWT signed with the client's key.
    Assertion,
    /// No secret: the client's id in the body.
    Public,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessForm {
    Opaque,
    /// A JWT whose `exp` tells the expiry.
    Jwt,
}

/// How the answer tells when an access token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// `expires_in`, a number of seconds.
    Seconds,
    /// The same as a string.
    SecondsText,
    /// A field in milliseconds.
    Milliseconds(&'static str),
    /// A field with an RFC 3339 time.
    At(&'static str),
    /// A field with seconds since 1970.
    AtEpoch(&'static str),
    /// Not at all.
    Untold,
}

/// How the answer tells what was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A field, and what stands between the scopes.
    Text(&'static str, &'static str),
    /// A field with a JSON array.
    List(&'static str),
    Untold,
}

/// What a refresh does to the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// It stays, and the answer has none.
    Never,
    /// The answer has the next; the old one may be used again within the grace.
    Single(Grace),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grace {
    None,
    Seconds(i64),
    /// Until the access token or the refresh token of the replacement is used.
    UntilReplacementUsed,
    Forever,
}

/// What a refresh does to the access token before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldAccess {
    Lives,
    Dies,
    /// Dies so many seconds later.
    DiesAfter(i64),
}

/// What makes the provider give a refresh token at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offline {
    Always,
    Scope(&'static str),
    Parameter(&'static str, &'static str),
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pkce {
    Required,
    Supported,
    /// A request with a challenge is refused.
    Refused,
}

/// How a token is revoked, and what ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) by: RevokedBy,
    pub(crate) reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevokedBy {
    /// POST with `token`, the client proved as at the token endpoint.
    Rfc7009(&'static str),
    /// DELETE with the client as Basic and the token in a JSON body.
    DeleteBasic(&'static str),
    /// DELETE with the token as the credential.
    DeleteBearer(&'static str),
    /// POST with the token as the credential.
    PostBearer(&'static str),
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All that was granted by this consent.
    Consent,
    /// The refresh token; access tokens live on.
    RefreshOnly,
    /// The one token.
    Token,
}
