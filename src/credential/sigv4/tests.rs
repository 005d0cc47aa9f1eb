use serde::Deserialize;

use super::*;

/// AWS's own test suite for Signature Version 4, as the crate aws-sigv4 1.6.4 carries it (Apache-2.0), but for the cases
/// whose paths are never sent from here and those that sign headers which are not signed here.
const VECTORS: &str = include_str!("vectors.json");
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[derive(Deserialize)]
struct Vector {
    name: String,
    method: String,
    target: String,
    token: Option<String>,
    canonical: String,
    signature: String,
}

fn signer(token: Option<&str>) -> Signer {
    let fields = [
        ("access_key_id", Some("AKIDEXAMPLE")),
        ("secret_access_key", Some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
        ("session_token", token),
    ];
    let fields = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Secret::new(value?.as_bytes().to_vec()))));
    Signer::new(&fields.collect()).map_err(|error| error.to_string()).unwrap()
}

fn scope(service: &str) -> SigningScope {
    SigningScope { service: service.to_owned(), region: "us-east-1".to_owned() }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    fields.iter().map(field).collect()
}

#[test]
fn awss_own_vectors_are_signed_as_they_say() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.len(), 22);
    for vector in vectors {
        let (path, query) = match vector.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*vector.target, None),
        };
        let (method, scope) = (vector.method.parse().unwrap(), scope("service"));
        let unsigned = Unsigned {
            method: &method,
            authority: "example.amazonaws.com",
            path,
            query,
            payload: NOTHING,
            scope: &scope,
        };
        let mut headers = HeaderMap::new();
        signer(vector.token.as_deref())
            .sign(&unsigned, &mut headers, "2015-08-30T12:36:00Z".parse().unwrap())
            .unwrap();
        assert_eq!(unsigned.canonical(&headers).unwrap().0, vector.canonical, "{}", vector.name);
        let authorization = headers[header::AUTHORIZATION].to_str().unwrap();
        let signature = format!("Signature={}", vector.signature);
        assert!(authorization.ends_with(&signature), "{}: {authorization}", vector.name);
        assert!(headers[header::AUTHORIZATION].is_sensitive());
    }
}

fn canonical(service: &str, path: &str, query: Option<&str>, fields: &[(&str, &str)]) -> String {
    let scope = scope(service);
    let (method, authority) = (&Method::GET, "a.amazonaws.com");
    let unsigned = Unsigned { method, authority, path, query, payload: "UNSIGNED-PAYLOAD", scope: &scope };
    unsigned.canonical(&headers(fields)).unwrap().0
}

fn line(canonical: &str, number: usize) -> &str {
    canonical.lines().nth(number).unwrap()
}

#[test]
fn a_path_is_encoded_once_more_except_for_s3() {
    // The first two are `double-encode-path` and `double-url-encode` of the same suite.
    for (service, path, expected) in [
        ("execute-api", "/test/@connections/JBDvjfGEIAMCERw%3D", "/test/%40connections/JBDvjfGEIAMCERw%253D"),
        (
            "lambda",
            "/functions/arn%3Aaws%3Alambda/invocations",
            "/functions/arn%253Aaws%253Alambda/invocations",
        ),
        ("s3", "/bucket/a%20b%2Bc/%C3%A9", "/bucket/a%20b%2Bc/%C3%A9"),
        ("s3", "/bucket/a(b)@c", "/bucket/a%28b%29%40c"),
    ] {
        assert_eq!(line(&canonical(service, path, None, &[]), 1), expected, "{service}");
    }
}

#[test]
fn a_query_is_signed_in_the_one_spelling_and_order() {
    for (query, expected) in [
        ("", ""),
        ("uploads", "uploads="),
        ("b=2&a=1&a=0", "a=0&a=1&b=2"),
        ("prefix=a/b&x=%7E%2f", "prefix=a%2Fb&x=~%2F"),
        ("q=a+b&q=a%2Bb", "q=a%20b&q=a%2Bb"),
        ("&&a", "a="),
    ] {
        assert_eq!(line(&canonical("s3", "/", Some(query), &[]), 2), expected, "{query}");
    }
}

#[test]
fn what_is_awss_is_signed_and_what_may_change_on_the_way_is_not() {
    let fields = [
        ("x-amz-meta-note", "  two   spaces "),
        ("x-amz-meta-list", "b"),
        ("x-amz-meta-list", "a"),
        ("content-type", "text/plain"),
        ("user-agent", "x"),
        ("accept", "*/*"),
        ("content-length", "3"),
    ];
    let canonical = canonical("s3", "/", None, &fields);
    let signed: Vec<&str> = canonical.lines().skip(3).take_while(|line| !line.is_empty()).collect();
    let expected = [
        "content-type:text/plain",
        "host:a.amazonaws.com",
        "x-amz-meta-list:b,a",
        "x-amz-meta-note:two spaces",
    ];
    assert_eq!(signed, expected);
}

#[test]
fn a_header_that_is_no_text_cannot_be_signed() {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-meta-note", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let scope = scope("s3");
    let (method, authority) = (&Method::GET, "a.amazonaws.com");
    let unsigned = Unsigned { method, authority, path: "/", query: None, payload: NOTHING, scope: &scope };
    let refused = signer(None).sign(&unsigned, &mut headers, Timestamp::UNIX_EPOCH);
    assert_eq!(refused, Err(Unsignable("x-amz-meta-note".parse().unwrap())));
}

#[test]
fn keys_without_their_secret_sign_nothing() {
    let fields = [("access_key_id".to_owned(), Secret::new(b"AKIDEXAMPLE".to_vec()))].into();
    assert!(
        matches!(Signer::new(&fields), Err(Error::Field(MissingField(name))) if name == "secret_access_key")
    );
}
