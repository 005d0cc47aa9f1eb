//! The programs that install rules, and what running them comes to.

use std::{fmt, io, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

/// As much of what a program said is told, in characters: the first of its complaints.
const LONGEST: usize = 300;

/// Which programs the rules are installed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `nft`: one table for both IP versions, changed as a whole.
    Nft,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

impl Tool {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        }
    }

    /// Whether all of its programs can be run.
    pub(super) async fn is_there(self) -> Result<bool, Error> {
        let programs: &[&'static str] = match self {
            Self::Nft => &["nft"],
            Self::Iptables => &["iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save"],
        };
        for program in programs {
            match Run::new(program, &["--version"]).output().await {
                Ok(_) => {}
                Err(Error::Run { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the rules are not as asked. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rules are a matter of the namespace's administrator.
    #[error(
        "redirecting needs CAP_NET_ADMIN, which this process does not have: run it as root, in Kubernetes in an init container with capabilities: {{add: [NET_ADMIN]}}"
    )]
    NotPermitted,
    /// There is nothing to install them with.
    #[error("there is no {} on the PATH: install nftables, or apply what --dry-run prints from where there is one", names(.0))]
    NoTool(Vec<Tool>),
    /// A program could not be run.
    #[error("cannot run {program}")]
    Run {
        /// Which one.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program did not do it; nothing of the transaction is in force.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which one.
        program: &'static str,
        /// What it said, on one line.
        said: String,
    },
}

fn names(tools: &[Tool]) -> String {
    tools.iter().map(|tool| tool.as_str()).collect::<Vec<_>>().join(" or ")
}

/// A program with its arguments and what it is given to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program's name, looked for on the PATH.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<&'static str>,
    /// Its standard input.
    pub input: String,
}

impl Run {
    pub(super) fn new(program: &'static str, arguments: &[&'static str]) -> Self {
        Self { program, arguments: arguments.to_vec(), input: String::new() }
    }

    pub(super) fn reading(self, input: String) -> Self {
        Self { input, ..self }
    }

    /// Runs it, and takes anything but success for a failure.
    pub(super) async fn done(&self) -> Result<String, Error> {
        match self.output().await? {
            (true, out, _) => Ok(out),
            (false, _, said) => {
                let words: Vec<&str> = said.split_whitespace().collect();
                let said: String = words.join(" ").chars().take(LONGEST).collect();
                Err(Error::Failed { program: self.program, said })
            }
        }
    }

    /// Runs it: whether it succeeded, and what it wrote to standard output and error.
    pub(super) async fn output(&self) -> Result<(bool, String, String), Error> {
        let failed = |source| Error::Run { program: self.program, source };
        let mut command = Command::new(self.program);
        command.args(&self.arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it has read all says itself why.
            let _broken_pipe = stdin.write_all(self.input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }
}

/// Refuses early what the kernel would refuse with less to go by.
pub(super) fn check_permitted() -> Result<(), Error> {
    // Where the file cannot be read, the tool finds out.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if is_permitted(&status) { Ok(()) } else { Err(Error::NotPermitted) }
}

/// Whether the effective capabilities (`CapEff` in `/proc/self/status`) have `CAP_NET_ADMIN`.
fn is_permitted(status: &str) -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_none_or(|capabilities| capabilities & NET_ADMIN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(is_permitted("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(is_permitted("CapEff:\t0000000000001000\n"));
        assert!(!is_permitted("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n"));
        assert!(!is_permitted("CapEff:\t00000000a80425fb\n"), "what a container has by default");
    }

    #[tokio::test]
    async fn what_a_program_says_is_told() {
        let run = Run::new("sh", &["-c", "cat >/dev/null; { echo why; echo; echo not; } >&2; exit 3"]);
        let error = run.reading("x".repeat(100_000)).done().await.unwrap_err();
        assert_eq!(error.to_string(), "sh failed: why not");
        let error = Run::new("no-such-program-of-this-name", &[]).done().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot run no-such-program-of-this-name");
    }
}
