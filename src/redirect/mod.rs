//! The system's rules that bring an agent's connections to the transparent listener, whatever the agent knows of a
//! proxy (docs/transparent.md).
//!
//! A [`Plan`] says what is redirected and what is left alone; `nft` or `iptables` writes it as the rules of that tool.
//! They are the network namespace's, a pod's for example, and concern what its own processes send.

mod iptables;
mod nft;
mod plan;
mod tool;

use self::{plan::Rule, tool::check_permitted};
pub use self::{
    plan::{Plan, Udp},
    tool::{Error, Run, Tool},
};

/// What is there, beside what should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// With which tool it was looked at.
    pub tool: Tool,
    /// What is missing and what is too much, a sentence each. Empty if the rules are those of the plan.
    pub wrong: Vec<String>,
}

/// Puts the plan's rules in the place of whatever an earlier call has installed. With nft that is one transaction,
/// with iptables one for each IP version and table.
///
/// # Errors
/// [`Error`], with what to do.
pub async fn install(plan: &Plan, with: Option<Tool>) -> Result<Tool, Error> {
    check_permitted()?;
    let tool = available(with).await?[0];
    for run in installing(plan, tool, Some(&present(tool).await?)) {
        run.done().await?;
    }
    Ok(tool)
}

/// Removes the rules, with each tool that is there; where there are none nothing is done.
///
/// # Errors
/// [`Error`], with what to do.
pub async fn remove(with: Option<Tool>) -> Result<Vec<Tool>, Error> {
    check_permitted()?;
    let tools = available(with).await?;
    for tool in &tools {
        for run in removing(*tool, Some(&present(*tool).await?)) {
            run.done().await?;
        }
    }
    Ok(tools)
}

/// Compares the rules that are there with the plan's.
///
/// # Errors
/// [`Error`] where they cannot be read.
pub async fn check(plan: &Plan, with: Option<Tool>) -> Result<State, Error> {
    check_permitted()?;
    let mut states = Vec::new();
    for tool in available(with).await? {
        let present = present(tool).await?;
        states.push(State { tool, wrong: compared(plan, tool, &present) });
    }
    let right = states.iter().position(|state| state.wrong.is_empty());
    Ok(states.swap_remove(right.unwrap_or(0)))
}

/// What [`install`] would run where nothing is installed, for whoever applies rules by other means.
#[must_use]
pub fn installation(plan: &Plan, tool: Tool) -> Vec<Run> {
    installing(plan, tool, None)
}

/// What [`remove`] would run.
#[must_use]
pub fn removal(tool: Tool) -> Vec<Run> {
    removing(tool, None)
}

/// The rules of a plan, in words and in order.
#[must_use]
pub fn words(plan: &Plan) -> Vec<String> {
    plan.rules().iter().map(Rule::to_string).collect()
}

/// The text of our rules that a listing of the tool's holds, by chain.
struct Present {
    chains: Vec<(String, Vec<String>)>,
}

impl Present {
    fn of(&self, chain: &str) -> &[String] {
        self.chains.iter().find(|(name, _)| name == chain).map_or(&[], |(_, rules)| rules)
    }

    fn has(&self, chain: &str) -> bool {
        self.chains.iter().any(|(name, _)| name == chain)
    }
}

async fn available(with: Option<Tool>) -> Result<Vec<Tool>, Error> {
    let asked = with.map_or_else(|| vec![Tool::Nft, Tool::Iptables], |tool| vec![tool]);
    let mut there = Vec::new();
    for tool in &asked {
        if tool.is_there().await? {
            there.push(*tool);
        }
    }
    if there.is_empty() { Err(Error::NoTool(asked)) } else { Ok(there) }
}

async fn present(tool: Tool) -> Result<Present, Error> {
    match tool {
        Tool::Nft => nft::present().await,
        Tool::Iptables => iptables::present().await,
    }
}

fn installing(plan: &Plan, tool: Tool, present: Option<&Present>) -> Vec<Run> {
    match tool {
        Tool::Nft => vec![nft::installation(plan)],
        Tool::Iptables => iptables::installation(plan, present),
    }
}

fn removing(tool: Tool, present: Option<&Present>) -> Vec<Run> {
    match tool {
        Tool::Nft => vec![nft::removal()],
        Tool::Iptables => iptables::removal(present),
    }
}

fn compared(plan: &Plan, tool: Tool, present: &Present) -> Vec<String> {
    let wanted = match tool {
        Tool::Nft => nft::wanted(plan),
        Tool::Iptables => iptables::wanted(plan),
    };
    wanted.iter().flat_map(|(chain, rules)| differences(chain, rules, present.of(chain))).collect()
}

fn differences(chain: &str, wanted: &[String], found: &[String]) -> Vec<String> {
    let without = |those: &[String], others: &[String]| -> Vec<String> {
        those.iter().filter(|rule| !others.contains(rule)).cloned().collect()
    };
    let missing = without(wanted, found).into_iter().map(|rule| format!("{chain}: missing: {rule}"));
    let surplus = without(found, wanted).into_iter().map(|rule| format!("{chain}: not asked for: {rule}"));
    let mut wrong: Vec<String> = missing.chain(surplus).collect();
    if wrong.is_empty() && wanted != found {
        wrong.push(format!("{chain}: the rules are in another order, or there twice"));
    }
    wrong
}

/// The comments of a listing's lines, in order. Each rule of ours has its words as its comment.
fn comments<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let quoted = |line: &'a str| line.split_once("comment \"")?.1.split_once('"').map(|(text, _)| text);
    lines.filter_map(quoted).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn every_difference_is_told() {
        let wanted = rules(&["a", "b"]);
        assert_eq!(differences("nat", &wanted, &wanted), Vec::<String>::new());
        assert_eq!(differences("nat", &wanted, &rules(&["a"])), ["nat: missing: b"]);
        assert_eq!(differences("nat", &wanted, &rules(&["a", "b", "c"])), ["nat: not asked for: c"]);
        for found in [&["b", "a"][..], &["a", "b", "b"]] {
            let told = differences("nat", &wanted, &rules(found));
            assert_eq!(told, ["nat: the rules are in another order, or there twice"], "{found:?}");
        }
    }

    #[test]
    fn comments_are_found_in_both_tools_listings() {
        let nft = "\t\tmeta skuid 65532 return comment \"leave uid 65532 alone\"\n\t\ttype nat hook output";
        assert_eq!(comments(nft.lines()), ["leave uid 65532 alone"]);
        let saved = "-A KEYBEARER -p tcp -m comment --comment \"redirect TCP\" -j REDIRECT --to-ports 7081";
        assert_eq!(comments(saved.lines()), ["redirect TCP"]);
    }
}
