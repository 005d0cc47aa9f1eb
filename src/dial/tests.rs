//! From a name to a connection, with a name server of the test's.

use tokio::net::TcpListener;

use super::*;
use crate::names::fixture::{Machine, Says};

const LIMIT: Duration = Duration::from_secs(20);

fn dialer(machine: &Machine, allowed: &str, limit: Duration) -> Dialer {
    let guard = AddressGuard::new(&[allowed.parse().unwrap()]);
    Dialer { names: machine.names.clone(), ..Dialer::new(HashMap::new(), guard, limit) }
}

fn target(host: &str, port: u16) -> Target {
    Target { host: Host::parse(host).unwrap(), port }
}

#[tokio::test]
async fn the_first_address_that_may_be_dialled_and_answers_is_taken() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let zone = [("api.provider.test", Says::Has(&["10.0.0.1", "127.0.0.3", "127.0.0.2"], 0))];
    let machine = Machine::start(&zone, "").await;
    let dialer = dialer(&machine, "127.0.0.0/8", LIMIT);
    let stream = dialer.tcp(&target("api.provider.test", port)).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    assert!(dialer.leads_to(&target("api.provider.test", port), "10.0.0.1".parse().unwrap()).await);
    assert!(!dialer.leads_to(&target("api.provider.test", port), "10.0.0.2".parse().unwrap()).await);
}

#[tokio::test]
async fn a_name_that_policy_did_not_judge_is_never_dialled() {
    let zone = [("api.provider.test.cluster.local", Says::Has(&["127.0.0.1"], 0))];
    let machine = Machine::start(&zone, "search cluster.local\noptions ndots:5\n").await;
    let outcome = dialer(&machine, "127.0.0.0/8", LIMIT).tcp(&target("api.provider.test", 443)).await;
    assert!(matches!(outcome, Err(Error::Resolve(Unresolved::NoAddress))), "{outcome:?}");
}

#[tokio::test]
async fn an_address_of_the_hosts_file_is_guarded_too() {
    let machine = Machine::start(&[], "").await;
    machine.write("hosts", "169.254.169.254 api.provider.test\n");
    let outcome = dialer(&machine, "127.0.0.0/8", LIMIT).tcp(&target("api.provider.test", 443)).await;
    assert!(matches!(outcome, Err(Error::Address(Refused::Special(..)))), "{outcome:?}");
}

/// The clock stands still but where everybody waits.
#[tokio::test(start_paused = true)]
async fn silent_name_servers_are_a_time_out_and_failing_ones_are_not() {
    use hickory_resolver::proto::op::ResponseCode;
    let zone = [("slow.test", Says::Silence), ("broken.test", Says::Code(ResponseCode::ServFail))];
    let machine = Machine::start(&zone, "").await;
    for limit in [Duration::from_secs(1), Duration::from_mins(1)] {
        let outcome = dialer(&machine, "127.0.0.0/8", limit).tcp(&target("slow.test", 443)).await;
        assert!(matches!(outcome, Err(Error::Timeout)), "{outcome:?}");
    }
    let outcome = dialer(&machine, "127.0.0.0/8", LIMIT).tcp(&target("broken.test", 443)).await;
    assert!(matches!(outcome, Err(Error::Resolve(Unresolved::Failed(_)))), "{outcome:?}");
}
