//! The rules as a table of nftables, for both IP versions at once.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{
    Present, comments,
    plan::{Chain, Plan, Rule, Test, Then},
    tool::{Error, Run},
};

const TABLE: &str = "inet keybearer";

const fn name(chain: Chain) -> &'static str {
    match chain {
        Chain::Nat => "output_nat",
        Chain::Filter => "output_filter",
    }
}

/// Replaces the table in one transaction. It is added first since only what exists can be deleted.
pub(super) fn installation(plan: &Plan) -> Run {
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    for (chain, hook) in [
        (Chain::Nat, "type nat hook output priority -100; policy accept;"),
        (Chain::Filter, "type filter hook output priority 0; policy accept;"),
    ] {
        let _ = writeln!(text, "\tchain {} {{\n\t\t{hook}", name(chain));
        for rule in plan.rules_of(chain) {
            let _ = writeln!(text, "\t\t{} {} comment \"{rule}\"", test(&rule), then(&rule));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    nft().reading(text)
}

pub(super) fn removal() -> Run {
    nft().reading(format!("add table {TABLE}\ndelete table {TABLE}\n"))
}

fn nft() -> Run {
    Run::new("nft", &["-f", "-"])
}

fn test(rule: &Rule) -> String {
    match rule.test {
        Test::Uid(uid) => format!("meta skuid {uid}"),
        Test::Loopback => "oifname \"lo\"".to_owned(),
        Test::Network(IpNet::V4(network)) => format!("ip daddr {network}"),
        Test::Network(IpNet::V6(network)) => format!("ip6 daddr {network}"),
        Test::Tcp => "meta l4proto tcp".to_owned(),
        Test::TcpPort(port) => format!("tcp dport {port}"),
        Test::UdpPort(port) => format!("udp dport {port}"),
        Test::Icmp => "meta l4proto { icmp, ipv6-icmp }".to_owned(),
        Test::Anything => "counter".to_owned(),
    }
}

fn then(rule: &Rule) -> String {
    match rule.then {
        Then::Leave => "return".to_owned(),
        Then::Redirect(port) => format!("redirect to :{port}"),
        Then::Reject => "reject with icmpx type port-unreachable".to_owned(),
    }
}

pub(super) fn wanted(plan: &Plan) -> Vec<(String, Vec<String>)> {
    let rules = |chain| plan.rules_of(chain).iter().map(Rule::to_string).collect();
    [Chain::Nat, Chain::Filter].map(|chain| (name(chain).to_owned(), rules(chain))).into()
}

pub(super) async fn present() -> Result<Present, Error> {
    let listing = Run::new("nft", &["list", "ruleset", "inet"]).done().await?;
    Ok(Present { chains: chains(&listing) })
}

/// The chains of our table, as `nft list ruleset` writes it: `table inet keybearer {`, each chain within.
fn chains(listing: &str) -> Vec<(String, Vec<String>)> {
    let own = listing
        .split("\ntable ")
        .find_map(|table| table.trim_start_matches("table ").strip_prefix(TABLE)?.strip_prefix(" {"));
    let blocks = own.unwrap_or_default().split("\n\tchain ").skip(1);
    let named = blocks.filter_map(|block| block.split_once(" {"));
    named.map(|(name, rules)| (name.to_owned(), comments(rules.lines()))).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::Udp, *};

    fn plan() -> Plan {
        Plan {
            port: 7081,
            uids: vec![65532],
            ports: vec![5432],
            networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            udp: Udp::Quic,
        }
    }

    #[test]
    fn the_table_is_replaced_whole() {
        let expected = r#"add table inet keybearer
delete table inet keybearer
table inet keybearer {
	chain output_nat {
		type nat hook output priority -100; policy accept;
		meta skuid 65532 return comment "leave uid 65532 alone"
		oifname "lo" return comment "leave this machine alone"
		ip daddr 10.0.0.0/8 return comment "leave 10.0.0.0/8 alone"
		ip6 daddr fd00::/8 return comment "leave fd00::/8 alone"
		tcp dport 53 return comment "leave TCP port 53 alone"
		tcp dport 5432 return comment "leave TCP port 5432 alone"
		meta l4proto tcp redirect to :7081 comment "redirect TCP to port 7081"
	}
	chain output_filter {
		type filter hook output priority 0; policy accept;
		meta skuid 65532 return comment "leave uid 65532 alone"
		oifname "lo" return comment "leave this machine alone"
		ip daddr 10.0.0.0/8 return comment "leave 10.0.0.0/8 alone"
		ip6 daddr fd00::/8 return comment "leave fd00::/8 alone"
		udp dport 443 reject with icmpx type port-unreachable comment "reject UDP port 443"
	}
}
"#;
        assert_eq!(installation(&plan()).input, expected);
    }

    #[test]
    fn what_is_listed_is_what_was_installed() {
        let others = "table inet filter {\n\tchain output_nat {\n\t\taccept comment \"x\"\n\t}\n}\n";
        let own = installation(&plan()).input;
        let own = own.split_once("delete table inet keybearer\n").unwrap().1;
        for listing in [own.to_owned(), format!("{others}{own}"), format!("{own}{others}")] {
            assert_eq!(chains(&listing), wanted(&plan()));
        }
        assert_eq!(chains(others), []);
    }
}
