//! What stands for a body in an AWS signature: what the agent says of it, or what is read here.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use jiff::Timestamp;

use super::{
    body::RequestBody,
    gather::Gathering,
    place,
    refusal::{Code, Refusal},
    upstream::Endpoint,
};
use crate::{
    catalog::{Connector, SigningScope},
    credential::{Signer, Unsigned, payload_hash},
};

const SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// Signs a request.
///
/// # Errors
/// `bad_request` for a body or a header that cannot be signed, `body_too_large` for one that would have to be read,
/// `destination_denied` where nobody says what to sign for: nothing leaves unsigned.
pub(super) async fn sign(
    request: Request<RequestBody>,
    signer: &Signer,
    connector: &Connector,
    endpoint: &Endpoint,
    gathering: &Gathering<'_>,
) -> Result<Request<RequestBody>, Refusal> {
    let host = &endpoint.target.host;
    let scope = connector.signing_scope(host).ok_or_else(|| place::unsignable(host))?;
    let (mut request, payload) = settled(request, &scope, endpoint, gathering).await?;
    put(&mut request, signer, &scope, endpoint, &payload)?;
    Ok(request)
}

/// The request with a body that is ready to be signed, and what stands for it.
async fn settled(
    mut request: Request<RequestBody>,
    scope: &SigningScope,
    endpoint: &Endpoint,
    gathering: &Gathering<'_>,
) -> Result<(Request<RequestBody>, String), Refusal> {
    if let Some(said) = said(request.headers())? {
        return Ok((request, said));
    }
    let payload = if scope.is_s3() && !endpoint.cleartext {
        UNSIGNED.to_owned() // TLS protects it, and an object may be larger than what can be read before it is sent
    } else {
        let (parts, body) = request.into_parts();
        let read = gathering.whole(body).await;
        let body = read.map_err(|unread| unread.refusal(|| too_long(gathering.limit)))?;
        let payload = payload_hash(&body.bytes);
        request = Request::from_parts(parts, RequestBody::whole(body));
        payload
    };
    if scope.is_s3()
        && let Ok(value) = HeaderValue::try_from(&payload)
    {
        request.headers_mut().insert(SHA256, value);
    }
    Ok((request, payload))
}

fn too_long(limit: usize) -> Refusal {
    let detail = format!(
        "body_too_large: the body is read before it is signed and may have {limit} bytes; send less, or its hash as {SHA256}"
    );
    Refusal::new(Code::BodyTooLarge, detail).with("limit", limit)
}

/// What the agent's client says of the body. A hash is taken at its word: the provider compares it.
fn said(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(SHA256).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::bad_request(format!("the request has more than one {SHA256}")));
    }
    match value.to_str().unwrap_or_default() {
        word @ (UNSIGNED | TRAILER) => Ok(Some(word.to_owned())),
        hash if hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
            Ok(Some(hash.to_owned()))
        }
        word if word.starts_with("STREAMING-") => Err(Refusal::bad_request(
            "each chunk of the body is signed with the client's own keys, which count for nothing here: have the client \
             not sign chunks (AWS SDK for Java: chunkedEncodingEnabled(false); .NET: UseChunkEncoding = false; others: an \
             https:// endpoint, or payload signing off)",
        )),
        _ => Err(Refusal::bad_request(format!(
            "{SHA256} is neither a SHA-256 in 64 lower-case hexadecimal digits nor {UNSIGNED} or {TRAILER}"
        ))),
    }
}

fn put(
    request: &mut Request<RequestBody>,
    signer: &Signer,
    scope: &SigningScope,
    endpoint: &Endpoint,
    payload: &str,
) -> Result<(), Refusal> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let authority = endpoint.authority();
    let unsigned = Unsigned {
        method: &method,
        authority: &authority,
        path: uri.path(),
        query: uri.query(),
        payload,
        scope,
    };
    signer.sign(&unsigned, request.headers_mut(), Timestamp::now()).map_err(Refusal::bad_request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, String> {
        let fields = values.iter().map(|value| (SHA256, HeaderValue::try_from(*value).unwrap()));
        said(&fields.collect()).map_err(|refusal| refusal.detail().to_owned())
    }

    #[test]
    fn what_a_client_says_of_its_body_is_taken_or_refused_but_never_changed() {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(read(&[]), Ok(None));
        for word in [hash, UNSIGNED, TRAILER] {
            assert_eq!(read(&[word]), Ok(Some(word.to_owned())));
        }
        for (values, says) in [
            (&["STREAMING-AWS4-HMAC-SHA256-PAYLOAD"][..], "UseChunkEncoding"),
            (&["STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"], "chunkedEncodingEnabled(false)"),
            (&["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"], "sign chunks"),
            (&[&hash.to_ascii_uppercase()], "64 lower-case"),
            (&[&hash[1..]], "64 lower-case"),
            (&["unsigned-payload"], "64 lower-case"),
            (&[""], "64 lower-case"),
            (&[UNSIGNED, hash], "more than one"),
        ] {
            let refused = read(values).unwrap_err();
            assert!(refused.contains(says), "{values:?}: {refused}");
        }
    }
}
