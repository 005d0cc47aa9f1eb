//! How programs are told to use the proxy and to trust its CA: by environment variables, as each of them reads them.
//!
//! One table, used by `keybearer run` for a process on this machine and meant for whoever else starts agents. What is
//! proved by a test with the real client is in README.md; the source of the rest stands beside it.

pub mod java;

use std::{ffi::OsString, path::Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::id::Subject;

/// What a variable is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The proxy's URL, with the identity as its user name.
    Proxy,
    /// The file with the system's roots and the proxy's CA.
    Bundle,
    /// Both, as options of Java's, after those that are there.
    Java,
    /// Always this.
    Text(&'static str),
}

/// One variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is set to.
    pub value: Value,
    /// Who reads it, and where that is said.
    pub readers: &'static str,
}

const fn variable(name: &'static str, value: Value, readers: &'static str) -> Variable {
    Variable { name, value, readers }
}

/// What does not go to the proxy: this machine. The proxy would refuse it, as it refuses all private addresses, and
/// a tool's own servers could not be reached. A list of the user's own is not kept: it would lead around the proxy.
const HERE: &str = "localhost,127.0.0.1,::1";

/// Every variable that is set. Both cases, because curl reads `http_proxy` in lower case only and others the upper.
pub const SET: &[Variable] = &[
    variable("HTTP_PROXY", Value::Proxy, "most clients, for http:// URLs"),
    variable(
        "http_proxy",
        Value::Proxy,
        "curl, which reads no HTTP_PROXY: https://curl.se/docs/manpage.html",
    ),
    variable("HTTPS_PROXY", Value::Proxy, "most clients, for https:// URLs"),
    variable("https_proxy", Value::Proxy, "wget, and most clients that read the other"),
    variable("ALL_PROXY", Value::Proxy, "curl, httpx, git: for every other scheme"),
    variable("all_proxy", Value::Proxy, "as ALL_PROXY"),
    variable(
        "NO_PROXY",
        Value::Text(HERE),
        "what is on this machine is reached as ever, and without a credential",
    ),
    variable("no_proxy", Value::Text(HERE), "as NO_PROXY"),
    variable(
        "NODE_USE_ENV_PROXY",
        Value::Text("1"),
        "Node 24 and 22.21 or later, own fetch: https://nodejs.org/api/cli.html; Node 20 has no such switch",
    ),
    variable(
        "SSL_CERT_FILE",
        Value::Bundle,
        "OpenSSL, and with it Python's ssl, httpx, Ruby; Go; rustls-native-certs, uv: https://docs.openssl.org/3.5/man7/openssl-env/",
    ),
    variable(
        "REQUESTS_CA_BUNDLE",
        Value::Bundle,
        "Python requests: https://requests.readthedocs.io/en/latest/user/advanced/",
    ),
    variable("CURL_CA_BUNDLE", Value::Bundle, "curl, built with OpenSSL: https://curl.se/docs/sslcerts.html"),
    variable("NODE_EXTRA_CA_CERTS", Value::Bundle, "Node, Bun: https://nodejs.org/api/cli.html"),
    variable("GIT_SSL_CAINFO", Value::Bundle, "git: https://git-scm.com/docs/git-config, http.sslCAInfo"),
    variable(
        "GIT_HTTP_PROXY_AUTHMETHOD",
        Value::Text("basic"),
        "git, which names itself to a proxy only when asked by a 407 otherwise: https://git-scm.com/docs/git-config, http.proxyAuthMethod",
    ),
    variable("PIP_CERT", Value::Bundle, "pip: https://pip.pypa.io/en/stable/cli/pip/, --cert"),
    variable(
        "CARGO_HTTP_CAINFO",
        Value::Bundle,
        "cargo: https://doc.rust-lang.org/cargo/reference/config.html, http.cainfo",
    ),
    variable("DENO_CERT", Value::Bundle, "Deno: https://docs.deno.com/runtime/reference/env_variables/"),
    variable(
        "AWS_CA_BUNDLE",
        Value::Bundle,
        "boto3 and the AWS command line: https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html",
    ),
    variable(
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        Value::Bundle,
        "gRPC's C core, and with it Python, Ruby, PHP: https://grpc.github.io/grpc/core/md_doc_environment_variables.html",
    ),
    variable(
        "NPM_CONFIG_CAFILE",
        Value::Bundle,
        "npm: https://docs.npmjs.com/cli/v10/using-npm/config, cafile",
    ),
    variable(
        "YARN_HTTPS_CA_FILE_PATH",
        Value::Bundle,
        "Yarn 3 or later: https://yarnpkg.com/configuration/yarnrc, httpsCaFilePath",
    ),
    variable(
        "BUNDLE_SSL_CA_CERT",
        Value::Bundle,
        "Ruby's bundler: https://bundler.io/man/bundle-config.1.html, ssl_ca_cert",
    ),
    variable("COMPOSER_CAFILE", Value::Bundle, "PHP's composer: https://getcomposer.org/doc/03-cli.md"),
    variable(
        "CONDA_SSL_VERIFY",
        Value::Bundle,
        "conda: https://docs.conda.io/projects/conda/en/stable/configuration.html, ssl_verify",
    ),
    variable(
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
        Value::Bundle,
        "gcloud: https://cloud.google.com/sdk/gcloud/reference/topic/configurations, core/custom_ca_certs_file",
    ),
    variable(
        "HTTPLIB2_CA_CERTS",
        Value::Bundle,
        "Python httplib2, and with it Google's API client: https://github.com/httplib2/httplib2",
    ),
    variable(
        "WEBSOCKET_CLIENT_CA_BUNDLE",
        Value::Bundle,
        "Python websocket-client: https://websocket-client.readthedocs.io/en/latest/faq.html",
    ),
    variable("PERL_LWP_SSL_CA_FILE", Value::Bundle, "Perl's LWP: https://metacpan.org/pod/LWP::UserAgent"),
    variable(
        "NIX_SSL_CERT_FILE",
        Value::Bundle,
        "programs from nixpkgs: https://nix.dev/manual/nix/latest/command-ref/env-common",
    ),
    variable(
        java::VARIABLE,
        Value::Java,
        "Java: https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/net/doc-files/net-properties.html",
    ),
];

/// What would lead a program around the proxy if it stood in the environment, and is therefore removed.
pub const REMOVED: &[&str] = &[
    "grpc_proxy",
    "no_grpc_proxy",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "NPM_CONFIG_PROXY",
    "NPM_CONFIG_HTTPS_PROXY",
    "NPM_CONFIG_NOPROXY",
    "npm_config_cafile",
    "PIP_PROXY",
    "CARGO_HTTP_PROXY",
    "ws_proxy",
    "wss_proxy",
    "socks_proxy",
    "SOCKS_PROXY",
];

/// Keybearer's own variables begin like this. The key of the vault may be among them, and none is for agents.
pub const OWN_PREFIX: &str = "KEYBEARER_";

/// Names may hold what ends a user name or begins a path in a URL (RFC 3986 §3.2.1); all but the unreserved is encoded.
const USER_NAME: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The proxy at `address` (host and port) as a URL. The password is never looked at, but some clients send no
/// user name without one.
#[must_use]
pub fn proxy_url(address: &str, subject: Option<&Subject>) -> String {
    let Some(Subject { tenant, role, user }) = subject else { return format!("http://{address}") };
    let mut name = format!("{tenant}/{role}");
    if let Some(user) = user {
        name.push('/');
        name.push_str(user.as_str());
    }
    format!("http://{}:x@{address}", utf8_percent_encode(&name, &USER_NAME))
}

/// The certificates to trust, in two formats.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// The bundle.
    pub pem: &'a Path,
    /// The same for Java, PKCS #12.
    pub store: &'a Path,
    /// What Java opens that with: no secret.
    pub password: &'a str,
}

/// Every variable with its value, for a program that is to use this proxy and trust these certificates.
pub fn environment<'a>(
    proxy_url: &'a str,
    trust: Trust<'a>,
) -> impl Iterator<Item = (&'static str, OsString)> + 'a {
    SET.iter().map(move |variable| {
        let value = match variable.value {
            Value::Proxy => OsString::from(proxy_url),
            Value::Bundle => OsString::from(trust.pem),
            Value::Text(text) => OsString::from(text),
            Value::Java => java::options(&[java::trust(&trust), java::proxy(proxy_url)]).into(),
        };
        (variable.name, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RoleName, TenantId, UserId};

    #[test]
    fn a_subject_is_percent_encoded() {
        let subject = Subject {
            tenant: TenantId::new("acme").unwrap(),
            role: RoleName::new("researcher").unwrap(),
            user: Some(UserId::new("alice@acme.example").unwrap()),
        };
        assert_eq!(
            proxy_url("127.0.0.1:7080", Some(&subject)),
            "http://acme%2Fresearcher%2Falice%40acme.example:x@127.0.0.1:7080"
        );
        assert_eq!(proxy_url("127.0.0.1:7080", None), "http://127.0.0.1:7080");
    }

    #[test]
    fn no_variable_is_named_twice() {
        let mut names: Vec<&str> =
            SET.iter().map(|variable| variable.name).chain(REMOVED.iter().copied()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
