//! Keys of AWS for another issuer's token: the Security Token Service's `AssumeRoleWithWebIdentity`.
//!
//! It is not OAuth, but it is the same exchange: a statement that somebody else signed, for a credential that ends. It
//! takes a form without any signature and answers in XML, of which four elements are of use.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    AppFault, BodyStyle, Failure, FillError, NotSent, Transport, Unreadable, UrlTemplate, Values, life,
    request::Params, transport::Received,
};
use crate::{cause::Cause, secret::Secret};

/// How long until a token that has ended is looked for anew in its file.
const NEXT_TOKEN: Duration = Duration::from_secs(10);

const VERSION: &str = "2011-06-15";

/// What a role is assumed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebIdentity {
    /// The role's ARN.
    pub role: String,
    /// What AWS's own log calls whoever assumes it.
    pub session: String,
    /// The other issuer's token.
    pub token: Secret,
    /// ARNs of policies that narrow the role for this session.
    pub policies: Vec<String>,
}

/// Keys that end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKeys {
    /// Names them.
    pub access_key_id: Secret,
    /// What is signed with.
    pub secret_access_key: Secret,
    /// What goes along with every request.
    pub session_token: Secret,
    /// When they came.
    pub obtained: Timestamp,
    /// When they end, by our clock.
    pub expires: Option<Timestamp>,
}

impl Transport {
    /// Assumes a role, by one request.
    ///
    /// # Errors
    /// [`Failure`], as for tokens.
    pub async fn assume_role(
        &self,
        url: &UrlTemplate,
        values: Values<'_>,
        identity: &WebIdentity,
    ) -> Result<AwsKeys, Failure> {
        let url = url.fill(values).map_err(|error: FillError| NotSent::Metadata(error))?;
        let mut params = Params::default();
        for (name, value) in [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", VERSION),
            ("RoleArn", &identity.role),
            ("RoleSessionName", &identity.session),
        ] {
            params.put(name, value);
        }
        params.put_secret("WebIdentityToken", &identity.token)?;
        for (index, policy) in identity.policies.iter().enumerate() {
            params.put(&format!("PolicyArns.member.{}.arn", index + 1), policy);
        }
        let (url, mut question) = params.written(Method::POST, &url, BodyStyle::Form, HeaderMap::new())?;
        question.headers.insert(header::ACCEPT, HeaderValue::from_static("text/xml"));
        read(&self.send(&url, question).await?)
    }
}

fn read(answer: &Received) -> Result<AwsKeys, Failure> {
    let text = std::str::from_utf8(&answer.body).map_err(|_| Failure::Unreadable(Unreadable::Syntax));
    if !(200..300).contains(&answer.status) {
        return Err(refusal(answer, text.unwrap_or_default()));
    }
    let text = text?;
    let part = |name| {
        let found = element(text, name).ok_or(Failure::Unreadable(Unreadable::NoToken))?;
        Ok::<_, Failure>(Secret::new(found.as_bytes().to_vec()))
    };
    let end: Option<Timestamp> = element(text, "Expiration").and_then(|end| end.parse().ok());
    // The moment is the server's, and so is what it is counted from.
    let now = life::date(&answer.headers).unwrap_or(answer.at);
    let life = end.map(|end| life::clamp(end.duration_since(now)));
    Ok(AwsKeys {
        access_key_id: part("AccessKeyId")?,
        secret_access_key: part("SecretAccessKey")?,
        session_token: part("SessionToken")?,
        obtained: answer.at,
        expires: life.and_then(|life| answer.at.checked_add(life).ok()),
    })
}

/// What STS's codes mean. The token is another issuer's and is replaced in its file, so that one which has ended is
/// not for ever; a role that does not trust it waits for a person.
fn refusal(answer: &Received, text: &str) -> Failure {
    let retry_after = life::retry_after(&answer.headers, answer.at);
    match element(text, "Code") {
        Some("ExpiredTokenException") => Failure::Transient { retry_after: retry_after.or(Some(NEXT_TOKEN)) },
        Some("IDPCommunicationError" | "Throttling" | "ServiceUnavailable") => {
            Failure::Transient { retry_after }
        }
        Some("AccessDenied" | "IDPRejectedClaim" | "InvalidIdentityToken") => {
            Failure::NeedsUser { cause: Cause::Policy, claims: None }
        }
        Some(
            "ValidationError"
            | "MalformedPolicyDocument"
            | "PackedPolicyTooLarge"
            | "RegionDisabledException",
        ) => Failure::App(AppFault::Request),
        _ => match answer.status {
            300..400 => Failure::App(AppFault::Redirect),
            403 => Failure::NeedsUser { cause: Cause::Policy, claims: None },
            404 | 405 | 410 => Failure::App(AppFault::NoEndpoint),
            _ => Failure::Transient { retry_after },
        },
    }
}

/// The text of the first element of that name. AWS writes what is asked for here without attributes or entities: it is
/// base64 or a word.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&*Zeroizing::new(format!("<{name}>")))?;
    let (found, _) = after.split_once(&*format!("</{name}>"))?;
    Some(found.trim()).filter(|found| !found.is_empty() && !found.contains(['<', '&']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
      <AssumeRoleWithWebIdentityResult><Credentials>
        <SessionToken>kb-canary-session==</SessionToken><SecretAccessKey>kb-canary/secret+key</SecretAccessKey>
        <Expiration>1970-01-01T02:00:00Z</Expiration><AccessKeyId>ASIA1</AccessKeyId>
      </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"#;

    fn answered(status: u16, text: &str, date: &str) -> Result<AwsKeys, Failure> {
        let headers = [(header::DATE, HeaderValue::from_str(date).unwrap())].into_iter().collect();
        let body = Zeroizing::new(text.as_bytes().to_vec());
        read(&Received { status, headers, body, at: Timestamp::UNIX_EPOCH })
    }

    #[test]
    fn keys_are_read_and_end_as_far_from_now_as_from_the_servers() {
        let keys = answered(200, ANSWER, "Thu, 01 Jan 1970 01:00:00 GMT").unwrap();
        assert_eq!(keys.access_key_id, Secret::new(b"ASIA1".to_vec()));
        assert_eq!(keys.secret_access_key, Secret::new(b"kb-canary/secret+key".to_vec()));
        assert_eq!(keys.session_token, Secret::new(b"kb-canary-session==".to_vec()));
        assert_eq!(keys.expires, Timestamp::from_second(3600).ok(), "an hour from the server's now");
        let torn = ANSWER.replace("SessionToken", "Token");
        assert_eq!(answered(200, &torn, "").unwrap_err(), Failure::Unreadable(Unreadable::NoToken));
    }

    #[test]
    fn what_the_service_refuses_is_the_roles_the_tokens_or_nobodys_fault() {
        let said = |status, code: &str| answered(status, &format!("<Error><Code>{code}</Code></Error>"), "");
        let waits = Failure::NeedsUser { cause: Cause::Policy, claims: None };
        let later = Failure::Transient { retry_after: None };
        for (status, code, failure) in [
            (400, "ExpiredTokenException", Failure::Transient { retry_after: Some(NEXT_TOKEN) }),
            (400, "InvalidIdentityToken", waits.clone()),
            (403, "AccessDenied", waits.clone()),
            (403, "", waits),
            (400, "ValidationError", Failure::App(AppFault::Request)),
            (503, "", later),
            (302, "", Failure::App(AppFault::Redirect)),
        ] {
            assert_eq!(said(status, code).unwrap_err(), failure, "{status} {code}");
        }
    }
}
