//! Nothing from the agent authenticates (law 4): every carrier of a credential, an identity or another
//! reading of the request is removed before ours is put in.

use std::{borrow::Cow, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;

use super::{
    PROXY_STATUS,
    listed::{is_listed, tokens},
};
use crate::catalog::Connector;

/// A set of names; a header map's own hashing is the fastest there is for them.
type Names = LazyLock<HeaderMap<()>>;

fn names(names: &[&'static str]) -> HeaderMap<()> {
    names.iter().map(|name| (HeaderName::from_static(name), ())).collect()
}

/// Headers that no request may carry to a provider, whatever the connector says.
static ALWAYS: Names = LazyLock::new(|| {
    names(&[
        // credentials
        "authorization",
        "proxy-authorization",
        "cookie",
        "cookie2",
        "x-api-key",
        "api-key",
        "apikey",
        "x-apikey",
        "x-auth-token",
        "x-access-token",
        "x-authorization",
        "x-id-token",
        "x-session-token",
        "private-token",
        "job-token",
        "deploy-token",
        "x-vault-token",
        "x-amz-security-token",
        "x-goog-api-key",
        "x-github-token",
        "x-gitlab-token",
        "x-shopify-access-token",
        "x-figma-token",
        "x-functions-key",
        "dpop",
        "ocp-apim-subscription-key",
        "dd-api-key",
        "dd-application-key",
        "x-auth-key",
        "x-auth-email",
        "authentication",
        "x-client-secret",
        "x-csrf-token",
        "x-xsrf-token",
        "sid",
        // who to act as
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
        "sudo",
        "x-sudo",
        "x-impersonate-user",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-preferred-username",
        "x-forwarded-access-token",
        "x-remote-user",
        "remote-user",
        "x-authenticated-user",
        "x-authenticated-userid",
        "x-user-id",
        "x-on-behalf-of",
        "x-original-user",
        "x-webauth-user",
        "x-goog-iap-jwt-assertion",
        "x-goog-authenticated-user-email",
        "x-goog-authenticated-user-id",
        "x-goog-user-project",
        "x-client-cert",
        "x-forwarded-client-cert",
        "x-ssl-client-cert",
        "x-amzn-oidc-data",
        "x-ms-client-principal",
        "x-ms-client-principal-id",
        // another method, host or path than the one judged
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-method",
        "x-original-url",
        "x-rewrite-url",
        "x-original-uri",
        "x-original-method",
        "x-forwarded-host",
        "x-forwarded-server",
        "x-forwarded-uri",
        "x-host",
        "x-forwarded-proto",
        "x-forwarded-scheme",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-method",
        "forwarded",
    ])
});

/// Fields of one hop (RFC 9110 §7.6.1), and ours.
static HOP: Names = LazyLock::new(|| {
    let mut hop = names(&[
        "connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "http2-settings",
        "agent-identity",
    ]);
    hop.insert(super::TIMING, ());
    hop
});

/// Query and form parameters that carry a token (RFC 6750 §2.2 and §2.3) or another method than the one judged
/// (Rails, Laravel and others read `_method`), wherever they stand.
const PARAMETERS: [&str; 6] =
    ["access_token", "oauth_token", "client_secret", "refresh_token", "api_key", "_method"];

/// What was removed, as the audit event names it: header names and `?name` for parameters; never a value.
pub type Stripped = Vec<Cow<'static, str>>;

/// Removes from the head everything that authenticates, selects an identity or belongs to this hop.
pub fn head(headers: &mut HeaderMap, connector: &Connector, stripped: &mut Stripped) {
    // Carriers first: one that `Connection` nominates is a carrier all the same, and named.
    let carriers: Vec<HeaderName> =
        headers.keys().filter(|name| is_carrier(name, connector)).cloned().collect();
    for name in carriers {
        headers.remove(&name);
        stripped.push(Cow::Owned(name.as_str().to_owned()));
    }
    hop_by_hop(headers);
}

/// Removes the fields of one hop, and those that `Connection` names.
pub fn hop_by_hop(headers: &mut HeaderMap) {
    // `TE: trailers` says something about the agent too, and gRPC providers insist on it. It is looked at first:
    // who sends it must name it in `Connection` (RFC 9110 §10.1.4).
    let trailers = is_listed(headers, &header::TE, "trailers");
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    // Most heads have none of them: looking is cheaper than removing each in case.
    let present: Vec<HeaderName> = headers.keys().filter(|name| HOP.contains_key(*name)).cloned().collect();
    for name in present {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// What an answer's head or trailers may not carry to the agent: the fields of one hop, and cookies, which are
/// credentials that the provider made from ours.
pub fn answer_head(headers: &mut HeaderMap) {
    hop_by_hop(headers);
    headers.remove(header::SET_COOKIE);
    headers.remove("set-cookie2");
    // RFC 9209: what says `keybearer` is ours to say. Otherwise a provider could pose as the proxy.
    let ours =
        |value: &HeaderValue| value.as_bytes().windows(9).any(|text| text.eq_ignore_ascii_case(b"keybearer"));
    if headers.get_all(PROXY_STATUS).iter().any(ours) {
        headers.remove(PROXY_STATUS);
    }
}

/// Removes from trailers what a header could not have carried either.
pub fn trailers(trailers: &mut HeaderMap, connector: &Connector, stripped: &mut Stripped) {
    head(trailers, connector, stripped);
    trailers.remove(header::HOST);
    trailers.remove(header::CONTENT_LENGTH);
}

fn is_carrier(name: &HeaderName, connector: &Connector) -> bool {
    in_list(name, |name| ALWAYS.contains_key(name) || connector.strip.headers.contains(name))
}

/// Looks the name up, and also its spelling with dashes: servers that hand headers on as CGI variables cannot
/// tell `x_api_key` from `x-api-key`.
fn in_list(name: &HeaderName, listed: impl Fn(&HeaderName) -> bool) -> bool {
    if listed(name) {
        return true;
    }
    name.as_str().contains('_')
        && name.as_str().replace('_', "-").parse().is_ok_and(|dashed: HeaderName| listed(&dashed))
}

/// The query, or a form body, without the parameters that carry a credential or an override; `None` if there
/// are none. What stays keeps its bytes and order.
pub fn parameters(text: &str, listed: &[String], stripped: &mut Stripped) -> Option<String> {
    let carries = |pair: &str| pair.split(';').map(parameter_name).find(|name| is_parameter(name, listed));
    let found: Vec<String> = text.split('&').filter_map(carries).collect();
    if found.is_empty() {
        return None;
    }
    stripped.extend(found.into_iter().map(|name| Cow::Owned(format!("?{name}"))));
    Some(text.split('&').filter(|pair| carries(pair).is_none()).collect::<Vec<_>>().join("&"))
}

/// Whether a decoded, lower-case parameter name is one that carries a token, here or by the connector's list.
pub fn is_parameter(name: &str, listed: &[String]) -> bool {
    PARAMETERS.contains(&name) || listed.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// The decoded name, lower case, without `[]`: as the most lenient server would read it.
fn parameter_name(pair: &str) -> String {
    let name = pair.split('=').next().unwrap_or(pair).replace('+', " ");
    let decoded = percent_decode_str(&name).decode_utf8_lossy();
    let bare = decoded.split('[').next().unwrap_or(&decoded);
    bare.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(text: &str) -> (Option<String>, Stripped) {
        let mut stripped = Stripped::new();
        (parameters(text, &["token".to_owned()], &mut stripped), stripped)
    }

    #[test]
    fn a_provider_cannot_pose_as_the_proxy() {
        let left = |value: &'static str| {
            let mut headers = HeaderMap::from_iter([(PROXY_STATUS, HeaderValue::from_static(value))]);
            answer_head(&mut headers);
            headers.len()
        };
        assert_eq!(left("Keybearer; error=http_request_denied; details=\"policy_denied\""), 0);
        assert_eq!(left("cdn.example; error=dns_error, keybearer; details=\"x\""), 0);
        assert_eq!(left("cdn.example; error=dns_error"), 1);
    }

    #[test]
    fn token_parameters_are_removed_however_they_are_spelt() {
        for text in [
            "access_token=x",
            "Access_Token=x",
            "%61ccess_token=x",
            "access_token[]=x",
            "access_token",
            "token=x",
            "a=1;access_token=x",
            "+token=x",
        ] {
            assert_eq!(without(text).0.as_deref(), Some(""), "{text}");
        }
        assert_eq!(without("a=1&token=x&b=%20c&token=y").0.as_deref(), Some("a=1&b=%20c"));
    }

    #[test]
    fn what_is_removed_is_named_without_its_value() {
        assert_eq!(without("token=s3cr3t&q=1").1, ["?token"]);
    }

    #[test]
    fn other_queries_keep_their_bytes() {
        for text in ["", "q=a%20b&page=2", "tokens=1", "q=token%3Dx"] {
            assert_eq!(without(text), (None, vec![]), "{text}");
        }
    }

    #[test]
    fn fields_of_one_hop_and_those_that_connection_names_go() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Private, TE"),
            ("x-private", "1"),
            ("te", "trailers, deflate"),
            ("keep-alive", "timeout=5"),
            ("agent-identity", "tenant=\"a\""),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["accept"], "*/*");
    }

    fn connector() -> std::sync::Arc<Connector> {
        let spec = "{hosts: [a.example], auth: {type: none}, strip: {headers: [X-Crm-User]}}";
        let name = crate::id::ConnectorName::new("crm").unwrap();
        let catalog =
            crate::catalog::Catalog::compile(vec![(name, serde_saphyr::from_str(spec).unwrap())]).unwrap();
        std::sync::Arc::clone(catalog.connector("crm").unwrap())
    }

    #[test]
    fn trailers_cannot_carry_what_headers_cannot() {
        let mut fields = HeaderMap::new();
        for name in ["grpc-status", "authorization", "x_api_key", "content-length", "cookie", "x-crm-user"] {
            fields.insert(name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
        }
        let mut stripped = Stripped::new();
        trailers(&mut fields, &connector(), &mut stripped);
        assert_eq!(fields.len(), 1);
        stripped.sort();
        assert_eq!(stripped, ["authorization", "cookie", "x-crm-user", "x_api_key"]);
    }
}
