//! Fields that are there twice, that belong to one hop, or that `Connection` names.

use super::{
    Case,
    Follows::{No, Yes},
    Form, Wire, case,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_field_has_one_reading_or_is_refused() {
    Wire::open().await.hold(Form::Absolute, FIELDS).await;
}

const FIELDS: &[Case] = &[
    // Ordinary duplicates pass in their order.
    case(
        "GET {U} HTTP/1.1\r\n{H}X-A: 1\r\nx-a: 2\r\nX-A: 1\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\nx-a: 1\r\nx-a: 2\r\nx-a: 1\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}authorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\nAuthorization: Basic c\r\naccept-Encoding: gzip\r\nACCEPT-ENCODING: br\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case("GET {U} HTTP/1.1\r\n{H}agent-identity: tenant=globex, role=crew\r\n\r\n", &[400, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\n{H}AGENT-IDENTITY: tenant=acme, role=crew\r\n\r\n", &[400, 200], Yes, &[]),
    case(
        "GET {U} HTTP/1.1\r\n{H}Proxy-Authorization: Basic Z2xvYmV4L2NyZXc6eA==\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}X-HTTP-Method-Override: DELETE\r\nX_Original_Url: /y\r\nX-Forwarded-Host: evil\r\nForwarded: host=evil\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    // Host: once, and the URL's.
    case("GET {U} HTTP/1.1\r\n{H}Host: wire.test\r\n\r\n", &[400, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\n{H}hOST: evil.test\r\n\r\n", &[400, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\nHost: evil.test\r\n{I}\r\n", &[421, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\nHost: wire.test, evil.test\r\n{I}\r\n", &[400, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\nHost: wire.test:8080\r\n{I}\r\n", &[421, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\nHost: user@wire.test\r\n{I}\r\n", &[400, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\nHost:\r\n{I}\r\n", &[400, 200], Yes, &[]),
    case("GET {U} HTTP/1.1\r\n{I}\r\n", &[400, 200], Yes, &[]),
    case(
        "GET {U} HTTP/1.1\r\nHost: WIRE.test.:80\r\n{I}\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_one_hop_end_there_and_cannot_take_ours_along() {
    Wire::open().await.hold(Form::Absolute, HOPS).await;
}

const HOPS: &[Case] = &[
    case(
        "GET {U} HTTP/1.1\r\n{H}Connection: authorization, accept-encoding, host\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case("GET {U} HTTP/1.1\r\n{H}Connection: Host\r\n\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    // Who asks was read before Connection is heeded.
    case(
        "GET {U} HTTP/1.1\r\n{H}Connection: agent-identity\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}Connection: x-a\r\nConnection: X-B , ,\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\nx-c: 3\r\n\r\n"],
    ),
    // The framing that leaves is hyper's, whatever Connection says of the agent's.
    case(
        "POST {U} HTTP/1.1\r\n{H}Connection: content-length\r\nContent-Length: 3\r\n\r\nabc",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}Connection: TE\r\nTE: trailers, gzip;q=0.5\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\nte: trailers\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authenticate: x\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    // An upgrade that we do not speak is ignored (RFC 9110 §7.8); HTTP/2 does not begin in the middle.
    case(
        "GET {U} HTTP/1.1\r\n{H}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case("GET {U} HTTP/1.1\r\n{H}Upgrade: h2c\r\n\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case(
        "POST {U} HTTP/1.1\r\n{H}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"],
    ),
    case(
        "GET {U} HTTP/1.0\r\n{H}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        &[200],
        No,
        &["GET {X} HTTP/1.1\r\n\r\n"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Expect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_each_is_one() {
    let table = [
        case(
            "GET {U} HTTP/1.1\r\n{H}\r\nPOST {U}-2 HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabcPUT {U}-3 HTTP/1.1\r\n{H}\r\nGET {U}-4 HTTP/1.1\r\n{H}\r\n",
            &[200, 200, 403, 200, 200],
            Yes,
            &[
                "GET {X} HTTP/1.1\r\n\r\n",
                "POST {X}-2 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
                "GET {X}-4 HTTP/1.1\r\n\r\n",
            ],
        ),
        // What is begun in a payload is ended by the next request: that is the agent's own doing, and one request.
        case(
            "GET {U} HTTP/1.1\r\n{H}\r\nGET {U}-2 HTTP/1.1\r\nX: ",
            &[200, 200],
            No,
            &[
                "GET {X} HTTP/1.1\r\n\r\n",
                "GET {X}-2 HTTP/1.1\r\nx: GET http://wire.test/after-1 HTTP/1.1\r\n\r\n",
            ],
        ),
    ];
    Wire::open().await.hold(Form::Absolute, &table).await;
}
