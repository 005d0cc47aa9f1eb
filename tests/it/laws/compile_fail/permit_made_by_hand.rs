//! Only the policy makes permits.
use keybearer::policy::Permit;

fn main() {
    let _ = Permit {};
}
