//! The `keybearer` program. All of it is in the library, so that it can be linked in another way, as the tests of the
//! container image do.

fn main() -> std::process::ExitCode {
    keybearer::cli::main()
}
