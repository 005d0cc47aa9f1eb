//! What people see: `GET /connect/{tenant}/{connector}?as=PRINCIPAL`, what a refusal's `reconnect_url` shows, and
//! `GET /oauth/callback`, where a provider sends them back to.

use std::fmt::Write as _;

use axum::{
    Router,
    extract::{Path, Query, RawQuery, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{Desk, consent::CALLBACK, fit};
use crate::{
    catalog::Connector,
    id::{AccountKey, Principal, Scope},
    vault::Status,
};

/// Nothing is loaded, sent or framed; the one style is ours.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn router(desk: Desk) -> Router {
    Router::new().route("/connect/{tenant}/{connector}", get(connect)).with_state(desk)
}

/// Where providers send people back to.
pub(super) fn callback(desk: Desk) -> Router {
    // A mail filter that only looks at a link must not use its state up.
    let only_looked_at = async || (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]);
    Router::new().route(CALLBACK, get(called_back).head(only_looked_at)).with_state(desk)
}

async fn called_back(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let connected = match desk.called_back(query.as_deref().unwrap_or_default()).await {
        Ok(connected) => connected,
        Err(refused) => {
            let why = format!("The account was not connected: {refused}.");
            let body = sentence(&why) + &sentence("Nothing was changed. You may close this window.");
            return page(StatusCode::BAD_REQUEST, "Not connected", &body);
        }
    };
    let AccountKey { tenant, connector, principal } = &connected.account.key;
    let scopes = connected.account.scopes.iter().flatten();
    let mut body = sentence(&format!("The {connector} account of {principal} in {tenant} is connected."));
    body += &sentence(&format!("It can be used for: {}.", names(scopes)));
    if !connected.missing.is_empty() {
        body += &sentence(&format!(
            "It was asked for more, which was not granted: {}. Agents are refused what needs it.",
            names(&connected.missing)
        ));
    }
    if connected.account.status != Status::Active {
        body += &sentence("It is frozen, and stays so until an operator unfreezes it.");
    }
    body += &sentence("You may close this window.");
    page(StatusCode::OK, "Connected", &body)
}

fn names<'a>(scopes: impl IntoIterator<Item = &'a Scope>) -> String {
    let names: Vec<&str> = scopes.into_iter().map(Scope::as_str).collect();
    if names.is_empty() { "nothing that needs a scope".to_owned() } else { names.join(", ") }
}

#[derive(Deserialize)]
struct Asked {
    r#as: Option<String>,
}

async fn connect(
    State(desk): State<Desk>,
    Path((tenant, connector)): Path<(String, String)>,
    Query(Asked { r#as: principal }): Query<Asked>,
) -> Response {
    let principal = principal.unwrap_or_else(|| "tenant".to_owned());
    let key: AccountKey = match format!("{tenant}/{connector}/{principal}").parse() {
        Ok(key) => key,
        Err(error) => {
            return page(StatusCode::BAD_REQUEST, "Not an account", &sentence(&format!("{error}.")));
        }
    };
    let rules = desk.rules().current();
    let Some(connector) = rules.catalog.connector(key.connector.as_str()) else {
        let says = format!("The policy files describe no connector {}.", key.connector);
        return page(StatusCode::NOT_FOUND, "No such connector", &sentence(&says));
    };
    let title = format!("Connect {} for {}", key.connector, key.tenant);
    page(StatusCode::OK, &title, &steps(&key, connector))
}

fn steps(key: &AccountKey, connector: &Connector) -> String {
    let secret = match connector.auth.fields.as_slice() {
        [] => return sentence("This connector needs no account."),
        [field] => format!("It reads the {field} from standard input."),
        several => format!("It reads a JSON object with {} from standard input.", several.join(", ")),
    };
    let account = options(key);
    if fit::asks_consent(connector) {
        let open = if fit::names_host(connector) { String::new() } else { open(connector) };
        let mut text = sentence(&format!(
            "An agent of {} needs the {} account of {}, or more of it than was consented to. Whoever runs the proxy \
             connects it with",
            key.tenant, key.connector, key.principal
        ));
        text += &command(&format!("keybearer account connect {account}{open}"));
        text += &sentence("It prints the address at which the account's owner consents.");
        return text + &sentence("The tokens stay in the proxy's vault; the agent never has them.");
    }
    let open = open(connector);
    let mut text = sentence(&format!(
        "An agent of {} needs the {} account of {}. Whoever runs the proxy connects it with",
        key.tenant, key.connector, key.principal
    ));
    text += &command(&format!("keybearer account add {account}{open}"));
    text += &sentence(&format!("{secret} The secret stays in the proxy's vault; the agent never has it."));
    text += &sentence("If the account is there and only its secret is to be replaced:");
    text += &command(&format!("keybearer account rotate {account}"));
    text
}

/// The options for what the account has to say.
fn open(connector: &Connector) -> String {
    fit::needed(connector).fold(String::new(), |mut text, name| {
        let _ = write!(text, " --meta {name}=..."); // a String takes all
        text
    })
}

/// The options that name the account, quoted for a shell.
fn options(key: &AccountKey) -> String {
    let whose = match &key.principal {
        Principal::Developer => "--developer".to_owned(),
        Principal::Tenant => "--tenant-wide".to_owned(),
        Principal::Role(role) => format!("--role {}", quoted(role.as_str())),
        Principal::User { user, role } => {
            format!("--user {} --role {}", quoted(user.as_str()), quoted(role.as_str()))
        }
    };
    format!("--tenant {} --connector {} {whose}", quoted(key.tenant.as_str()), quoted(key.connector.as_str()))
}

/// A name as one word of a shell. Names have no quotes; some have `$`, `!`, `|` or `~`.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@:+=".contains(c);
    if name.chars().all(is_plain) { name.to_owned() } else { format!("'{name}'") }
}

fn sentence(text: &str) -> String {
    format!("<p>{}</p>\n", escaped(text))
}

fn command(text: &str) -> String {
    format!("<pre>{}</pre>\n", escaped(text))
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let title = escaped(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} - keybearer</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:4rem auto;padding:0 1rem}}\
         pre{{padding:.8rem;background:#8882;border-radius:.4rem;overflow:auto}}:root{{color-scheme:light dark}}</style>\n\
         <h1>{title}</h1>\n{body}"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (status, headers, Html(html)).into_response()
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_the_account_and_survives_a_shell() {
        let key: AccountKey = "ac$me/slack/user:alice@acme.example/writer".parse().unwrap();
        assert_eq!(
            options(&key),
            "--tenant 'ac$me' --connector slack --user alice@acme.example --role writer"
        );
    }

    #[test]
    fn nothing_written_into_the_page_is_markup() {
        assert_eq!(sentence("<b a=\"'\">&"), "<p>&lt;b a=&quot;&#39;&quot;&gt;&amp;</p>\n");
    }
}
