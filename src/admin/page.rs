//! `GET /connect/{tenant}/{connector}?as=PRINCIPAL`: what a refusal's `reconnect_url` shows to a person.

use std::fmt::Write as _;

use axum::{
    Router,
    extract::{Path, Query, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{Desk, fit};
use crate::{
    catalog::Connector,
    id::{AccountKey, Principal},
};

/// Nothing is loaded, sent or framed; the one style is ours.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn router(desk: Desk) -> Router {
    Router::new().route("/connect/{tenant}/{connector}", get(connect)).with_state(desk)
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
    let open = fit::needed(connector).fold(String::new(), |mut text, name| {
        let _ = write!(text, " --meta {name}=..."); // a String takes all
        text
    });
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
