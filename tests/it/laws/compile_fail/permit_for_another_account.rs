//! A permit stays what was decided.
use keybearer::{id::AccountKey, policy::Permit};

fn redirect(mut permit: Permit, account: AccountKey) -> Permit {
    permit.account = account;
    permit
}

fn main() {}
