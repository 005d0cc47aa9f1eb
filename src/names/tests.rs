//! Against a real name server, on UDP and TCP.

use std::net::IpAddr;

use hickory_resolver::proto::op::ResponseCode;

use super::{
    Names, Unresolved,
    fixture::{Machine, Says},
};

/// As Kubernetes writes it.
const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
const KEPT: u32 = 60;

type Found = Result<Vec<IpAddr>, Unresolved>;

fn ips(all: &[&str]) -> Found {
    all.iter().map(|ip| Ok(ip.parse().unwrap())).collect()
}

/// The questions for both kinds of addresses of these names.
fn both(names: &[&str]) -> Vec<String> {
    let mut all: Vec<String> =
        names.iter().flat_map(|name| ["A", "AAAA"].map(|kind| format!("udp {kind} {name}."))).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_provider_is_asked_for_by_its_very_name() {
    let zone = [
        ("api.provider.test", Says::Has(&["2606:50c0:8000::153", "140.82.121.6"], 0)),
        ("api.provider.test.shop.svc.cluster.local", Says::Has(&["10.0.0.66"], 0)),
        ("short.shop.svc.cluster.local", Says::Has(&["10.0.0.66"], 0)),
    ];
    let machine = Machine::start(&zone, CLUSTER).await;
    assert_eq!(machine.names.exact("api.provider.test").await, ips(&["140.82.121.6", "2606:50c0:8000::153"]));
    assert_eq!(machine.asked(), both(&["api.provider.test"]));
    assert_eq!(machine.names.exact("short").await, Err(Unresolved::NoAddress));
    assert_eq!(machine.asked(), both(&["short"]));
}

#[tokio::test]
async fn the_search_list_finds_services_of_the_cluster() {
    let zone = [
        ("db.shop.svc.cluster.local", Says::Has(&["10.0.0.1"], 0)),
        ("db.other.svc.cluster.local", Says::Has(&["10.0.0.2"], 0)),
        ("sso.example.test", Says::Has(&["192.0.2.7"], 0)),
    ];
    let machine = Machine::start(&zone, CLUSTER).await;
    assert_eq!(machine.names.search("db").await, ips(&["10.0.0.1"]));
    assert_eq!(machine.asked(), both(&["db.shop.svc.cluster.local"]));
    assert_eq!(machine.names.search("db.other.svc").await, ips(&["10.0.0.2"]));
    assert_eq!(machine.names.search("db.other.svc.cluster.local").await, ips(&["10.0.0.2"]));
    machine.asked();
    assert_eq!(machine.names.search("sso.example.test").await, ips(&["192.0.2.7"]));
    assert!(machine.asked().contains(&"udp A sso.example.test.svc.cluster.local.".to_owned()));
    assert_eq!(machine.names.search("sso.example.test.").await, ips(&["192.0.2.7"]));
    assert_eq!(machine.asked(), both(&["sso.example.test"]));
}

#[tokio::test]
async fn a_name_with_dots_enough_is_asked_for_first() {
    let zone = [("sso.example.test", Says::Has(&["192.0.2.7"], 0))];
    let machine = Machine::start(&zone, "search example.test\noptions ndots:2\n").await;
    assert_eq!(machine.names.search("sso.example.test").await, ips(&["192.0.2.7"]));
    assert_eq!(machine.asked(), both(&["sso.example.test"]));
    assert_eq!(machine.names.search("sso").await, ips(&["192.0.2.7"]));
    assert_eq!(machine.asked(), both(&["sso.example.test"]));
}

#[tokio::test]
async fn a_server_that_fails_ends_the_search() {
    let zone = [
        ("db.shop.svc.cluster.local", Says::Code(ResponseCode::ServFail)),
        ("db.svc.cluster.local", Says::Has(&["10.0.0.66"], 0)),
    ];
    let machine = Machine::start(&zone, CLUSTER).await;
    let failed = machine.names.search("db").await.unwrap_err();
    assert!(matches!(&failed, Unresolved::Failed(why) if why.contains("Server Failure")), "{failed}");
    assert!(!machine.asked().contains(&"udp A db.svc.cluster.local.".to_owned()));
}

#[tokio::test]
async fn a_server_that_fails_for_one_kind_of_address_has_the_other() {
    let machine = Machine::start(&[("old.test", Says::NoV6(&["192.0.2.7"]))], "").await;
    assert_eq!(machine.names.exact("old.test").await, ips(&["192.0.2.7"]));
    let machine = Machine::start(&[("old.test", Says::NoV6(&[]))], "").await;
    assert!(matches!(machine.names.exact("old.test").await, Err(Unresolved::Failed(_))));
}

#[tokio::test]
async fn a_name_that_is_not_there_and_one_without_addresses_are_told_from_failures() {
    let zone = [("empty.test", Says::Has(&[], 0)), ("refused.test", Says::Code(ResponseCode::Refused))];
    let machine = Machine::start(&zone, "").await;
    for name in ["nowhere.test", "empty.test", "nowhere.invalid", "no such name", "", "a..test"] {
        assert_eq!(machine.names.exact(name).await, Err(Unresolved::NoAddress), "{name:?}");
    }
    assert!(matches!(machine.names.exact("refused.test").await, Err(Unresolved::Failed(_))));
}

/// The clock stands still but where everybody waits.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_is_a_time_out() {
    let machine = Machine::start(&[("slow.test", Says::Silence)], "options timeout:1 attempts:1\n").await;
    assert_eq!(machine.names.exact("slow.test").await, Err(Unresolved::Timeout));
}

#[tokio::test]
async fn an_answer_that_was_cut_short_is_fetched_by_tcp() {
    let machine = Machine::start(&[("many.test", Says::Many(&["192.0.2.1", "192.0.2.2"]))], "").await;
    assert_eq!(machine.names.exact("many.test").await, ips(&["192.0.2.1", "192.0.2.2"]));
    assert!(machine.asked().contains(&"tcp A many.test.".to_owned()));
}

#[tokio::test]
async fn an_answer_is_kept_as_long_as_it_says() {
    let zone = [("kept.test", Says::Has(&["192.0.2.1"], KEPT)), ("fresh.test", Says::Has(&["192.0.2.2"], 0))];
    let machine = Machine::start(&zone, "").await;
    for _ in 0..3 {
        assert_eq!(machine.names.clone().exact("kept.test").await, ips(&["192.0.2.1"]));
        assert_eq!(machine.names.exact("fresh.test").await, ips(&["192.0.2.2"]));
    }
    let asked = machine.asked();
    let times = |question: &str| asked.iter().filter(|asked| *asked == question).count();
    assert_eq!((times("udp A kept.test."), times("udp A fresh.test.")), (1, 3), "{asked:?}");
}

#[tokio::test]
async fn what_the_hosts_file_says_is_all_that_a_name_has() {
    let zone = [("api.provider.test", Says::Has(&["140.82.121.6", "2606:50c0:8000::153"], 0))];
    let machine = Machine::start(&zone, CLUSTER).await;
    machine.write("hosts", "127.0.0.1 localhost\n10.1.2.3 API.provider.test db # ours\nfd00::5 db\n");
    assert_eq!(machine.names.exact("api.provider.test").await, ips(&["10.1.2.3"]));
    assert_eq!(machine.names.search("db").await, ips(&["10.1.2.3", "fd00::5"]));
    assert_eq!(machine.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn files_that_change_are_read_anew() {
    let zone =
        [("db.one.test", Says::Has(&["192.0.2.1"], KEPT)), ("db.two.test", Says::Has(&["192.0.2.2"], KEPT))];
    let machine = Machine::start(&zone, "search one.test\n").await;
    assert_eq!(machine.names.search("db").await, ips(&["192.0.2.1"]));
    machine.write("resolv.conf", "search two.test\nnameserver 127.0.0.1\n# another\n");
    assert_eq!(machine.names.search("db").await, ips(&["192.0.2.2"]));
    machine.write("hosts", "192.0.2.3 db\n");
    assert_eq!(machine.names.search("db").await, ips(&["192.0.2.3"]));
    machine.remove("hosts");
    assert_eq!(machine.names.search("db").await, ips(&["192.0.2.2"]));
}

#[tokio::test]
async fn without_a_name_server_the_files_names_and_loopback_are_left() {
    let machine = Machine::start(&[], "").await;
    machine.write("hosts", "192.0.2.3 db\n192.0.2.66 localhost\n");
    machine.remove("resolv.conf");
    assert_eq!(machine.names.exact("db").await, ips(&["192.0.2.3"]));
    for name in ["localhost", "localhost.", "db.localhost"] {
        assert_eq!(machine.names.search(name).await, ips(&["127.0.0.1", "::1"]));
    }
    assert_eq!(machine.names.exact("::1").await, ips(&["::1"]));
    let missing = machine.names.search("api.provider.test").await.unwrap_err().to_string();
    assert!(missing.starts_with("no name server can be asked: /"), "{missing}");
    assert!(missing.contains("resolv.conf: No such file"), "{missing}");
    machine.write("resolv.conf", "search cluster.local\n");
    let none = machine.names.exact("api.provider.test").await.unwrap_err().to_string();
    assert!(none.ends_with("no nameservers found in config"), "{none}");
}

#[tokio::test]
async fn a_search_goes_on_wherever_it_is_waited_for() {
    fn is_send<T: Send>(searching: T) -> T {
        searching
    }
    assert_eq!(is_send(Names::system().search("127.0.0.1")).await, ips(&["127.0.0.1"]));
}
