//! Whose connection a request takes cannot be said by hand.
use keybearer::proxy::upstream::Outbound;

fn main() {
    let _ = Outbound {};
}
