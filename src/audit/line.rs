//! Events as canonical JSON (RFC 8785), written by hand into one buffer that is reused.

use std::{fmt::Display, io::Write, time::Duration};

use jiff::Timestamp;

use super::{
    chain::Hash,
    event::{Decision, Event, RequestPath, Took},
};
use crate::id::{AgentName, ChainId, ConnectorName, Effect, OperationName, RoleName, TenantId, UserId};

/// Where in the chain a line stands.
pub(super) struct Place<'a> {
    pub(super) seq: u64,
    pub(super) prev: &'a Hash,
}

/// Writes events. It remembers the date of the last second, which most neighbours share.
#[derive(Debug, Default)]
pub(super) struct Pen {
    second: Option<i64>,
    date: String,
}

impl Pen {
    /// Appends the event as one JSON object, its members sorted by name as RFC 8785 wants them, without
    /// `hash` and without a newline. An intent has no place yet, hence neither `seq` nor `prev`.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, event: &Event, place: Option<&Place<'_>>) {
        let e = event;
        out.push(b'{');
        let mut to = Members(out);
        to.text("account", e.account.as_deref());
        to.text("agent", e.agent.as_ref().map(AgentName::as_str));
        to.text("authorization", e.authorization.as_deref());
        to.number("bytes_in", e.bytes_in);
        to.number("bytes_out", e.bytes_out);
        to.text("chain", e.chain.as_ref().map(ChainId::as_str));
        to.text("connector", e.connector.as_ref().map(ConnectorName::as_str));
        to.text("decision", e.decision.map(Decision::as_str));
        to.list("delegation", none_if_empty(&e.delegation), |hop| hop);
        to.text("detail", e.detail.as_deref());
        to.text("effect", e.effect.map(Effect::as_str));
        to.text("error", e.error.as_deref());
        to.text("event", e.event.as_deref());
        to.number("generation", e.generation);
        to.plain("host", e.host.as_ref());
        to.plain("id", e.id.as_ref());
        to.text("kind", Some(e.kind.as_str()));
        to.text("method", e.method.as_ref().map(http::Method::as_str));
        to.took("ms", e.ms.as_ref());
        to.text("operation", e.operation.as_ref().map(OperationName::as_str));
        to.path("path", e.path.as_ref());
        to.text("policy_revision", e.policy_revision.as_deref());
        to.text("prev", place.map(|at| at.prev.as_str()));
        to.plain("principal", e.principal.as_ref());
        to.text("role", e.role.as_ref().map(RoleName::as_str));
        to.text("rule", e.rule.as_deref());
        to.list("scopes_granted", e.scopes_granted.as_deref(), |scope| scope.as_str());
        to.list("scopes_required", e.scopes_required.as_deref(), |scope| scope.as_str());
        to.number("seq", place.map(|at| at.seq));
        to.number("status", e.status.map(u64::from));
        to.list("stripped", none_if_empty(&e.stripped), |name| name);
        to.text("tenant", e.tenant.as_ref().map(TenantId::as_str));
        if let Some(time) = e.time {
            self.time(to.key("time"), time);
        }
        to.text("user", e.user.as_ref().map(UserId::as_str));
        to.text("workload", e.workload.as_deref());
        to.close();
    }

    /// RFC 3339 in UTC with six decimals always, so that texts sort as times do.
    fn time(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        let micros = time.as_microsecond();
        let second = micros.div_euclid(1_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.date = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        show(out, format_args!("\"{}.{:06}Z\",", self.date, micros.rem_euclid(1_000_000)));
    }
}

fn none_if_empty<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

/// Writes members, each with a comma after it; closing turns the last comma into the brace.
struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(text) = value {
            quote(self.key(key), text);
            self.0.push(b',');
        }
    }

    /// A value whose text has nothing to escape: hosts, ids and principals are made of safe characters.
    fn plain(&mut self, key: &str, value: Option<&impl Display>) {
        if let Some(value) = value {
            show(self.key(key), format_args!("\"{value}\","));
        }
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        if let Some(number) = value {
            show(self.key(key), format_args!("{number},"));
        }
    }

    fn list<T>(&mut self, key: &str, values: Option<&[T]>, text: impl Fn(&T) -> &str) {
        let Some(values) = values else { return };
        let out = self.key(key);
        out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            quote(out, text(value));
        }
        out.extend_from_slice(b"],");
    }

    fn took(&mut self, key: &str, took: Option<&Took>) {
        let Some(took) = took else { return };
        let out = self.key(key);
        out.extend_from_slice(b"{\"total\":");
        milliseconds(out, took.total);
        if let Some(upstream) = took.upstream {
            out.extend_from_slice(b",\"upstream\":");
            milliseconds(out, upstream);
        }
        out.extend_from_slice(b"},");
    }

    fn path(&mut self, key: &str, path: Option<&RequestPath>) {
        let Some(path) = path.filter(|path| path.template.is_some() || path.canonical.is_some()) else {
            return;
        };
        let out = self.key(key);
        out.push(b'{');
        let mut to = Members(out);
        to.text("canonical", path.canonical.as_deref());
        to.text("template", path.template.as_deref());
        to.close();
        self.0.push(b',');
    }

    fn close(self) {
        if let Some(comma) = self.0.last_mut() {
            *comma = b'}';
        }
    }
}

/// At most three decimals, without trailing zeros: the one spelling that RFC 8785 gives such a number, and
/// that Python, `JavaScript` and jq write again when they read it.
fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    let micros = duration.as_micros();
    let (whole, rest) = (micros / 1000, micros % 1000);
    show(out, format_args!("{whole}"));
    if rest > 0 {
        show(out, format_args!(".{rest:03}"));
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

fn quote(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        // serde_json escapes as RFC 8785 §3.2.2.2 says; writing to a Vec does not fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn show(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text); // writing to a Vec does not fail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::sample;

    fn written(event: &Event) -> String {
        let mut out = Vec::new();
        Pen::default().write(&mut out, event, None);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_full_event_reads_back_as_it_was() {
        let event = sample::full();
        assert_eq!(serde_json::from_str::<Event>(&written(&event)).unwrap(), event);
    }

    #[test]
    fn members_are_sorted_and_an_empty_event_has_only_its_kind() {
        let text = written(&sample::full());
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        // serde_json's map sorts by name, and writes numbers and text in their shortest form.
        assert_eq!(object.to_string(), text);
        assert_eq!(written(&Event::default()), r#"{"kind":"action"}"#);
    }

    #[test]
    fn milliseconds_have_one_spelling() {
        for (micros, text) in [(0, "0"), (1, "0.001"), (500, "0.5"), (12_340, "12.34"), (60_000_000, "60000")]
        {
            let mut out = Vec::new();
            milliseconds(&mut out, Duration::from_micros(micros));
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn times_have_six_decimals_and_a_remembered_second_does_not_leak_into_the_next() {
        let mut pen = Pen::default();
        let mut out = Vec::new();
        for time in ["2026-11-21T03:22:25Z", "2026-11-21T03:22:25.5Z", "2026-11-21T03:22:26.000001Z"] {
            pen.time(&mut out, time.parse().unwrap());
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            r#""2026-11-21T03:22:25.000000Z","2026-11-21T03:22:25.500000Z","2026-11-21T03:22:26.000001Z","#
        );
    }
}
