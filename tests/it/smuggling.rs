//! Requests that two parsers could read in two ways. Each is refused, or forwarded in exactly one reading: the
//! tables have every answer and every byte that the provider saw.
//!
//! A well-formed request follows each payload on the same connection. It is answered if the proxy still knows
//! where a request begins, and it would be what a smuggled prefix is added to.

mod framing;
mod headers;
mod hosts;
mod lines;

use keybearer::id::Principal;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    raw::{OK, Raw, Script, message},
    stage::{Stage, Staging, account},
};

const SECRET: &str = "kb-canary-wire-5c1e9d77f0";

/// A connector that takes any path, without TLS, so that its provider sees bytes.
const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: wire}
spec:
  hosts: ["wire.test"]
  cleartext: true
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  operations: [{name: any, request: ["GET /{path...}", "POST /{path...}"], effect: read}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: crew}
spec:
  tenants: ["*"]
  grants: [{connector: wire, as: tenant, scopes: []}]
"#;

/// One line of a table. In payloads `{U}` is a URL and `{X}` its path, another one for each line, `{H}` the
/// fields that every request needs, and `{I}` the identity alone.
struct Case {
    payload: &'static str,
    /// The status of each answer until the connection ended, the following request's included.
    answers: &'static [u16],
    follows: Follows,
    /// What the provider saw of the agent's, without the following request.
    sent: &'static [&'static str],
}

/// What becomes of the request that follows a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// It is a request.
    Yes,
    /// The connection ended before it, or it is part of the payload's last request.
    No,
}

const fn case(
    payload: &'static str,
    answers: &'static [u16],
    follows: Follows,
    sent: &'static [&'static str],
) -> Case {
    Case { payload, answers, follows, sent }
}

/// A stage before a provider that writes down bytes.
struct Wire {
    stage: Stage,
    raw: Raw,
}

/// How requests come in.
#[derive(Clone, Copy)]
enum Form {
    Absolute,
    /// In a tunnel without TLS, in origin form.
    Origin,
}

impl Wire {
    async fn open() -> Self {
        Self::before(OK).await
    }

    /// Before a provider that does this.
    async fn before(script: Script) -> Self {
        let raw = Raw::start(script).await;
        let staging = Staging {
            policies: vec![("policy.yaml", POLICY.to_owned())],
            resolve: vec![("wire.test".to_owned(), raw.address())],
            accounts: vec![account("acme", "wire", Principal::Tenant, SECRET)],
            ..Staging::default()
        };
        Self { stage: Stage::set(staging).await, raw }
    }

    /// Sends each payload, and checks what came back and what came out.
    async fn hold(self, form: Form, table: &[Case]) {
        let mut expected = Vec::new();
        for (number, case) in table.iter().enumerate() {
            let after = filled("GET {A} HTTP/1.1\r\n{H}Connection: close\r\n\r\n", form, number);
            let payload = filled(case.payload, form, number) + &after;
            assert_eq!(self.exchange(form, payload.as_bytes()).await, case.answers, "{:?}", case.payload);
            expected.extend(case.sent.iter().map(|sent| filled(sent, form, number)));
            if case.follows == Follows::Yes {
                expected.push(format!("GET /after-{number} HTTP/1.1\r\n\r\n"));
            }
        }
        let mut sent = self.sent().await;
        sent.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sent, expected);
    }

    async fn opened(&self, form: Form) -> TcpStream {
        match form {
            Form::Absolute => TcpStream::connect(self.stage.proxy()).await.unwrap(),
            Form::Origin => self.stage.connected("wire.test:80", "").await,
        }
    }

    /// The statuses of all answers until the proxy closed.
    async fn exchange(&self, form: Form, payload: &[u8]) -> Vec<u16> {
        let mut stream = self.opened(form).await;
        stream.write_all(payload).await.unwrap();
        let mut statuses = Vec::new();
        while let Some(answer) = message(&mut stream).await {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            statuses.push(answer.split(' ').nth(1).unwrap().parse().unwrap());
        }
        statuses
    }

    /// Everything that the provider saw until the proxy stopped.
    async fn sent(self) -> Vec<String> {
        assert_eq!(self.stage.stop().await, 0);
        self.raw.ended().await.iter().map(|request| theirs(request)).collect()
    }
}

/// What of a request is the agent's. The proxy's own fields must be there, once each.
fn theirs(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let own = ["host: wire.test", "accept-encoding: identity", &format!("authorization: Bearer {SECRET}")];
    let (own, theirs): (Vec<&str>, Vec<&str>) = head.split("\r\n").partition(|line| own.contains(line));
    assert_eq!(own.len(), 3, "{request}");
    format!("{}\r\n\r\n{body}", theirs.join("\r\n"))
}

fn filled(text: &str, form: Form, number: usize) -> String {
    let before = match form {
        Form::Absolute => "http://wire.test",
        Form::Origin => "",
    };
    text.replace("{A}", &format!("{before}/after-{number}"))
        .replace("{U}", &format!("http://wire.test/x-{number}"))
        .replace("{X}", &format!("/x-{number}"))
        .replace("{H}", "Host: wire.test\r\n{I}")
        .replace("{I}", "Agent-Identity: tenant=acme, role=crew\r\n")
}
