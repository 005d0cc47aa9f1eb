//! What holds over every store of leases, intents, answers, commits and notes.

use super::*;

over_every_store!(
    one_lease_at_a_time_and_each_with_a_greater_fence,
    a_fence_is_never_given_twice_also_to_an_account_that_was_removed,
    whoever_has_the_newest_fence_may_commit_and_nobody_else,
    a_commit_is_one_step_and_is_told,
    a_freeze_that_comes_in_between_wins,
    an_orphan_is_handed_to_the_next_holder,
    a_late_answer_is_kept_for_a_holder_that_has_sent_nothing_yet,
    an_unread_answer_is_never_written_over,
    a_dropped_intent_leaves_only_its_note,
    notes_wait_in_order_until_they_are_delivered,
    a_removed_account_leaves_its_notes_and_nothing_else,
    an_answer_of_a_megabyte_fits,
    intents_answers_and_notes_are_sealed_for_their_account_and_lease,
    a_new_consent_replaces_the_old_one_of_the_same_subject_only,
    a_revoked_grant_keeps_who_consented,
);

const NAME: &str = "acme/salesforce/writer";
const LONG: Duration = Duration::from_mins(10);
/// A lease whose time has run out when it is given.
const OVER: Duration = Duration::ZERO;

async fn connected(vault: &Vault, name: &str) -> Account {
    vault.add(granted(name, 1, "alice")).await.unwrap()
}

async fn lease(vault: &Vault, name: &str, ttl: Duration) -> Option<Lease> {
    vault.lease(&key(name), "replica-1", ttl).await.unwrap()
}

fn intent(generation: u64) -> Intent {
    let (started, deadline) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(20).unwrap());
    Intent { generation, token_hash: [7; 32], started, deadline, replica: "replica-1".to_owned() }
}

fn answer(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// What a refresh makes of an account.
fn refreshed(before: &Account, number: u32) -> Account {
    let material = granted(NAME, number, "alice").material;
    Account { material, ..before.clone() }
}

async fn told(vault: &Vault) -> Vec<String> {
    let notes = vault.outbox(100).await.unwrap();
    notes.into_iter().map(|note| String::from_utf8(note.text.unwrap()).unwrap()).collect()
}

async fn one_lease_at_a_time_and_each_with_a_greater_fence(vault: &Vault) {
    assert_eq!(lease(vault, NAME, LONG).await, None, "there is no such account");
    connected(vault, NAME).await;
    connected(vault, "acme/salesforce/reader").await;
    let first = lease(vault, NAME, LONG).await.unwrap();
    assert_eq!((first.key(), first.orphan()), (&key(NAME), None));
    assert_eq!(lease(vault, NAME, LONG).await, None, "not even for the same holder");
    assert!(lease(vault, "acme/salesforce/reader", LONG).await.is_some(), "another account");
    assert!(vault.renew(&first, OVER).await.unwrap());
    let second = lease(vault, NAME, OVER).await.unwrap();
    assert!(second.fence() > first.fence());
    assert!(!vault.renew(&first, LONG).await.unwrap());
    vault.release(&first).await.unwrap();
    assert!(vault.renew(&second, LONG).await.unwrap(), "its time was over, but nobody had come");
    assert_eq!(lease(vault, NAME, LONG).await, None, "another one's release gives nothing up");
    vault.release(&second).await.unwrap();
    assert!(!vault.renew(&second, LONG).await.unwrap());
    assert!(lease(vault, NAME, LONG).await.unwrap().fence() > second.fence());
}

async fn a_fence_is_never_given_twice_also_to_an_account_that_was_removed(vault: &Vault) {
    let before = connected(vault, NAME).await;
    let old = lease(vault, NAME, LONG).await.unwrap();
    vault.remove(&key(NAME)).await.unwrap();
    assert!(!vault.renew(&old, LONG).await.unwrap());
    let after = connected(vault, NAME).await;
    assert_eq!(before.generation, after.generation);
    assert!(!vault.intend(&old, &intent(1)).await.unwrap());
    let committed = vault.commit(&old, 1, refreshed(&before, 2), None).await.unwrap();
    assert_eq!(committed, Committed::Fenced, "the generation is the same, the account is not");
    assert!(lease(vault, NAME, LONG).await.unwrap().fence() > old.fence());
    assert_eq!(vault.account(&key(NAME)).await.unwrap().unwrap(), after);
}

async fn whoever_has_the_newest_fence_may_commit_and_nobody_else(vault: &Vault) {
    let account = connected(vault, NAME).await;
    let slow = lease(vault, NAME, OVER).await.unwrap();
    let Committed::Done(second) = vault.commit(&slow, 1, refreshed(&account, 2), None).await.unwrap() else {
        panic!("its time was over, but nobody had come")
    };
    assert_eq!((second.generation, vault.account(&key(NAME)).await.unwrap().unwrap()), (2, *second.clone()));

    let next = lease(vault, NAME, LONG).await.unwrap();
    let late = vault.commit(&slow, 2, refreshed(&second, 3), Some(b"late")).await.unwrap();
    assert_eq!(late, Committed::Fenced);
    assert!(!vault.drop_intent(&slow, Some(b"late")).await.unwrap());
    assert!(!vault.intend(&slow, &intent(2)).await.unwrap());
    vault.release(&next).await.unwrap();
    let released = vault.commit(&next, 2, refreshed(&second, 3), Some(b"released")).await.unwrap();
    assert_eq!(released, Committed::Fenced);
    assert_eq!(vault.account(&key(NAME)).await.unwrap().unwrap(), *second);
    assert_eq!(told(vault).await, Vec::<String>::new());
}

async fn a_commit_is_one_step_and_is_told(vault: &Vault) {
    let account = connected(vault, NAME).await;
    let lease = lease(vault, NAME, LONG).await.unwrap();
    assert!(vault.intend(&lease, &intent(1)).await.unwrap());
    assert!(vault.quarantine(&lease, &answer("{\"access_token\":1}")).await.unwrap());
    let mut changes = vault.changes();
    let scopes = Some(["accounts:read".parse().unwrap()].into());
    let next = Account { scopes, generation: 77, ..refreshed(&account, 2) };
    let done = vault.commit(&lease, 1, next.clone(), Some(b"refreshed")).await.unwrap();
    let now = vault.account(&key(NAME)).await.unwrap().unwrap();
    assert_eq!(done, Committed::Done(Box::new(now.clone())));
    assert_eq!((now.generation, &now.material, &now.scopes), (2, &next.material, &next.scopes));
    assert!(now.updated >= account.updated);
    assert_eq!(changes.try_recv().unwrap(), Change::Account(key(NAME)));
    assert!(vault.intents().await.unwrap().is_empty());
    assert_eq!(told(vault).await, ["refreshed"]);
}

async fn a_freeze_that_comes_in_between_wins(vault: &Vault) {
    let account = connected(vault, NAME).await;
    let lease = lease(vault, NAME, LONG).await.unwrap();
    assert!(vault.intend(&lease, &intent(1)).await.unwrap());
    let frozen = vault.freeze(&key(NAME), "scim").await.unwrap();
    let mut changes = vault.changes();
    let moved = vault.commit(&lease, 1, refreshed(&account, 2), Some(b"refreshed")).await.unwrap();
    assert_eq!(moved, Committed::Moved);
    assert!(changes.try_recv().is_err());
    assert_eq!(vault.account(&key(NAME)).await.unwrap().unwrap(), frozen);
    assert_eq!(
        (vault.intents().await.unwrap().len(), told(vault).await.len()),
        (1, 0),
        "nothing was written"
    );

    let done = vault.commit(&lease, 2, refreshed(&frozen, 2), Some(b"kept")).await.unwrap();
    let Committed::Done(kept) = done else { panic!("{done:?}") };
    assert_eq!((kept.generation, kept.status.as_str()), (3, "frozen"));
    vault.remove(&key(NAME)).await.unwrap();
    assert_eq!(vault.commit(&lease, 3, *kept, None).await.unwrap(), Committed::Moved, "it is gone");
}

async fn an_orphan_is_handed_to_the_next_holder(vault: &Vault) {
    connected(vault, NAME).await;
    let killed = lease(vault, NAME, OVER).await.unwrap();
    assert!(vault.intend(&killed, &intent(1)).await.unwrap());
    let next = lease(vault, NAME, OVER).await.unwrap();
    let orphan = Orphan { fence: killed.fence(), intent: intent(1), answer: None };
    assert_eq!(next.orphan(), Some(&orphan));

    assert!(vault.intend(&next, &Intent { generation: 9, ..intent(1) }).await.unwrap(), "over one without");
    assert!(vault.quarantine(&next, &answer("first")).await.unwrap());
    assert!(vault.quarantine(&next, &answer("second")).await.unwrap());
    let all = vault.intents().await.unwrap();
    let [(of, Ok(found))] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((of, found.fence, found.intent.generation), (&key(NAME), next.fence(), 9));
    assert_eq!(found.answer, Some(answer("second")));
    assert_eq!(lease(vault, NAME, LONG).await.unwrap().orphan(), Some(found));
}

async fn a_late_answer_is_kept_for_a_holder_that_has_sent_nothing_yet(vault: &Vault) {
    connected(vault, NAME).await;
    let slow = lease(vault, NAME, OVER).await.unwrap();
    assert!(!vault.quarantine(&slow, &answer("unasked")).await.unwrap(), "there is no intent");
    assert!(vault.intend(&slow, &intent(1)).await.unwrap());
    let next = lease(vault, NAME, OVER).await.unwrap();
    assert!(vault.quarantine(&slow, &answer("late")).await.unwrap());
    assert!(!vault.intend(&next, &intent(1)).await.unwrap(), "the next one is kept from sending");
    let third = lease(vault, NAME, OVER).await.unwrap();
    assert_eq!(third.orphan().unwrap().answer, Some(answer("late")));
    assert!(vault.drop_intent(&third, None).await.unwrap());
    assert!(vault.intend(&third, &intent(1)).await.unwrap());
    assert!(!vault.quarantine(&slow, &answer("too late")).await.unwrap());
}

async fn an_unread_answer_is_never_written_over(vault: &Vault) {
    let account = connected(vault, NAME).await;
    let killed = lease(vault, NAME, OVER).await.unwrap();
    assert!(vault.intend(&killed, &intent(1)).await.unwrap());
    assert!(vault.quarantine(&killed, &answer("tokens")).await.unwrap());
    assert!(!vault.intend(&killed, &intent(1)).await.unwrap());
    let next = lease(vault, NAME, LONG).await.unwrap();
    assert!(!vault.intend(&next, &intent(1)).await.unwrap());
    assert_eq!(next.orphan().unwrap().answer, Some(answer("tokens")));
    let done = vault.commit(&next, 1, refreshed(&account, 2), None).await.unwrap();
    assert!(matches!(done, Committed::Done(_)));
    assert!(vault.intend(&next, &intent(2)).await.unwrap(), "it was read");
}

async fn a_dropped_intent_leaves_only_its_note(vault: &Vault) {
    let account = connected(vault, NAME).await;
    let lease = lease(vault, NAME, LONG).await.unwrap();
    assert!(vault.intend(&lease, &intent(1)).await.unwrap());
    assert!(vault.quarantine(&lease, &answer("refused")).await.unwrap());
    assert!(vault.drop_intent(&lease, Some(b"not sent")).await.unwrap());
    assert!(vault.intents().await.unwrap().is_empty());
    assert!(vault.drop_intent(&lease, None).await.unwrap(), "once more does nothing");
    assert_eq!(told(vault).await, ["not sent"]);
    assert_eq!(vault.account(&key(NAME)).await.unwrap().unwrap(), account);
}

async fn notes_wait_in_order_until_they_are_delivered(vault: &Vault) {
    let mut account = connected(vault, NAME).await;
    let lease = lease(vault, NAME, LONG).await.unwrap();
    for number in 1..=12 {
        let note = format!("note-{number:02}");
        let next = refreshed(&account, number);
        let done = vault.commit(&lease, account.generation, next, Some(note.as_bytes())).await.unwrap();
        let Committed::Done(now) = done else { panic!("{done:?}") };
        account = *now;
    }
    let first = vault.outbox(5).await.unwrap();
    let texts: Vec<_> = first.iter().map(|note| note.text.as_deref().unwrap()).collect();
    assert_eq!(texts, [b"note-01", b"note-02", b"note-03", b"note-04", b"note-05"]);
    assert!(first.is_sorted_by(|one, other| one.id < other.id));
    assert!(first.iter().all(|note| note.account == key(NAME)));
    vault.delivered(&[first[0].id, first[1].id, first[3].id]).await.unwrap();
    vault.delivered(&[first[0].id]).await.unwrap();
    assert_eq!(told(vault).await[..3], ["note-03", "note-05", "note-06"]);

    let rest: Vec<_> = vault.outbox(100).await.unwrap().iter().map(|note| note.id).collect();
    vault.delivered(&rest).await.unwrap();
    assert!(vault.drop_intent(&lease, Some(b"last")).await.unwrap());
    let last = vault.outbox(1).await.unwrap();
    assert!(last[0].id > *rest.last().unwrap(), "a number is never given twice");
}

async fn a_removed_account_leaves_its_notes_and_nothing_else(vault: &Vault) {
    let account = connected(vault, NAME).await;
    let held = lease(vault, NAME, LONG).await.unwrap();
    vault.commit(&held, 1, refreshed(&account, 2), Some(b"refreshed")).await.unwrap();
    assert!(vault.intend(&held, &intent(2)).await.unwrap());
    assert!(vault.quarantine(&held, &answer(&"long".repeat(10_000))).await.unwrap());
    vault.remove(&key(NAME)).await.unwrap();
    assert!(vault.intents().await.unwrap().is_empty());
    assert!(!vault.quarantine(&held, &answer("late")).await.unwrap());
    assert_eq!(told(vault).await, ["refreshed"]);
    connected(vault, NAME).await;
    assert_eq!(lease(vault, NAME, LONG).await.unwrap().orphan(), None);
}

async fn an_answer_of_a_megabyte_fits(vault: &Vault) {
    connected(vault, NAME).await;
    let slow = lease(vault, NAME, OVER).await.unwrap();
    assert!(vault.intend(&slow, &intent(1)).await.unwrap());
    let large = answer(&"0123456789abcdef".repeat(65_536));
    assert!(vault.quarantine(&slow, &large).await.unwrap());
    let next = lease(vault, NAME, LONG).await.unwrap();
    assert_eq!(next.orphan().unwrap().answer.as_ref(), Some(&large));
    assert!(vault.drop_intent(&next, None).await.unwrap());
    assert!(vault.intents().await.unwrap().is_empty());
}

async fn intents_answers_and_notes_are_sealed_for_their_account_and_lease(vault: &Vault) {
    connected(vault, NAME).await;
    connected(vault, "acme/salesforce/reader").await;
    let own = lease(vault, NAME, LONG).await.unwrap();
    let replica = "replica-canary".to_owned();
    assert!(vault.intend(&own, &Intent { replica, ..intent(1) }).await.unwrap());
    assert!(vault.quarantine(&own, &answer("answer-canary")).await.unwrap());
    let store = &vault.0.store;
    let stored = store.intent(&key(NAME)).await.unwrap().unwrap();
    let sealed = [stored.sealed.clone(), stored.answer.clone().unwrap()];
    assert!(vault.drop_intent(&own, Some(b"note-canary")).await.unwrap());
    let note = store.outbox(1).await.unwrap().remove(0).sealed;
    for text in sealed.iter().chain([&note]) {
        for canary in ["replica-canary", "answer-canary", "note-canary"] {
            assert!(!text.windows(canary.len()).any(|bytes| bytes == canary.as_bytes()), "{canary}");
        }
    }

    // Somebody puts them elsewhere: under another account, and as another lease's.
    let other = lease(vault, "acme/salesforce/reader", OVER).await.unwrap();
    assert!(store.intend(other.key(), other.fence(), sealed[0].clone()).await.unwrap());
    assert!(store.drop_intent(other.key(), other.fence(), Some(note)).await.unwrap());
    assert!(store.intend(other.key(), other.fence(), sealed[0].clone()).await.unwrap());
    let refused = vault.lease(other.key(), "replica-2", OVER).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("the intent of the account acme/salesforce/role:reader does not"),
        "{refused}"
    );
    assert!(vault.intents().await.unwrap()[0].1.is_err());
    let notes = vault.outbox(2).await.unwrap();
    assert!(notes[0].text.is_ok() && notes[1].text.is_err(), "the one is no obstacle to the other");

    vault.release(&own).await.unwrap();
    let newer = lease(vault, NAME, LONG).await.unwrap();
    assert!(store.intend(newer.key(), newer.fence(), sealed[0].clone()).await.unwrap());
    assert!(vault.intents().await.unwrap().iter().all(|(_, intent)| intent.is_err()));
    assert!(vault.intend(&newer, &intent(1)).await.unwrap());
    assert!(store.quarantine(newer.key(), newer.fence(), sealed[1].clone()).await.unwrap());
    assert!(vault.intents().await.unwrap().iter().all(|(_, intent)| intent.is_err()));
}

async fn a_new_consent_replaces_the_old_one_of_the_same_subject_only(vault: &Vault) {
    let first = vault.connect(granted(NAME, 1, "alice")).await.unwrap();
    assert_eq!(first.generation, 1);
    vault.freeze(&key(NAME), "scim").await.unwrap();
    let scopes = Some(["accounts:read".parse().unwrap()].into());
    let metadata = BTreeMap::from([("instance".to_owned(), "na47".to_owned())]);
    let authorization = Some("consent-2".to_owned());
    let new = NewAccount { scopes, metadata, authorization, ..granted(NAME, 2, "alice") };
    let second = vault.connect(new.clone()).await.unwrap();
    assert_eq!((second.generation, second.status.as_str()), (3, "frozen"), "a consent does not thaw it");
    assert_eq!(
        (&second.material, &second.scopes, &second.metadata, &second.authorization),
        (&new.material, &new.scopes, &new.metadata, &new.authorization)
    );

    let Material::Oauth(grant) = new.material.clone() else { panic!("it is a grant") };
    let unknown = Material::Oauth(Box::new(Grant { subject: None, ..*grant }));
    for other in [granted(NAME, 3, "mallory"), NewAccount { material: unknown, ..new.clone() }] {
        assert!(matches!(vault.connect(other).await, Err(Error::OtherSubject(_))));
    }
    assert_eq!(vault.account(&key(NAME)).await.unwrap().unwrap(), second);
}

async fn a_revoked_grant_keeps_who_consented(vault: &Vault) {
    connected(vault, NAME).await;
    let revoked = vault.revoke(&key(NAME)).await.unwrap();
    assert!(revoked.material.fields().is_empty());
    let Material::Oauth(grant) = &revoked.material else { panic!("it was a grant") };
    assert_eq!((&grant.refresh, grant.subject.as_deref()), (&None, Some("alice")));
    assert!(matches!(vault.connect(granted(NAME, 2, "mallory")).await, Err(Error::OtherSubject(_))));
    assert_eq!(vault.connect(granted(NAME, 2, "alice")).await.unwrap().status, Status::Active);
}
