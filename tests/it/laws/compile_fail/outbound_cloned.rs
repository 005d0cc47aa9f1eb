//! A permitted request goes out once.
use keybearer::proxy::upstream::Outbound;

fn twice(outbound: Outbound) -> (Outbound, Outbound) {
    (outbound.clone(), outbound)
}

fn main() {}
