//! Where a body ends (RFC 9112 §6 and §7).

use super::{
    Case,
    Follows::{No, Yes},
    Form, Wire, case,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_length_has_one_reading_or_is_refused() {
    Wire::open().await.hold(Form::Absolute, LENGTHS).await;
}

const LENGTHS: &[Case] = &[
    case("GET {U} HTTP/1.1\r\n{H}\r\n", &[200, 200], Yes, &["GET {X} HTTP/1.1\r\n\r\n"]),
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 0\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"],
    ),
    // Twice the same is one length; it leaves once.
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"],
    ),
    // A leading zero makes a number octal for some; it leaves without.
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 010\r\n\r\nabcdefghij",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 10\r\n\r\nabcdefghij"],
    ),
    // No server takes this for a length.
    case(
        "POST {U} HTTP/1.1\r\n{H}Content_Length: 3\r\nContent-Length: 0\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 0\r\ncontent_length: 3\r\n\r\n"],
    ),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: 3, 3\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: 3 0\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: +3\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: -3\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: 0x3\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: 3.0\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length:\r\n\r\nabc", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Content-Length: 18446744073709551619\r\n\r\nabc", &[400], No, &[]),
    // No length is no body: what follows is a request of its own, as anybody reads it.
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\nGET {U}-next HTTP/1.1\r\n{H}\r\n",
        &[200, 200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ncontent-length: 0\r\n\r\n", "GET {X}-next HTTP/1.1\r\n\r\n"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_coding_has_one_reading_or_is_refused() {
    Wire::open().await.hold(Form::Absolute, CODINGS).await;
}

const CODINGS: &[Case] = &[
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding:\tCHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    case(
        "GET {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200, 200],
        Yes,
        &["GET {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    // Both: chunked wins (RFC 9112 §6.3), it leaves alone, and the connection ends with the answer.
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200],
        No,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200],
        No,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {U}-smuggled HTTP/1.1\r\nX: ",
        &[200],
        No,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\nGET {U}-smuggled HTTP/1.1\r\nX: ",
        &[200],
        No,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    ),
    // Read as chunked, and refused: the next request is where everybody would look for it.
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[400, 200], Yes, &[]),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 200],
        Yes,
        &[],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 200],
        Yes,
        &[],
    ),
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400], No, &[]),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        &[400],
        No,
        &[],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        &[400],
        No,
        &[],
    ),
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", &[400], No, &[]),
    case("POST {U} HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", &[400], No, &[]),
    case("POST {U} HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400], No, &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_made_anew() {
    Wire::open().await.hold(Form::Absolute, CHUNKS).await;
}

const CHUNKS: &[Case] = &[
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    ),
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n000a \r\nabcdefghij\r\n00\r\n\r\n",
        &[200, 200],
        Yes,
        &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA\r\nabcdefghij\r\n0\r\n\r\n"],
    ),
    // Trailers pass, but not those that a header could not have been either.
    case(
        "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTrailer: x-a\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nAuthorization: Bearer evil\r\nX_Api_Key: k\r\nCookie: a=b\r\nHost: evil.test\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nAgent-Identity: tenant=globex, role=crew\r\n\r\n",
        &[200, 200],
        Yes,
        &[
            "POST {X} HTTP/1.1\r\ntrailer: x-a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-a: 1\r\n\r\n",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_to_its_end_has_none_for_the_provider_either() {
    let wire = Wire::open().await;
    for (number, body) in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\r\nx\r\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let head = "POST {U} HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n";
        let payload = super::filled(head, Form::Absolute, number) + body;
        assert_eq!(wire.exchange(Form::Absolute, payload.as_bytes()).await, [400], "{body:?}");
    }
    // How much of each got there is a matter of time. None is whole.
    for sent in wire.sent().await {
        assert!(sent.starts_with("POST /x-") && !sent.contains("0\r\n\r\n"), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_tunnel_reads_bodies_no_differently() {
    let table = [
        case(
            "POST {X} HTTP/1.1\r\n{H}Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {X}-smuggled HTTP/1.1\r\nX: ",
            &[200],
            No,
            &["POST {X} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        ),
        case("POST {X} HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", &[400], No, &[]),
        case(
            "POST {X} HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            &[400, 200],
            Yes,
            &[],
        ),
    ];
    Wire::open().await.hold(Form::Origin, &table).await;
}
