//! Nothing goes out without a permit: its tenant says whose connection it takes.
use http::Request;
use keybearer::proxy::{
    RequestBody,
    upstream::{Endpoint, Outbound},
};

fn send(endpoint: Endpoint, request: Request<RequestBody>) -> Outbound {
    Outbound::new(endpoint, request)
}

fn main() {}
