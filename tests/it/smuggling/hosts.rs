//! A destination's name has one reading, in a URL, in `Host` and in CONNECT.

use super::{Form, Wire};

/// A spelling, the answer to a request for it in absolute form, and the answer to CONNECT.
const SPELLINGS: &[(&str, u16, u16)] = &[
    // One name in its spellings.
    ("wire.test", 200, 200),
    ("WIRE.Test", 200, 200),
    ("wire.test.", 200, 200),
    ("wire.test:80", 200, 200),
    ("wire.test:0080", 200, 200),
    // Other names, which no connector describes: the tunnel is opened to say so inside.
    ("wire.test:443", 403, 200),
    ("xn--wre-rma.test", 403, 200),
    ("wire_.test", 403, 200),
    ("xwire.test", 403, 200),
    ("wire.test.evil.test", 403, 200),
    ("wire", 403, 200),
    ("localhost", 403, 200),
    ("127.0.0.1", 403, 200),
    ("[::1]", 403, 200),
    ("[::ffff:127.0.0.1]", 403, 200),
    ("[::127.0.0.1]", 403, 200),
    ("[fe80::1]", 403, 200),
    // Names with two readings.
    ("wire.test..", 400, 400),
    (".wire.test", 400, 400),
    ("wire..test", 400, 400),
    ("-wire.test", 400, 400),
    ("wire-.test", 400, 400),
    ("*.test", 400, 400),
    ("wire.test,evil.test", 400, 400),
    ("wire.test;evil.test", 400, 400),
    ("user@wire.test", 400, 400),
    ("wire.test%00", 400, 400),
    ("wire%2etest", 400, 400),
    ("%77ire.test", 400, 400),
    ("wire.test%23.evil.test", 400, 400),
    ("wire.test\\.evil.test", 400, 400),
    ("wire\u{3002}test", 400, 400),
    ("w\u{ed}re.test", 400, 400),
    ("wire.test\t", 400, 400),
    ("wire.test:", 400, 400),
    ("wire.test:0", 400, 400),
    ("wire.test:65536", 400, 400),
    ("wire.test:+80", 400, 400),
    ("wire.test:80:80", 400, 400),
    ("wire.test: 80", 400, 400),
    ("127.1", 400, 400),
    ("2130706433", 400, 400),
    ("0x7f000001", 400, 400),
    ("0177.0.0.1", 400, 400),
    ("127.0.0.01", 400, 400),
    ("127.0.0.1.", 400, 400),
    ("0", 400, 400),
    ("[::1", 400, 400),
    ("::1", 400, 400),
    ("[::1%25lo]", 400, 400),
    ("[::1%lo]", 400, 400),
    ("[v1.a]", 400, 400),
    ("", 400, 400),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_spelt_in_one_way_or_refused() {
    let wire = Wire::open().await;
    for (host, status, of_connect) in SPELLINGS {
        let head = format!(
            "HTTP/1.1\r\nHost: {host}\r\nAgent-Identity: tenant=acme, role=crew\r\nConnection: close\r\n\r\n"
        );
        let request = format!("GET http://{host}/x {head}");
        assert_eq!(wire.exchange(Form::Absolute, request.as_bytes()).await, [*status], "{host:?}");
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let authority = if has_port { (*host).to_owned() } else { format!("{host}:80") };
        let (status, ..) = wire.stage.connect(&authority, "").await;
        assert_eq!(status, *of_connect, "CONNECT {authority:?}");
    }
    let passed = SPELLINGS.iter().filter(|(_, status, _)| *status == 200).count();
    assert_eq!(wire.sent().await, vec!["GET /x HTTP/1.1\r\n\r\n"; passed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_header_is_compared_with_the_tunnel_by_its_reading() {
    let wire = Wire::open().await;
    for (field, status) in [
        ("wire.test", 200),
        ("Wire.TEST.", 200),
        ("wire.test:80", 200),
        ("wire.test:443", 421),
        ("wire", 421),
        ("wire.test.evil.test", 421),
        ("127.0.0.1", 421),
        ("wire.test:", 400),
        ("user@wire.test", 400),
        ("wire.test/x", 400),
        ("[::1%lo]", 400),
    ] {
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: {field}\r\nAgent-Identity: tenant=acme, role=crew\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(wire.exchange(Form::Origin, request.as_bytes()).await, [status], "{field:?}");
    }
    assert_eq!(wire.sent().await.len(), 3);
}
