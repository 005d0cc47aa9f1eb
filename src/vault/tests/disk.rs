//! What the disk, and who kills the process, may do: nothing that was acknowledged is lost without a word.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
};

use super::*;
use crate::vault::store::Error as StoreError;

const CHILD_DIR: &str = "KEYBEARER_TEST_VAULT_DIR";
const CHILD_FROM: &str = "KEYBEARER_TEST_VAULT_FROM";

/// How many accounts the killed writer rotates in turn.
const SLOTS: u64 = 5;

/// From one chunk to five, by slot.
fn numbered(number: u64) -> String {
    let width = 8 + 6000 * usize::try_from(number % SLOTS).unwrap();
    format!("token-{number:0width$}")
}

fn store_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("vault")
}

/// Long enough for few of them to fill what a test lets them fill.
fn token(n: u32) -> String {
    format!("token-{n:0600}")
}

async fn add_many(vault: &Vault, names: std::ops::Range<u32>) {
    for n in names {
        vault.add(new_account(&format!("acme/github/role{n}"), &token(n))).await.unwrap();
    }
}

async fn assert_all_there(vault: &Vault, count: u32) {
    for n in 0..count {
        let account = vault.account(&key(&format!("acme/github/role{n}"))).await.unwrap();
        assert!(holds(&account.unwrap(), &token(n)), "{n}");
    }
}

#[tokio::test]
async fn a_kill_during_start_blocks_sled_for_ever_and_not_the_vault() {
    let (dir, vault) = on_disk().await;
    add_many(&vault, 0..3).await;
    drop(vault);
    drop(open(dir.path()).await.unwrap()); // the second start writes a snapshot
    let half = store_dir(&dir).join("snap.00000000000FFFFF.generating");
    fs::write(&half, b"half").unwrap();
    for _ in 0..2 {
        let bare = bare_sled(&store_dir(&dir));
        assert!(matches!(bare, Err(sled::Error::Corruption { .. })), "without the guard: {bare:?}");
    }
    let vault = open(dir.path()).await.unwrap();
    assert!(!half.exists());
    assert_all_there(&vault, 3).await;
}

#[tokio::test]
async fn a_kill_while_the_vault_is_made_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("vault.new");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("conf"), "segment_size: 524288\nuse_compression: false\nver").unwrap();
    assert!(bare_sled(&half).is_err(), "sled does not open what it half made");
    assert!(matches!(open(dir.path()).await, Err(Error::NoVault(_))));
    add_many(&init(dir.path()).await, 0..1).await;
    assert!(!half.exists());
    assert_all_there(&open(dir.path()).await.unwrap(), 1).await;
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Whether the vault opens whole; if not, whether it says so. Losing something in silence panics.
async fn opens_whole(dir: &Path, count: usize) -> bool {
    let Ok(vault) = open(dir).await else { return false };
    let Ok(overview) = vault.status().await else { return false };
    let active = overview.accounts.values().sum::<usize>();
    assert_eq!(active + overview.unreadable.len(), count, "accounts are gone without a word");
    overview.unreadable.is_empty()
}

/// One vault with several starts behind it, and copies of it with one byte turned or the end cut off.
#[tokio::test]
async fn damage_is_never_taken_for_fewer_accounts() {
    let (dir, vault) = on_disk().await;
    add_many(&vault, 0..6).await;
    drop(vault);
    add_many(&open(dir.path()).await.unwrap(), 6..12).await;
    let log = fs::read(store_dir(&dir).join("db")).unwrap();
    let end = log.iter().rposition(|byte| *byte != 0).unwrap();

    let mut noticed = 0;
    for at in (0..end).step_by(end / 40) {
        for damage in [turned(&log, at), log[..at].to_vec()] {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            fs::write(copy.path().join("vault/db"), damage).unwrap();
            noticed += u32::from(!opens_whole(copy.path(), 12).await);
        }
    }
    assert!(noticed > 40, "most bytes matter: {noticed}");
    assert!(opens_whole(dir.path(), 12).await);
}

fn turned(log: &[u8], at: usize) -> Vec<u8> {
    let mut log = log.to_vec();
    log[at] ^= 0xff;
    log
}

#[tokio::test]
async fn a_missing_or_cut_log_is_told_with_what_is_lost() {
    let (dir, vault) = on_disk().await;
    add_many(&vault, 0..3).await;
    drop(vault);
    let whole = fs::read(store_dir(&dir).join("db")).unwrap();
    fs::remove_file(store_dir(&dir).join("db")).unwrap();
    for _ in 0..2 {
        let refused = open(dir.path()).await.unwrap_err();
        // The header, the tenant's data key and three accounts.
        assert!(
            matches!(refused, Error::Store(StoreError::Lost { found: 0, acknowledged: 5, .. })),
            "{refused}"
        );
    }
    fs::write(store_dir(&dir).join("db"), whole).unwrap();
    assert_all_there(&open(dir.path()).await.unwrap(), 3).await;
}

/// sled does not sync the files in `blobs`, so none may ever be there.
#[tokio::test]
async fn large_accounts_stay_in_the_log_that_is_synced() {
    let (dir, vault) = on_disk().await;
    let large = |n: u8| fields(&String::from_utf8(vec![b'a' + n; MAX_SECRET]).unwrap());
    let names = (0..12).map(|n| format!("acme/github/role{n}")).collect::<Vec<_>>();
    for name in &names {
        vault.add(new_account(name, "token-one")).await.unwrap();
    }
    for n in 0..2 {
        for name in &names {
            vault.rotate(&key(name), large(n)).await.unwrap();
            assert_eq!(fs::read_dir(store_dir(&dir).join("blobs")).unwrap().count(), 0, "{name}");
        }
    }
    drop(vault);
    let vault = open(dir.path()).await.unwrap();
    assert!(vault.list(None).await.unwrap().iter().all(|account| *account.material.fields() == large(1)));

    let shrunk = vault.revoke(&key("acme/github/role7")).await.unwrap();
    vault.remove(&key("acme/github/role8")).await.unwrap();
    assert_eq!(vault.account(&shrunk.key).await.unwrap().unwrap(), shrunk);
    drop(vault);
    let db = bare_sled(&store_dir(&dir)).unwrap();
    assert_eq!(db.scan_prefix(b"a").count(), 11);
    assert_eq!(db.scan_prefix(b"c").count(), 10 * 10, "no chunk is left of the two");
}

/// Runs one of the ignored tests below in a process of its own.
fn child(test: &str, dir: &Path, from: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    command
        .args([name.as_str(), "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Reads acknowledgements, kills the child after so many, and returns the last number it acknowledged.
fn kill_after(mut child: Child, acknowledgements: usize) -> Option<u64> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.filter_map(|line| line.strip_prefix("ack ").map(str::to_owned));
    let mut last = None;
    // `ack start` comes before the vault is opened, so 0 kills during the start.
    assert_eq!(lines.next().as_deref(), Some("start"));
    for _ in 0..acknowledgements {
        last = lines.next();
    }
    child.kill().unwrap();
    let rest = lines.last();
    child.wait().unwrap();
    rest.or(last).map(|number| number.parse().unwrap())
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kills() {
    let (dir, vault) = on_disk().await;
    for slot in 0..SLOTS {
        vault.add(new_account(&format!("acme/github/role{slot}"), &numbered(slot))).await.unwrap();
    }
    drop(vault);
    let mut next = SLOTS;
    for acknowledgements in [1, 0, 3, 0, 11, 2, 0, 29, 1, 0, 47, 5] {
        let writer = child("killed_writer", dir.path(), next).spawn().unwrap();
        let last = kill_after(writer, acknowledgements).unwrap_or(next - 1);
        let vault = open(dir.path()).await.unwrap();
        for slot in 0..SLOTS {
            let acknowledged = (0..=last).rev().find(|number| number % SLOTS == slot).unwrap();
            let account = vault.account(&key(&format!("acme/github/role{slot}"))).await.unwrap().unwrap();
            let found = holds(&account, &numbered(acknowledged));
            // The one after the last may be on disk although nobody heard of it.
            let ahead = (last + 1) % SLOTS == slot && holds(&account, &numbered(last + 1));
            assert!(found || ahead, "slot {slot}, acknowledged {acknowledged}");
        }
        next = last + 1;
    }
    assert!(next > SLOTS + 90, "the writers wrote");
}

#[test]
#[ignore = "the process that `what_was_acknowledged_is_there_after_kills` kills"]
fn killed_writer() {
    let Some(dir) = child_dir() else { return };
    work_until_killed(&dir, &async |vault, number| {
        let slot = key(&format!("acme/github/role{}", number % SLOTS));
        vault.rotate(&slot, fields(&numbered(number))).await.unwrap();
    });
}

/// Does one thing after the other, and acknowledges each with its number.
fn work_until_killed(dir: &Path, work: &impl AsyncFn(&Vault, u64)) {
    let from = std::env::var_os(CHILD_FROM).as_deref().and_then(OsStr::to_str).unwrap().parse().unwrap();
    let acknowledge = |what: &str| {
        // Past the test harness, which would keep it back.
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nack {what}").and_then(|()| out.flush()).unwrap();
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        acknowledge("start");
        let vault = open_with(&either_key(dir), dir).await.unwrap();
        for number in from..u64::MAX {
            work(&vault, number).await;
            acknowledge(&number.to_string());
        }
    });
}

/// The file's key, where there is one; otherwise that of the rotations.
fn either_key(dir: &Path) -> Config {
    if dir.join("vault.key").exists() {
        return Config::default();
    }
    Config { next_key: Some(key_of(2)), ..value_key(1) }
}

/// The steps of a refresh, each acknowledged: what is on disk is the last one, or the one after it.
#[tokio::test]
async fn a_refresh_is_found_at_the_step_where_it_was_killed() {
    let (dir, vault) = on_disk().await;
    vault.add(granted("acme/crm/writer", 0, "alice")).await.unwrap();
    drop(vault);
    let (mut next, mut fence) = (0, 0);
    for acknowledgements in [1, 0, 2, 3, 0, 4, 5, 1, 6, 7, 18, 0, 31, 2, 44] {
        let refresher = child("killed_refresher", dir.path(), next).spawn().unwrap();
        let last = kill_after(refresher, acknowledgements).map_or(next, |last| last + 1);
        let vault = open(dir.path()).await.unwrap();
        let at = Step::found(&vault).await;
        assert!((last..=last + 1).contains(&at), "{last} steps acknowledged, {at} found");
        let lease = vault.lease(&key("acme/crm/writer"), "replica-1", Duration::ZERO).await.unwrap().unwrap();
        assert!(lease.fence() > fence, "a fence is never given twice");
        (next, fence) = (at, lease.fence());
    }
    assert!(next > 90, "the refreshers refreshed");
}

/// What a refresh has done, counted over all refreshes: three steps each.
struct Step;

impl Step {
    /// Finds out from what is on disk, all of which must be of one step.
    async fn found(vault: &Vault) -> u64 {
        let account = vault.account(&key("acme/crm/writer")).await.unwrap().unwrap();
        let refreshes = account.generation - 1;
        let number = u32::try_from(refreshes).unwrap();
        assert_eq!(account.material, granted("acme/crm/writer", number, "alice").material);
        let notes = vault.outbox(1000).await.unwrap();
        let texts = notes.into_iter().map(|note| note.text.unwrap());
        let expected = (0..refreshes).map(|number| number.to_string().into_bytes());
        assert!(texts.eq(expected), "as many notes as refreshes, in order");
        let intents = vault.intents().await.unwrap();
        let within = intents.first().map_or(0, |(_, orphan)| {
            let orphan = orphan.as_ref().unwrap();
            assert_eq!(orphan.intent.generation, account.generation);
            assert!(orphan.answer.as_ref().is_none_or(|answer| *answer == Self::answer(refreshes)));
            1 + u64::from(orphan.answer.is_some())
        });
        refreshes * 3 + within
    }

    /// Long enough for several chunks.
    fn answer(refreshes: u64) -> Secret {
        Secret::new(format!("{refreshes:030000}").into_bytes())
    }

    /// Takes the step after so many.
    async fn take(vault: &Vault, steps: u64) {
        let lease = vault.lease(&key("acme/crm/writer"), "replica-1", Duration::ZERO).await.unwrap().unwrap();
        let (refreshes, generation) = (steps / 3, steps / 3 + 1);
        let now = Timestamp::UNIX_EPOCH;
        let replica = "replica-1".to_owned();
        let intent = Intent { generation, token_hash: [0; 32], started: now, deadline: now, replica };
        match steps % 3 {
            0 => assert!(vault.intend(&lease, &intent).await.unwrap()),
            1 => {
                // An answer stands beside an intent of its own lease; this one may be of the process before.
                assert!(vault.intend(&lease, &intent).await.unwrap());
                assert!(vault.quarantine(&lease, &Self::answer(refreshes)).await.unwrap());
            }
            _ => {
                let account = vault.account(lease.key()).await.unwrap().unwrap();
                let number = u32::try_from(generation).unwrap();
                let next =
                    Account { material: granted("acme/crm/writer", number, "alice").material, ..account };
                let note = refreshes.to_string().into_bytes();
                let done = vault.commit(&lease, generation, next, Some(&note)).await.unwrap();
                assert!(matches!(done, Committed::Done(_)), "{done:?}");
            }
        }
    }
}

#[test]
#[ignore = "the process that `a_refresh_is_found_at_the_step_where_it_was_killed` kills"]
fn killed_refresher() {
    let Some(dir) = child_dir() else { return };
    work_until_killed(&dir, &async |vault, steps| Step::take(vault, steps).await);
}

/// Between two keys, again and again: the vault opens with one of them, and everything in it.
#[tokio::test]
async fn a_vault_whose_rotation_was_killed_opens_with_one_of_the_two_keys() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = Vault::init(&value_key(1), dir.path(), &claim(), &Drain::default()).await.unwrap();
    for n in 0..20 {
        vault.add(new_account(&format!("tenant{n}/github/writer"), &token(n))).await.unwrap();
    }
    drop(vault);
    let mut next = 0;
    for acknowledgements in [1, 0, 2, 0, 5, 1, 0, 9, 3, 0, 14] {
        let rotator = child("killed_rotator", dir.path(), next).spawn().unwrap();
        let last = kill_after(rotator, acknowledgements).map_or(next, |last| last + 1);
        let mut opened = Vec::new();
        for byte in [1, 2] {
            match open_with(&value_key(byte), dir.path()).await {
                Ok(vault) => {
                    assert_eq!(vault.list(None).await.unwrap().len(), 20);
                    opened.push(byte);
                }
                Err(refused) => assert!(matches!(refused, Error::WrongKey { .. }), "{refused}"),
            }
        }
        let [byte] = opened.as_slice() else { panic!("{opened:?} open it") };
        let of = |rotations: u64| if rotations.is_multiple_of(2) { 1 } else { 2 };
        assert!([of(last), of(last + 1)].contains(byte));
        next = if *byte == of(last) { last } else { last + 1 };
    }
    assert!(next > 30, "the rotators rotated");
}

#[test]
#[ignore = "the process that `a_vault_whose_rotation_was_killed_opens_with_one_of_the_two_keys` kills"]
fn killed_rotator() {
    let Some(dir) = child_dir() else { return };
    work_until_killed(&dir, &async |vault, rotations| {
        let to = key_of(if rotations.is_multiple_of(2) { 2 } else { 1 });
        let done = vault.rotate_key(&to).await.unwrap();
        assert_eq!((done.tenants, done.unopened.len()), (20, 0));
    });
}

#[tokio::test]
async fn a_full_disk_is_told_loses_nothing_and_heals() {
    let (dir, vault) = on_disk().await;
    drop(vault);
    let output = child("writer_on_a_full_disk", dir.path(), 0).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = told.lines().find_map(|line| line.strip_prefix("ack ")).unwrap().parse().unwrap();
    assert_all_there(&open(dir.path()).await.unwrap(), count).await;
}

/// A limit on the size of files does what a full disk does, for one process: a write is cut short, and the next
/// one refused.
#[test]
#[ignore = "the process that `a_full_disk_is_told_loses_nothing_and_heals` starts"]
fn writer_on_a_full_disk() {
    let Some(dir) = child_dir() else { return };
    let mut ignored = SigSet::empty();
    ignored.add(Signal::SIGXFSZ);
    ignored.thread_block().unwrap(); // inherited by every thread from here on
    let limit = |bytes: u64| {
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), hard).unwrap();
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let vault = open(&dir).await.unwrap();
        add_many(&vault, 0..4).await;
        let used = fs::metadata(dir.join("vault/db")).unwrap().len();
        limit(used + 2000);
        let mut count = 4;
        let refused = loop {
            let new = new_account(&format!("acme/github/role{count}"), &token(count));
            match vault.add(new).await {
                Ok(_) => count += 1,
                Err(refused) => break refused,
            }
            assert!(count < 10_000, "the limit is never met");
        };
        assert!(matches!(refused, Error::Store(StoreError::Full { .. })), "{refused:?}");
        let again = vault.add(new_account("acme/slack/tenant", "token-slack")).await;
        assert!(matches!(again, Err(Error::Store(StoreError::Full { .. }))), "{again:?}");
        drop(vault);
        limit(300); // enough for the lock file, not for sled to start
        let refused = open(&dir).await.unwrap_err();
        assert!(matches!(refused, Error::Store(StoreError::Full { .. })), "{refused:?}");

        limit(u64::MAX);
        let vault = open(&dir).await.unwrap();
        assert_all_there(&vault, count).await;
        let used = fs::metadata(dir.join("vault/db")).unwrap().len();
        limit(used);
        let mut extra = 0;
        while vault.rotate(&key("acme/github/role0"), fields(&token(extra))).await.is_ok() {
            extra += 1;
            assert!(extra < 10_000, "the limit is never met");
        }
        limit(u64::MAX);
        vault.rotate(&key("acme/github/role0"), fields(&token(0))).await.unwrap();
        assert_all_there(&vault, count).await;
        writeln!(std::io::stdout().lock(), "\nack {count}").unwrap();
    });
}
