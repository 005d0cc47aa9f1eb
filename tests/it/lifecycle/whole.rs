//! Tenants and users frozen, unfrozen and revoked as a whole.

use keybearer::{
    admin::{Client, Command, Reply},
    drain::Drain,
    secret::Secret,
    vault::{Source, Whole},
};

use super::{ALICE, BOB, Scene, ends, of_user};
use crate::{cli::Desk, support::stage::account};

fn acme() -> Whole {
    Whole::of_tenant("acme".parse().unwrap())
}

fn alice() -> Whole {
    Whole::of_user(&"acme".parse().unwrap(), &ALICE.parse().unwrap())
}

async fn ask(scene: &Scene, command: Command) -> Reply {
    let socket = scene.stage.dir().join("data/admin.sock");
    let client = Client::find(&socket, &Drain::default()).await.unwrap().unwrap();
    client.execute(&command).await.unwrap()
}

async fn freeze(scene: &Scene, whose: Whole) {
    ask(scene, Command::FreezeAll { whose, by: "ops".to_owned() }).await;
}

fn ops() -> (u16, Option<String>) {
    (403, Some("ops".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_user_is_refused_at_the_next_request_and_open_streams_end() {
    let scene = Scene::set("", &[]).await;
    let stream = scene.stream(ALICE).await;
    freeze(&scene, alice()).await;
    assert_eq!(scene.asked("acme", ALICE).await, ops());
    ends(stream).await;
    assert_eq!(scene.asked("acme", BOB).await.0, 200);
    assert_eq!(scene.asked("globex", ALICE).await.0, 200, "another tenant's user of the same name");
    ask(&scene, Command::UnfreezeAll { whose: alice(), force: false }).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    assert_eq!(
        scene.told().await,
        [format!("user.frozen acme {ALICE}"), format!("user.unfrozen acme {ALICE}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_tenant_is_refused_whoever_asks_and_open_streams_end() {
    let scene = Scene::set("", &[]).await;
    let streams = [scene.stream(ALICE).await, scene.stream(BOB).await];
    freeze(&scene, acme()).await;
    for user in [ALICE, BOB] {
        assert_eq!(scene.asked("acme", user).await, ops());
    }
    let of_tenant = scene.stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(of_tenant.error().as_deref(), Some("account_frozen"));
    for stream in streams {
        ends(stream).await;
    }
    assert_eq!(scene.asked("globex", ALICE).await.0, 200);
    let Reply::Accounts(listed) = ask(&scene, Command::List { tenant: None }).await else { panic!("a list") };
    for account in listed {
        let expected = if account.tenant.as_str() == "acme" { "frozen" } else { "active" };
        assert_eq!(account.status, expected, "{account:?}");
        assert_eq!(account.hold.is_some(), expected == "frozen");
    }
    ask(&scene, Command::UnfreezeAll { whose: acme(), force: false }).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_come_later_are_frozen_too_and_a_restart_changes_nothing() {
    let mut scene = Scene::set("", &[]).await;
    let carol = "carol@acme.example";
    freeze(&scene, Whole::of_user(&"acme".parse().unwrap(), &carol.parse().unwrap())).await;
    freeze(&scene, alice()).await;
    let vault = scene.stage.app().vault.clone();
    vault.add(account("acme", "crm", of_user(carol), "kb-canary-acme-carol-1a2b")).await.unwrap();
    assert_eq!(scene.asked("acme", carol).await, ops());
    let key = account("acme", "crm", of_user(ALICE), "").key;
    vault.revoke(&key).await.unwrap();
    let fields = [("token".to_owned(), Secret::new(b"kb-canary-acme-alice-again-2".to_vec()))];
    vault.rotate(&key, fields.into()).await.unwrap();
    assert_eq!(scene.asked("acme", ALICE).await, ops());
    drop(vault);
    scene.stage.restart(|_| ()).await;
    for user in [ALICE, carol] {
        assert_eq!(scene.asked("acme", user).await, ops());
    }
    assert_eq!(scene.asked("acme", "Carol@Acme.example").await, ops(), "one user, in whatever case");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_ends_streams_that_began_before_a_rotation() {
    let scene = Scene::set("", &[]).await;
    let stream = scene.stream(ALICE).await;
    let (vault, key) = (&scene.stage.app().vault, account("acme", "crm", of_user(ALICE), "").key);
    let fields = [("token".to_owned(), Secret::new(b"kb-canary-acme-alice-next-3".to_vec()))];
    vault.rotate(&key, fields.into()).await.unwrap();
    vault.freeze(&key, "ops").await.unwrap();
    ends(stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_lift_what_operators_made_and_by_force_what_others_did() {
    let scene = Scene::set("", &[]).await;
    let hold =
        keybearer::vault::Hold { source: Source::Scim, by: "scim".to_owned(), since: jiff::Timestamp::now() };
    scene.stage.app().vault.hold(&alice(), hold).await.unwrap();
    freeze(&scene, alice()).await;
    let Reply::Holds(left) = ask(&scene, Command::UnfreezeAll { whose: alice(), force: false }).await else {
        panic!("holds")
    };
    assert_eq!(left.iter().map(|held| held.by.as_str()).collect::<Vec<_>>(), ["scim"]);
    assert_eq!(scene.asked("acme", ALICE).await, (403, Some("scim".to_owned())));
    ask(&scene, Command::UnfreezeAll { whose: alice(), force: true }).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_accounts_of_a_user_are_revoked_and_no_others() {
    let scene = Scene::set("", &[]).await;
    let stream = scene.stream(ALICE).await;
    let Reply::Accounts(revoked) = ask(&scene, Command::RevokeAll { whose: alice() }).await else {
        panic!("accounts")
    };
    assert_eq!(revoked.len(), 1);
    ends(stream).await;
    assert_eq!(scene.asked("acme", ALICE).await, (401, None));
    assert_eq!(scene.asked("acme", BOB).await.0, 200);
    assert_eq!(scene.told().await, ["account.revoked acme"]);
}

#[test]
fn the_command_line_says_what_is_frozen_and_what_is_meant() {
    let desk = Desk::new();
    desk.add();
    let by = ["--by", "ops"];
    let frozen = desk.done(&[&["account", "freeze", "--tenant", "acme", "--all"][..], &by].concat(), "");
    assert!(frozen.err.contains("frozen: tenant acme, all accounts"), "{frozen:?}");
    desk.done(&[&["account", "freeze", "--tenant", "acme", "--user", "Bob", "--all"][..], &by].concat(), "");
    let listed = desk.done(&["account", "list", "--output", "json"], "").json();
    assert_eq!((&listed[0]["status"], &listed[0]["frozen_by"]), (&"frozen".into(), &"ops".into()));
    assert_eq!(
        (&listed[0]["hold"]["tenant"], &listed[0]["hold"]["user"]),
        (&"acme".into(), &serde_json::Value::Null)
    );
    let shown = desk.done(&["account", "show", "acme/crm/role:researcher"], "");
    assert!(shown.out.contains("frozen by ops; tenant acme is frozen by ops"), "{shown:?}");
    let holds = desk.done(&["account", "holds"], "");
    assert!(
        holds.out.contains("acme") && holds.out.contains("bob") && holds.out.contains("operator"),
        "{holds:?}"
    );
    let holds = desk.done(&["account", "holds", "--tenant", "acme", "--output", "json"], "").json();
    assert_eq!(holds.as_array().unwrap().len(), 2);
    let still = desk.done(&["account", "unfreeze", "acme/crm/role:researcher"], "");
    assert!(still.err.contains("note: it is frozen whatever its own state"), "{still:?}");
    desk.done(&["account", "unfreeze", "--tenant", "acme", "--all"], "");
    assert_eq!(desk.done(&["account", "list", "--output", "json"], "").json()[0]["status"], "active");
    let revoked = desk.done(&["account", "revoke", "--tenant", "acme", "--all"], "");
    assert!(revoked.err.contains("revoked 1 account of tenant acme"), "{revoked:?}");
    for wrong in [
        &["account", "freeze", "--tenant", "acme"][..],
        &["account", "freeze", "--tenant", "acme", "--user", "bob"],
        &["account", "freeze", "--tenant", "acme", "--connector", "crm", "--user", "bob"],
        &["account", "freeze", "--tenant", "acme", "--connector", "crm", "--all"],
        &["account", "freeze", "acme/crm/tenant", "--all"],
        &["account", "freeze", "--all"],
        &["account", "unfreeze", "acme/crm/tenant", "--force"],
    ] {
        let ran = desk.run(wrong, "");
        assert_eq!(ran.status, 2, "{wrong:?}: {ran:?}");
    }
}
