use proptest::prelude::*;

use super::*;
use crate::{host::Target, id::Effect, oauth::Pkce};

fn compile(connectors: &[(&str, &str)]) -> Result<Catalog, Vec<String>> {
    let connectors = connectors
        .iter()
        .map(|(name, spec)| (ConnectorName::new(name).unwrap(), serde_saphyr::from_str(spec).unwrap()))
        .collect();
    Catalog::compile(connectors).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn catalog(connectors: &[(&str, &str)]) -> Catalog {
    compile(connectors).unwrap()
}

/// A connector without credentials and with these operations.
fn open(hosts: &str, operations: &[(&str, &str)]) -> String {
    let operation = |(name, line): &(&str, &str)| format!("{{name: {name}, request: '{line}'}}");
    let operations: Vec<String> = operations.iter().map(operation).collect();
    format!("hosts: {hosts}\nauth: {{type: none}}\noperations: [{}]\n", operations.join(", "))
}

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn path(text: &str) -> CanonicalPath {
    CanonicalPath::parse(text).unwrap()
}

fn found<'a>(located: &Located<'a>, method: &str, text: &str) -> Option<&'a str> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    located.operation(&method, &path(text), None).map(|route| route.operation.name.as_str())
}

const SALESFORCE: &str = r#"
hosts: ["{instance}.my.salesforce.com"]
auth:
  type: oauth2
  authorize_url: https://login.salesforce.com/services/oauth2/authorize
  token_url: https://login.salesforce.com/services/oauth2/token
  pkce: S256
  dialect: {offline_scopes: [refresh_token], rotation: {rotates: always, grace: 10m}}
inject: [{header: Authorization, value: "Bearer {token}"}]
strip: {headers: [X-SFDC-Session], query: [_HttpMethod], form: [sid]}
compression: true
scopes: {accounts:read: [api], opportunities:write: [api]}
operations:
  - {name: account.search, request: "GET /services/data/{version}/search", scopes: [accounts:read]}
  - {name: opportunity.update, request: "PATCH /services/data/{version}/sobjects/Opportunity/{id}", scopes: [opportunities:write], effect: destructive}
"#;

#[test]
fn an_operation_is_found_by_host_method_and_path() {
    let catalog = catalog(&[("salesforce", SALESFORCE)]);
    let na47 = host("na47.my.salesforce.com");
    let located = catalog.locate(&na47, None).unwrap();
    assert_eq!(located.captured(), Some(("instance", "na47")));
    assert_eq!((located.port(), located.by_name()), (443, false));
    let path = path("/services/data/v60.0/sobjects/Opportunity/006x");
    let route = located.operation(&Method::PATCH, &path, None).unwrap();
    assert_eq!(route.operation.name.as_str(), "opportunity.update");
    assert_eq!(&*route.template, "/services/data/{version}/sobjects/Opportunity/{id}");
    assert_eq!(route.operation.effect, Effect::Destructive);
    assert_eq!(route.connector.name.as_str(), "salesforce");
    assert!(located.operation(&Method::GET, &path, None).is_none());
}

#[test]
fn a_connector_keeps_what_its_file_says() {
    let catalog = catalog(&[("salesforce", SALESFORCE)]);
    let salesforce = catalog.connector("salesforce").unwrap();
    assert_eq!(salesforce.auth.kind, AuthType::Oauth2);
    assert_eq!(salesforce.auth.fields, ["token"]);
    let provider = salesforce.auth.provider.as_ref().unwrap();
    assert_eq!(provider.pkce, Some(Pkce::S256));
    assert_eq!(provider.dialect.offline_scopes, ["refresh_token"]);
    assert_eq!(provider.dialect.rotation.grace, std::time::Duration::from_mins(10));
    let token_url = provider.token_url.as_ref().unwrap().to_string();
    assert_eq!(token_url, "https://login.salesforce.com/services/oauth2/token");
    assert!(salesforce.compression && !salesforce.cleartext);
    assert_eq!(salesforce.strip.query, ["_HttpMethod"]);
    assert_eq!(salesforce.strip.form, ["sid"]);
    let headers: Vec<_> = salesforce.strip.headers.iter().map(http::HeaderName::as_str).collect();
    assert_eq!(headers, ["x-sfdc-session", "authorization"], "the place of injection is stripped too");
    assert_eq!(salesforce.placeholders().collect::<Vec<_>>(), ["instance"]);
}

#[test]
fn literal_beats_placeholder_beats_rest() {
    let spec = open(
        "[a.example]",
        &[
            ("rest", "GET /{path...}"),
            ("repo", "GET /repos/{owner}/{repo}"),
            ("repo.search", "GET /repos/{owner}/search"),
            ("octo", "GET /repos/octo/{repo}"),
            ("octo.issues", "GET /repos/octo/{repo}/issues"),
            ("issues", "GET /repos/{owner}/{repo}/issues"),
            ("repo.rest", "GET /repos/{owner}/{repo}/{path...}"),
            ("root", "GET /"),
            ("folder", "GET /repos/"),
        ],
    );
    let catalog = catalog(&[("a", &spec)]);
    let host = host("a.example");
    let located = catalog.locate(&host, None).unwrap();
    for (path, operation) in [
        ("/", Some("root")),
        ("/x", Some("rest")),
        ("/repos", Some("rest")),
        ("/repos/", Some("folder")),
        ("/repos/a/b", Some("repo")),
        ("/repos/a/search", Some("repo.search")),
        ("/repos/octo/search", Some("octo")),
        ("/repos/octo/b/issues", Some("octo.issues")),
        ("/repos/a/b/issues", Some("issues")),
        ("/repos/a/b/pulls", Some("repo.rest")),
        ("/repos/a/b/", Some("rest")),
        ("/repos/a/b/c/d/e/", Some("repo.rest")),
        ("/repos/octo/b/pulls", Some("repo.rest")),
        ("/repos/a", Some("rest")),
    ] {
        assert_eq!(found(&located, "GET", path), operation, "{path}");
    }
    assert_eq!(found(&located, "POST", "/x"), None);
}

#[test]
fn a_placeholder_matches_no_empty_segment() {
    let catalog = catalog(&[("a", &open("[a.example]", &[("one", "GET /a/{x}"), ("all", "GET /b/{x...}")]))]);
    let host = host("a.example");
    let located = catalog.locate(&host, None).unwrap();
    for path in ["/a/", "/a", "/b/", "/b", "/a/x/"] {
        assert_eq!(found(&located, "GET", path), None, "{path}");
    }
    assert_eq!(found(&located, "GET", "/b/x/"), Some("all"));
}

#[test]
fn head_is_its_own_method() {
    let catalog = catalog(&[("a", &open("[a.example]", &[("get", "GET /x"), ("head", "HEAD /y")]))]);
    let host = host("a.example");
    let located = catalog.locate(&host, None).unwrap();
    assert_eq!(found(&located, "HEAD", "/x"), None);
    assert_eq!(found(&located, "HEAD", "/y"), Some("head"));
    assert_eq!(found(&located, "GET", "/y"), None);
    assert_eq!(found(&located, "get", "/x"), None, "methods are case-sensitive (RFC 9110 §9.1)");
}

#[test]
fn a_method_that_the_literal_lacks_is_looked_for_under_the_placeholder() {
    let spec = open("[a.example]", &[("me", "GET /users/me"), ("remove", "DELETE /users/{id}")]);
    let catalog = catalog(&[("a", &spec)]);
    let host = host("a.example");
    let located = catalog.locate(&host, None).unwrap();
    assert_eq!(found(&located, "DELETE", "/users/me"), Some("remove"));
}

#[test]
fn effects_follow_the_methods_unless_said_otherwise() {
    let spec = r"
hosts: [a.example]
auth: {type: none}
operations:
  - {name: read, request: [GET /a, HEAD /a, OPTIONS /a]}
  - {name: write, request: [GET /b, POST /b]}
  - {name: remove, request: [PUT /c, DELETE /c]}
  - {name: search, request: POST /d, effect: read}
";
    let catalog = catalog(&[("a", spec)]);
    let effect = |name| catalog.connector("a").unwrap().operation(name).unwrap().effect;
    assert_eq!(effect("read"), Effect::Read);
    assert_eq!(effect("write"), Effect::Write);
    assert_eq!(effect("remove"), Effect::Destructive);
    assert_eq!(effect("search"), Effect::Read);
}

#[test]
fn the_most_specific_host_wins() {
    let one = |hosts| open(hosts, &[("x", "GET /x")]);
    let catalog = catalog(&[
        ("exact", &one("[api.crm.example]")),
        ("label", &one("['*.crm.example']")),
        ("any", &one("['{i}.example.org']")),
        ("deep", &one("['{i}.deep.example.org']")),
    ]);
    let name = |text| {
        let host = host(text);
        catalog.locate(&host, None).map(|located| located.connector().name.as_str().to_owned())
    };
    assert_eq!(name("api.crm.example").as_deref(), Some("exact"));
    assert_eq!(name("API.crm.example.").as_deref(), Some("exact"));
    assert_eq!(name("www.crm.example").as_deref(), Some("label"));
    assert_eq!(name("a.b.crm.example"), None);
    assert_eq!(name("crm.example"), None);
    assert_eq!(name("a.b.example.org").as_deref(), Some("any"));
    assert_eq!(name("a.deep.example.org").as_deref(), Some("deep"));
    assert_eq!(name("deep.example.org").as_deref(), Some("any"));
    for stranger in ["evilcrm.example", "crm.example.evil.example", "127.0.0.1", "example.org"] {
        assert_eq!(name(stranger), None, "{stranger}");
    }
}

#[test]
fn a_port_is_the_connectors_or_none() {
    let one = |hosts| open(hosts, &[("x", "GET /x")]);
    let catalog = catalog(&[
        ("plain", &one("[a.example]")),
        ("odd", &one("['b.example:8443']")),
        ("first", &one("['127.0.0.1:9001']")),
        ("second", &one("['127.0.0.1:9002']")),
        ("clear", &format!("cleartext: true\n{}", one("[c.example]"))),
    ]);
    let at = |text, port| {
        let host = host(text);
        catalog.locate(&host, port).map(|located| (located.connector().name.to_string(), located.port()))
    };
    let some = |name: &str, port| Some((name.to_owned(), port));
    assert_eq!(at("a.example", None), some("plain", 443));
    assert_eq!(at("a.example", Some(443)), some("plain", 443));
    assert_eq!(at("a.example", Some(8443)), None);
    assert_eq!(at("b.example", None), some("odd", 8443));
    assert_eq!(at("b.example", Some(443)), None);
    assert_eq!(at("127.0.0.1", Some(9001)), some("first", 9001));
    assert_eq!(at("127.0.0.1", Some(9002)), some("second", 9002));
    assert_eq!(at("127.0.0.1", None), None, "which of the two is meant is not guessed");
    assert_eq!(at("c.example", None), some("clear", 80));
}

#[test]
fn a_connector_is_found_by_its_name() {
    let crm = open("['crm.example:8443']", &[("x", "GET /x")]);
    let catalog = catalog(&[("salesforce", SALESFORCE), ("crm", &crm)]);
    let salesforce = host("salesforce.connector.internal");
    let located = catalog.locate(&salesforce, None).unwrap();
    assert!(located.by_name() && located.captured().is_none());
    assert_eq!(found(&located, "GET", "/services/data/v60.0/search"), Some("account.search"));
    let crm = host("crm.connector.internal");
    assert_eq!(catalog.locate(&crm, None).unwrap().port(), 8443);
    assert!(catalog.locate(&crm, Some(443)).is_none());
    for stranger in ["slack.connector.internal", "x.crm.connector.internal", "connector.internal"] {
        assert!(catalog.locate(&host(stranger), None).is_none(), "{stranger}");
    }
}

#[test]
fn an_accounts_metadata_fills_the_host_and_cannot_lead_elsewhere() {
    let two = open("['{instance}.crm.example:8443', 'api.crm.example']", &[]);
    let catalog = catalog(&[("crm", &two), ("star", &open("['*.star.example']", &[]))]);
    let target = |connector: &str, metadata: &[(&str, &str)]| {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        catalog.connector(connector).unwrap().target(&metadata)
    };
    let at = |text, port| Some(Target { host: host(text), port });
    assert_eq!(target("crm", &[("instance", "na47")]), at("na47.crm.example", 8443));
    assert_eq!(target("crm", &[]), at("api.crm.example", 443));
    let url = |url| target("crm", &[("instance", "na47"), ("instance_url", url)]);
    assert_eq!(url("https://eu1.crm.example:8443/"), at("eu1.crm.example", 8443));
    assert_eq!(url("https://eu1.crm.example"), at("eu1.crm.example", 8443));
    for elsewhere in [
        "https://evil.example",
        "http://eu1.crm.example",
        "https://eu1.crm.example:9",
        "https://eu1.crm.example@evil.example",
        "eu1.crm.example",
        "",
    ] {
        assert_eq!(url(elsewhere), None, "{elsewhere}");
    }
    assert_eq!(target("star", &[]), None);
    assert_eq!(target("star", &[("instance_url", "https://a.star.example")]), at("a.star.example", 443));
}

#[test]
fn connectors_may_share_a_host_but_not_a_shape() {
    let rest = open("[a.example]", &[("item.get", "GET /items/{id}")]);
    let other = open("[a.example]", &[("item.put", "PUT /items/{id}"), ("me", "GET /items/me")]);
    let shared = catalog(&[("rest", &rest), ("other", &other)]);
    let host = host("a.example");
    let located = shared.locate(&host, None).unwrap();
    let connector = |method: &Method, text| {
        located.operation(method, &path(text), None).map(|route| route.connector.name.as_str())
    };
    assert_eq!(connector(&Method::GET, "/items/1"), Some("rest"));
    assert_eq!(connector(&Method::PUT, "/items/1"), Some("other"));
    assert_eq!(connector(&Method::GET, "/items/me"), Some("other"));
    assert_eq!(located.connectors().len(), 2);

    let clash = open("[b.example, a.example]", &[("item.read", "GET /items/{number}")]);
    assert_eq!(
        compile(&[("rest", &rest), ("clash", &clash)]).unwrap_err(),
        ["spec.operations[0].request: operations item.read and item.get of connector rest are both \
          `GET /items/{number}`: keep one of them, or make the paths differ"]
    );
}

#[test]
fn two_operations_of_one_shape_are_refused_naming_both() {
    let spec = open(
        "[a.example, b.example]",
        &[("first", "GET /items/{id}"), ("second", "GET /items/{name}"), ("third", "POST /items/{name}")],
    );
    assert_eq!(
        compile(&[("a", &spec)]).unwrap_err(),
        [
            "spec.operations[1].request: operations second and first are both `GET /items/{name}`: keep one of \
          them, or make the paths differ"
        ]
    );
}

#[test]
fn hosts_that_overlap_without_being_alike_are_refused() {
    let spec = |hosts| open(hosts, &[]);
    assert_eq!(
        compile(&[("a", &spec("['{x}.crm.example']")), ("b", &spec("['{y}.crm.example']"))]).unwrap_err(),
        [
            "spec.hosts[0]: {y}.crm.example and {x}.crm.example of connector a match the same hosts: write both alike"
        ]
    );
    assert_eq!(
        compile(&[("a", &spec("['*.crm.example', '{y}.crm.example:8443', '*.crm.example']"))]).unwrap_err(),
        [
            "spec.hosts[1]: {y}.crm.example:8443 and *.crm.example of connector a match the same hosts: write both alike",
            "spec.hosts[2]: *.crm.example is listed twice",
        ]
    );
    let clear = format!("cleartext: true\n{}", spec("['a.example:443']"));
    assert_eq!(
        compile(&[("a", &spec("[a.example]")), ("b", &clear)]).unwrap_err(),
        ["spec.hosts[0]: connector a has a.example:443 too, with another `cleartext`"]
    );
}

#[test]
fn all_that_is_wrong_with_a_connector_is_said_at_once() {
    let spec = r#"
hosts: ["*", salesforce.connector.internal]
auth: {type: static, fields: [api_key, App], token_url: http://x}
inject:
  - {header: DD-API-KEY, value: "{apikey}"}
  - {header: Host, value: "{api_key}"}
  - {value: "{api_key}"}
  - {query: k, value: "{api_key}"}
  - {query: K, value: "{api_key}"}
strip: {headers: ["a b", Content-Length, X-Org-*], query: ["", utm_*], form: ["*"]}
scopes: {items:read: []}
operations:
  - {name: x, request: "GET /x?y", scopes: [item:read], body: graphql}
  - {name: x, request: []}
"#;
    assert_eq!(
        compile(&[("Data.Dog", spec)]).unwrap_err(),
        [
            "spec: a connector's name is part of Data.Dog.connector.internal: use at most 63 lower-case letters, digits, - and _",
            "spec.auth.fields[1]: write a field's name with lower-case letters, digits and _, as in api_key",
            "spec.auth.token_url: token_url has no meaning for static credentials or none",
            "spec.auth.token_url: begin the URL with https://",
            "spec.inject[0].value: the credential has no field `apikey`: use {api_key}, {App}; did you mean `api_key`?",
            "spec.inject[1].header: host frames or routes the message: the proxy alone writes it",
            "spec.inject[2].value: say where it goes: either header or query",
            "spec.inject[4]: the same place is injected twice",
            "spec.strip.headers[0]: `a b` is no header name",
            "spec.strip.headers[1]: content-length frames or routes the message: the proxy alone writes it",
            "spec.strip.headers[2]: `X-Org-*`: a * is no pattern here and stands for itself: write each name out",
            "spec.strip.query[0]: name the parameter",
            "spec.strip.query[1]: `utm_*`: a * is no pattern here and stands for itself: write each name out",
            "spec.strip.form[0]: `*`: a * is no pattern here and stands for itself: write each name out",
            "spec.operations[0].body: not supported yet: body (decisions by the body; leave such operations out)",
            "spec.operations[0].scopes[0]: scope item:read is not among spec.scopes; did you mean `items:read`?",
            "spec.operations[0].request: `GET /x?y`: a query does not decide which operation a request is: write the path alone",
            "spec.operations[1].name: operation x is described twice",
            "spec.operations[1].request: write at least one, as in `GET /items/{id}`",
            "spec.hosts[0]: `*` and {name} can only be the whole first label, as in *.example.com or {instance}.example.com",
            "spec.hosts[1]: the names below .internal of the proxy are its own",
        ]
    );
}

#[test]
fn a_mistake_is_told_once_and_by_what_is_written() {
    let spec = "hosts: [\"::1\"]\nauth: {type: static, fields: []}\ninject: [{header: A, value: \"{token}\"}]\nscopes: {}\noperations: []\n";
    assert_eq!(
        compile(&[("a", spec)]).unwrap_err(),
        [
            "spec.auth.fields: name a field, or leave fields out for `token`",
            "spec.hosts[0]: the host is no IPv6 address in brackets, as in [::1], or names a zone",
        ]
    );
}

/// Operations of `GET /x` that differ in their queries.
fn by_query(queries: &[(&str, &str)]) -> String {
    let operation = |(name, query): &(&str, &str)| format!("{{name: {name}, request: GET /x{query}}}");
    let operations: Vec<String> = queries.iter().map(operation).collect();
    format!(
        "hosts: [a.example]\nauth: {{type: none}}\nstrip: {{query: [sig]}}\noperations: [{}]\n",
        operations.join(", ")
    )
}

#[test]
fn where_the_query_decides_the_operation_that_needs_most_of_it_is_meant() {
    let spec = by_query(&[
        ("plain", ", query: {takes: [page]}"),
        ("acl", ", query: {needs: [acl], takes: [page]}"),
        ("both", ", query: {needs: [acl, id]}"),
        ("id", ", query: {needs: [id], takes: [tag]}"),
        ("tag", ", query: {needs: [tag], takes: [id]}"),
    ]);
    let catalog = catalog(&[("a", &spec)]);
    let host = host("a.example");
    let located = catalog.locate(&host, None).unwrap();
    for (query, expected) in [
        (None, Some("plain")),
        (Some("page=2"), Some("plain")),
        (Some("page=2&sig=x"), Some("plain")),
        (Some("acl&page=2"), Some("acl")),
        (Some("id=1&acl"), Some("both")),
        (Some("id=1&acl&page=2"), None),
        (Some("id=1"), Some("id")),
        (Some("id=1&tag=2"), None), // two readings
        (Some("policy"), None),
        (Some("page=2;acl"), None),
    ] {
        let route = located.operation(&Method::GET, &path("/x"), query);
        assert_eq!(route.map(|route| route.operation.name.as_str()), expected, "{query:?}");
    }
}

#[test]
fn operations_that_a_query_cannot_tell_apart_are_refused() {
    let says = "spec.operations[1].request: operations b and a are both `GET /x`: keep one of them, or make the paths differ";
    for (one, other) in [
        ("", ""),
        ("", ", query: {needs: [acl]}"),
        (", query: {needs: [acl]}", ""),
        (", query: {needs: [acl]}", ", query: {needs: [acl], takes: [page]}"),
        (", query: {}", ", query: {takes: [page]}"),
    ] {
        assert_eq!(
            compile(&[("a", &by_query(&[("a", one), ("b", other)]))]).unwrap_err(),
            [says],
            "{one} {other}"
        );
    }
}

#[test]
fn a_connector_of_aws_takes_its_keys_and_what_it_signs_for() {
    let spec = |auth: &str| format!("hosts: [s3.crm.test]\nauth: {{type: aws_sigv4{auth}}}");
    let fields = |auth: &str| catalog(&[("a", &spec(auth))]).connector("a").unwrap().auth.fields.clone();
    assert_eq!(fields(""), ["access_key_id", "secret_access_key"]);
    let all = ", fields: [access_key_id, secret_access_key, session_token]";
    assert_eq!(fields(all), ["access_key_id", "secret_access_key", "session_token"]);
    let catalog = catalog(&[("a", &spec(", service: s3, region: eu-west-1"))]);
    let scope = catalog.connector("a").unwrap().signing_scope(&host("s3.crm.test")).unwrap();
    assert_eq!((&*scope.service, &*scope.region), ("s3", "eu-west-1"));
    for (auth, says) in [
        (", service: s3", "spec.auth.service: write both service and region, or leave both to the host"),
        (", service: S3, region: x", "spec.auth.service: write it with lower-case letters, digits and -"),
        (
            ", fields: [key]",
            "spec.auth.fields: write [access_key_id, secret_access_key, session_token], or leave fields out for the first two",
        ),
        (", pkce: S256", "spec.auth.pkce: pkce has no meaning for static credentials or none"),
    ] {
        assert_eq!(compile(&[("a", &spec(auth))]).unwrap_err(), [says]);
    }
    let other = "hosts: [a.example]\nauth: {type: none, region: eu-west-1}";
    assert_eq!(
        compile(&[("a", other)]).unwrap_err(),
        ["spec.auth.region: region has a meaning for `type: aws_sigv4` only"]
    );
}

#[test]
fn credentials_that_go_nowhere_or_do_not_exist_are_refused() {
    let with = |rest: &str| format!("hosts: [a.example]\n{rest}");
    let says = |rest: &str| compile(&[("a", &with(rest))]).unwrap_err();
    assert_eq!(
        says("auth: {type: static}"),
        [
            "spec.inject: the credential goes nowhere: add a line such as {header: Authorization, value: \"Bearer {token}\"}"
        ]
    );
    assert_eq!(
        says("auth: {type: none}\ninject: [{header: x, value: '{token}'}]"),
        ["spec.inject: `auth: {type: none}` has no credential to inject"]
    );
    assert_eq!(
        says(
            "auth: {type: oauth2, fields: [a], token_url: 'http://x'}\ninject: [{header: x, value: '{token}'}]"
        ),
        [
            "spec.auth.fields: only `type: static` has fields of its own; the others hold a `token`",
            "spec.auth.token_url: begin the URL with https://",
        ]
    );
}

const SEGMENTS: [&str; 5] = ["a", "b", "{}", "{...}", ""];

/// Whether the template matches, and how specifically: smaller is more.
fn by_the_book(template: &[&str], path: &[&str]) -> Option<Vec<u8>> {
    let mut rank = Vec::new();
    for (index, segment) in template.iter().enumerate() {
        match (*segment, path.get(index)?) {
            ("{}" | "{...}", &"") => return None,
            ("{}", _) => rank.push(1),
            ("{...}", _) => {
                rank.push(2);
                return Some(rank);
            }
            (literal, found) if literal == *found => rank.push(0),
            _ => return None,
        }
    }
    (template.len() == path.len()).then_some(rank)
}

/// Only the last segment may be the rest or empty.
fn well_formed(segments: Vec<usize>) -> Vec<&'static str> {
    let last = segments.len() - 1;
    segments
        .into_iter()
        .enumerate()
        .map(|(index, choice)| SEGMENTS[if index < last { choice % 3 } else { choice }])
        .collect()
}

proptest! {
    #[test]
    fn the_trie_finds_the_most_specific_of_all_that_match(
        templates in proptest::collection::btree_set(
            proptest::collection::vec(0..5usize, 1..5).prop_map(well_formed), 1..12),
        asked in proptest::collection::vec(0..3usize, 1..6),
        trailing: bool,
    ) {
        let mut asked: Vec<&str> = asked.into_iter().map(|choice| ["a", "b", "c"][choice]).collect();
        if trailing {
            asked.push("");
        }
        let written = |template: &[&str]| {
            template.iter().enumerate().fold(String::new(), |path, (index, segment)| match *segment {
                "{}" => format!("{path}/{{x{index}}}"),
                "{...}" => format!("{path}/{{x{index}...}}"),
                literal => format!("{path}/{literal}"),
            })
        };
        let templates: Vec<_> = templates.into_iter().collect();
        let names: Vec<String> = (0..templates.len()).map(|index| format!("op{index}")).collect();
        let lines: Vec<String> = templates.iter().map(|template| format!("GET {}", written(template))).collect();
        let operations: Vec<_> = names.iter().map(String::as_str).zip(lines.iter().map(String::as_str)).collect();
        let catalog = catalog(&[("a", &open("[a.example]", &operations))]);
        let host = host("a.example");
        let located = catalog.locate(&host, None).unwrap();
        let expected = templates
            .iter()
            .zip(&names)
            .filter_map(|(template, name)| Some((by_the_book(template, &asked)?, name.as_str())))
            .min()
            .map(|(_, name)| name);
        prop_assert_eq!(found(&located, "GET", &format!("/{}", asked.join("/"))), expected, "{:?}", lines);
    }
}
