//! The rules as chains of iptables and ip6tables, for machines without nft.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{
    Present, comments,
    plan::{Chain, Plan, Rule, Test, Then},
    tool::{Error, Run},
};

const CHAIN: &str = "KEYBEARER";
/// The comment of the rule in `OUTPUT` that leads to our chain.
const JUMP: &str = "ask the rules of keybearer";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];
const CHAINS: [Chain; 2] = [Chain::Nat, Chain::Filter];

impl Version {
    const fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    const fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }
}

const fn table(chain: Chain) -> &'static str {
    match chain {
        Chain::Nat => "nat",
        Chain::Filter => "filter",
    }
}

/// What differences are told by: `ip6tables nat`.
fn title(version: Version, chain: Chain) -> String {
    let program = match version {
        Version::V4 => "iptables",
        Version::V6 => "ip6tables",
    };
    format!("{program} {}", table(chain))
}

/// Naming the chain empties it; the jump is put first in `OUTPUT`, once.
pub(super) fn installation(plan: &Plan, present: Option<&Present>) -> Vec<Run> {
    let text = |version| {
        let mut text = String::new();
        for chain in CHAINS {
            let _ = writeln!(text, "*{}\n:{CHAIN} - [0:0]", table(chain));
            for rule in plan.rules_of(chain).iter().filter_map(|rule| written(rule, version)) {
                let _ = writeln!(text, "-A {CHAIN} {rule}");
            }
            if !present.is_some_and(|present| is_asked(present, version, chain)) {
                let _ = writeln!(text, "-I OUTPUT {}", jump());
            }
            text.push_str("COMMIT\n");
        }
        text
    };
    VERSIONS.map(|version| restore(version, text(version))).into()
}

/// Removes what is there, of each table in one step.
pub(super) fn removal(present: Option<&Present>) -> Vec<Run> {
    let text = |version| {
        let mut text = String::new();
        for chain in CHAINS {
            if present.is_some_and(|present| !present.has(&title(version, chain))) {
                continue;
            }
            let _ = writeln!(text, "*{}", table(chain));
            if present.is_none_or(|present| is_asked(present, version, chain)) {
                let _ = writeln!(text, "-D OUTPUT {}", jump());
            }
            let _ = writeln!(text, "-F {CHAIN}\n-X {CHAIN}\nCOMMIT");
        }
        text
    };
    let runs = VERSIONS.map(|version| restore(version, text(version)));
    runs.into_iter().filter(|run| !run.input.is_empty()).collect()
}

fn restore(version: Version, text: String) -> Run {
    Run::new(version.restore(), &["--noflush", "--wait"]).reading(text)
}

fn is_asked(present: &Present, version: Version, chain: Chain) -> bool {
    present.of(&title(version, chain)).iter().any(|rule| rule == JUMP)
}

fn jump() -> String {
    format!("-m comment --comment \"{JUMP}\" -j {CHAIN}")
}

/// A rule in iptables' words; `None` if it is about the other IP version.
fn written(rule: &Rule, version: Version) -> Option<String> {
    let test = match (rule.test, version) {
        (Test::Uid(uid), _) => format!("-m owner --uid-owner {uid} "),
        (Test::Loopback, _) => "-o lo ".to_owned(),
        (Test::Network(network @ IpNet::V4(_)), Version::V4)
        | (Test::Network(network @ IpNet::V6(_)), Version::V6) => format!("-d {network} "),
        (Test::Network(_), _) => return None,
        (Test::Tcp, _) => "-p tcp ".to_owned(),
        (Test::TcpPort(port), _) => format!("-p tcp -m tcp --dport {port} "),
        (Test::UdpPort(port), _) => format!("-p udp -m udp --dport {port} "),
        (Test::Icmp, Version::V4) => "-p icmp ".to_owned(),
        (Test::Icmp, Version::V6) => "-p ipv6-icmp ".to_owned(),
        (Test::Anything, _) => String::new(),
    };
    let then = match (rule.then, version) {
        (Then::Leave, _) => "RETURN".to_owned(),
        (Then::Redirect(port), _) => format!("REDIRECT --to-ports {port}"),
        (Then::Reject, Version::V4) => "REJECT --reject-with icmp-port-unreachable".to_owned(),
        (Then::Reject, Version::V6) => "REJECT --reject-with icmp6-port-unreachable".to_owned(),
    };
    Some(format!("{test}-m comment --comment \"{rule}\" -j {then}"))
}

pub(super) fn wanted(plan: &Plan) -> Vec<(String, Vec<String>)> {
    let pairs = VERSIONS.into_iter().flat_map(|version| CHAINS.map(|chain| (version, chain)));
    let rules = |version, chain| {
        let own = plan.rules_of(chain).into_iter().filter(move |rule| written(rule, version).is_some());
        own.map(|rule| rule.to_string()).chain([JUMP.to_owned()]).collect()
    };
    pairs.map(|(version, chain)| (title(version, chain), rules(version, chain))).collect()
}

pub(super) async fn present() -> Result<Present, Error> {
    let mut chains = Vec::new();
    for version in VERSIONS {
        let listing = Run::new(version.save(), &[]).done().await?;
        for chain in CHAINS {
            if let Some(rules) = listed(&listing, chain) {
                chains.push((title(version, chain), rules));
            }
        }
    }
    Ok(Present { chains })
}

/// Our rules in a table of `iptables-save`, the jump last; `None` if our chain is not there.
fn listed(listing: &str, chain: Chain) -> Option<Vec<String>> {
    let table = listing.split("\n*").find_map(|part| {
        let part = part.strip_prefix('*').unwrap_or(part);
        part.strip_prefix(table(chain))?.strip_prefix('\n')
    })?;
    let of = |start: String| comments(table.lines().filter(move |line| line.starts_with(&start)));
    let has_chain = table.lines().any(|line| line.starts_with(&format!(":{CHAIN} ")));
    let jumps = of("-A OUTPUT ".to_owned()).into_iter().filter(|text| text == JUMP);
    has_chain.then(|| of(format!("-A {CHAIN} ")).into_iter().chain(jumps).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::Udp, *};

    fn plan() -> Plan {
        let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        Plan { port: 7081, uids: vec![65532], ports: vec![5432], networks, udp: Udp::All }
    }

    /// What the tool saves after the restore.
    fn saved(run: &Run) -> String {
        run.input.replace("-I OUTPUT", "-A OUTPUT")
    }

    #[test]
    fn each_version_has_its_own_networks_and_answers() {
        let [v4, v6] = <[Run; 2]>::try_from(installation(&plan(), None)).unwrap();
        assert!(v4.input.contains("-d 10.0.0.0/8") && !v4.input.contains("fd00"), "{}", v4.input);
        assert!(v6.input.contains("-d fd00::/8") && !v6.input.contains("10.0.0.0"), "{}", v6.input);
        assert!(v4.input.contains("--reject-with icmp-port-unreachable"), "{}", v4.input);
        assert!(
            v6.input.contains("-p ipv6-icmp ") && v6.input.contains("icmp6-port-unreachable"),
            "{}",
            v6.input
        );
        assert_eq!((v4.program, v6.program), ("iptables-restore", "ip6tables-restore"));
    }

    #[test]
    fn what_is_saved_is_what_was_installed_and_the_jump_is_not_put_there_twice() {
        let runs = installation(&plan(), None);
        let chains = VERSIONS.into_iter().zip(&runs).flat_map(|(version, run)| {
            CHAINS.map(|chain| (title(version, chain), listed(&saved(run), chain).unwrap()))
        });
        let present = Present { chains: chains.collect() };
        assert_eq!(present.chains, wanted(&plan()));
        for run in installation(&plan(), Some(&present)) {
            assert!(!run.input.contains("OUTPUT"), "{}", run.input);
        }
        assert!(removal(Some(&present)).iter().all(|run| run.input.contains("-D OUTPUT")));
    }

    #[test]
    fn where_there_is_nothing_nothing_is_removed() {
        let bare = "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n*filter\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        assert_eq!(listed(bare, Chain::Nat), None);
        assert_eq!(removal(Some(&Present { chains: Vec::new() })), []);
    }
}
