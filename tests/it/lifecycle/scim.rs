//! SCIM: bodies as Okta and Entra send them, and whoever has no token, or another tenant's.

use serde_json::{Value, json};

use super::{ALICE, BOB, Scene, Told, ends};

const ACME: &str = "kb-canary-scim-acme-0123456789abcdef0123";
const GLOBEX: &str = "kb-canary-scim-globex-0123456789abcdef01";

const CONFIG: &str = "  url: https://keybearer.acme.example
  scim:
    - {tenant: acme, token: {file: FILES/acme}}
    - {tenant: globex, token: {file: FILES/globex}}
";

const CREATES: [&str; 2] = [include_str!("okta-create.json"), include_str!("entra-create.json")];
const DISABLES: [&str; 4] = [
    include_str!("okta-deactivate.json"),
    include_str!("entra-disable.json"),
    include_str!("entra-disable-listed.json"),
    include_str!("entra-disable-with-members.json"),
];
const ENABLES: [&str; 2] = [include_str!("okta-activate.json"), include_str!("entra-enable.json")];
const PUT: &str = include_str!("okta-put.json");

async fn scene() -> Scene {
    Scene::set(CONFIG, &[("acme", ACME), ("globex", GLOBEX)]).await
}

async fn scim(scene: &Scene, token: &str, method: &str, path: &str, body: &str) -> Told {
    let head =
        format!("authorization: Bearer {token}\r\ncontent-type: application/scim+json; charset=utf-8\r\n");
    let told = scene.call(method, &format!("/scim/v2{path}"), &head, body).await;
    assert!(told.status == 204 || told.head.contains("content-type: application/scim+json"), "{told:?}");
    told
}

/// Creates a user, and returns their path.
async fn created(scene: &Scene, token: &str, body: &str) -> String {
    let told = scim(scene, token, "POST", "/Users", body).await;
    assert_eq!(told.status, 201, "{told:?}");
    format!("/Users/{}", told.body["id"].as_str().unwrap())
}

fn user(name: &str, active: bool) -> String {
    json!({"userName": name, "active": active}).to_string()
}

fn by_scim() -> (u16, Option<String>) {
    (403, Some("scim".to_owned()))
}

fn is_error(told: &Told, status: u16, scim_type: Option<&str>) {
    assert_eq!(told.status, status, "{told:?}");
    assert_eq!(told.body["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]), "{told:?}");
    assert_eq!(told.body["status"], status.to_string());
    assert_eq!(told.body.get("scimType").and_then(Value::as_str), scim_type, "{told:?}");
    assert!(!told.body["detail"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deactivated_user_is_refused_at_the_next_request_and_open_streams_end() {
    for create in CREATES {
        let scene = scene().await;
        let path = created(&scene, ACME, create).await;
        for (disable, enable) in DISABLES.iter().zip(ENABLES.iter().cycle()) {
            let stream = scene.stream(ALICE).await;
            let told = scim(&scene, ACME, "PATCH", &path, disable).await;
            assert_eq!((told.status, &told.body["active"]), (200, &json!(false)), "{disable}: {told:?}");
            assert_eq!(scene.asked("acme", ALICE).await, by_scim(), "{disable}");
            ends(stream).await;
            assert_eq!(scene.asked("acme", BOB).await.0, 200);
            assert_eq!(scene.asked("globex", ALICE).await.0, 200);
            let told = scim(&scene, ACME, "PATCH", &path, enable).await;
            assert_eq!((told.status, &told.body["active"]), (200, &json!(true)), "{told:?}");
            assert_eq!(scene.asked("acme", ALICE).await.0, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_replaced_removed_and_made_again() {
    let mut scene = scene().await;
    let path = created(&scene, ACME, CREATES[0]).await;
    let inactive = PUT.replace("\"active\": true", "\"active\": false");
    let told = scim(&scene, ACME, "PUT", &path, &inactive).await;
    assert_eq!((told.status, &told.body["name"]["middleName"]), (200, &json!("Pleasance")), "{told:?}");
    assert_eq!(scene.asked("acme", ALICE).await, by_scim());
    let silent = PUT.replace("\"active\": true,", "");
    assert_eq!(scim(&scene, ACME, "PUT", &path, &silent).await.body["active"], false);
    assert_eq!(scene.asked("acme", ALICE).await, by_scim(), "who says nothing of it does not activate");
    assert_eq!(scim(&scene, ACME, "PUT", &path, PUT).await.status, 200);
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);

    let stream = scene.stream(ALICE).await;
    assert_eq!(scim(&scene, ACME, "DELETE", &path, "").await.status, 204);
    assert_eq!(scene.asked("acme", ALICE).await, by_scim());
    ends(stream).await;
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        is_error(&scim(&scene, ACME, method, &path, PUT).await, 404, None);
    }
    scene.stage.restart(|_| ()).await;
    assert_eq!(scene.asked("acme", ALICE).await, by_scim());
    created(&scene, ACME, CREATES[0]).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_lifts_only_what_scim_froze() {
    let scene = scene().await;
    let path = created(&scene, ACME, CREATES[0]).await;
    let vault = &scene.stage.app().vault;
    let alice = keybearer::vault::Whole::of_user(&"acme".parse().unwrap(), &ALICE.parse().unwrap());
    let (source, since) = (keybearer::vault::Source::Operator, jiff::Timestamp::now());
    vault.hold(&alice, keybearer::vault::Hold { source, by: "ops".to_owned(), since }).await.unwrap();
    assert_eq!(scim(&scene, ACME, "PATCH", &path, DISABLES[0]).await.status, 200);
    assert_eq!(vault.holds_of(&alice).await.unwrap().len(), 2);
    assert_eq!(scim(&scene, ACME, "PATCH", &path, ENABLES[0]).await.status, 200);
    let holds = vault.holds_of(&alice).await.unwrap();
    assert_eq!(holds.iter().map(|hold| hold.by.as_str()).collect::<Vec<_>>(), ["ops"]);
    assert_eq!(scene.asked("acme", ALICE).await, (403, Some("ops".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_renamed_is_frozen_under_the_old_name_too_until_another_takes_it() {
    let scene = scene().await;
    let path = created(&scene, ACME, &user(ALICE, true)).await;
    assert_eq!(scim(&scene, ACME, "PUT", &path, &user("alicia@acme.example", true)).await.status, 200);
    assert_eq!(scim(&scene, ACME, "PATCH", &path, DISABLES[0]).await.status, 200);
    assert_eq!(scene.asked("acme", ALICE).await, by_scim());
    created(&scene, ACME, &user(ALICE, true)).await;
    assert_eq!(scene.asked("acme", ALICE).await.0, 200, "the new user of this name is another one");
    assert_eq!(scim(&scene, ACME, "PATCH", &path, DISABLES[0]).await.status, 200);
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_and_listed_page_by_page() {
    let scene = scene().await;
    let path = created(&scene, ACME, CREATES[0]).await;
    for name in ["b", "c", "d"] {
        created(&scene, ACME, &user(name, true)).await;
    }
    let ask = async |query: &str| scim(&scene, ACME, "GET", &format!("/Users{query}"), "").await.body;
    let found = ask("?filter=userName%20eq%20%22ALICE%40acme.example%22&startIndex=1&count=100").await;
    assert_eq!(found["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:ListResponse"]));
    assert_eq!(
        (&found["totalResults"], &found["itemsPerPage"], &found["startIndex"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let alice = &found["Resources"][0];
    assert_eq!(format!("/Users/{}", alice["id"].as_str().unwrap()), path);
    assert_eq!(alice["meta"]["location"], format!("https://keybearer.acme.example/scim/v2{path}"));
    assert_eq!(alice.get("password"), None);
    assert_eq!(scim(&scene, ACME, "GET", &path, "").await.body, *alice);
    let by_id = ask("?filter=externalId+eq+%2200ujl29u0le5T6Aj10h7%22").await;
    assert_eq!(by_id["Resources"][0], *alice);
    assert_eq!(ask("?filter=userName+eq+%22nobody%22").await["totalResults"], 0);
    let names = |page: &Value| {
        let all = page["Resources"].as_array().unwrap();
        all.iter().map(|user| user["userName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&ask("").await), [ALICE, "b", "c", "d"]);
    let page = ask("?startIndex=2&count=2").await;
    assert_eq!((names(&page), &page["totalResults"]), (vec!["b".to_owned(), "c".to_owned()], &json!(4)));
    assert_eq!(names(&ask("?startIndex=4&count=2").await), ["d"]);
    assert_eq!(names(&ask("?startIndex=9").await), Vec::<String>::new());
    assert_eq!(names(&ask("?startIndex=-1&count=-1").await), Vec::<String>::new());
    assert_eq!(names(&ask("?startIndex=0&count=1").await), [ALICE]);
    for (query, scim_type) in
        [("?filter=name.givenName+co+%22x%22", "invalidFilter"), ("?startIndex=first", "invalidValue")]
    {
        is_error(&scim(&scene, ACME, "GET", &format!("/Users{query}"), "").await, 400, Some(scim_type));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_user_or_change_is_refused_in_scims_own_words() {
    let scene = scene().await;
    let path = created(&scene, ACME, CREATES[0]).await;
    let changes = |operation: Value| json!({"Operations": [operation]}).to_string();
    for (method, to, body, status, scim_type) in [
        ("POST", "/Users", CREATES[0].to_owned(), 409, Some("uniqueness")),
        ("POST", "/Users", user(&ALICE.to_uppercase(), true), 409, Some("uniqueness")),
        ("POST", "/Users", "{".to_owned(), 400, Some("invalidSyntax")),
        ("POST", "/Users", "[]".to_owned(), 400, Some("invalidSyntax")),
        ("POST", "/Users", "{}".to_owned(), 400, Some("invalidValue")),
        ("POST", "/Users", r#"{"userName": "x", "active": "perhaps"}"#.to_owned(), 400, Some("invalidValue")),
        (
            "PATCH",
            &path,
            changes(json!({"op": "replace", "path": "active", "value": 0})),
            400,
            Some("invalidValue"),
        ),
        ("PATCH", &path, changes(json!({"op": "remove"})), 400, Some("noTarget")),
        (
            "PATCH",
            &path,
            changes(json!({"op": "replace", "path": "a b", "value": 1})),
            400,
            Some("invalidPath"),
        ),
        (
            "PATCH",
            &path,
            changes(json!({"op": "replace", "path": "id", "value": "1"})),
            400,
            Some("mutability"),
        ),
        ("PATCH", "/Users/0198c0de-0000-7000-8000-000000000000", DISABLES[0].to_owned(), 404, None),
        ("GET", "/Users/nobody", String::new(), 404, None),
        ("GET", "/Groups", String::new(), 404, None),
        ("POST", "/Bulk", "{}".to_owned(), 404, None),
        ("DELETE", "/Users", String::new(), 405, None),
    ] {
        is_error(&scim(&scene, ACME, method, to, &body).await, status, scim_type);
    }
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_can_do() {
    let scene = scene().await;
    let get = async |path: &str| scim(&scene, ACME, "GET", path, "").await.body;
    assert_eq!(get("/ServiceProviderConfig").await["patch"]["supported"], true);
    assert_eq!(get("/ResourceTypes").await["Resources"][0]["name"], "User");
    assert_eq!(get("/ResourceTypes/User").await["endpoint"], "/Users");
    assert_eq!(get("/Schemas").await["totalResults"], 2);
    let user = get("/Schemas/urn:ietf:params:scim:schemas:core:2.0:User").await;
    assert_eq!(user["attributes"][0]["name"], "userName");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_tenants_token_nothing_is_told_and_nothing_changes() {
    let scene = scene().await;
    let path = created(&scene, ACME, CREATES[0]).await;
    for head in [
        String::new(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: Basic {ACME}\r\n"),
        format!("authorization: Bearer {}\r\n", &ACME[1..]),
        format!("authorization: Bearer {ACME}x\r\n"),
        format!("authorization: Bearer {ACME}\r\nauthorization: Bearer {GLOBEX}\r\n"),
    ] {
        for (method, to) in [
            ("PATCH", path.as_str()),
            ("DELETE", &path),
            ("GET", &path),
            ("GET", "/Users"),
            ("GET", "/Schemas"),
        ] {
            let told = scene.call(method, &format!("/scim/v2{to}"), &head, DISABLES[0]).await;
            is_error(&told, 401, None);
            assert!(told.head.contains("www-authenticate: bearer"), "{told:?}");
        }
    }
    // Another tenant's token is as good as none for this user, and does not say that there is one.
    for (method, body) in [("GET", ""), ("PATCH", DISABLES[0]), ("PUT", PUT), ("DELETE", "")] {
        is_error(&scim(&scene, GLOBEX, method, &path, body).await, 404, None);
    }
    assert_eq!(scim(&scene, GLOBEX, "GET", "/Users", "").await.body["totalResults"], 0);
    created(&scene, GLOBEX, &user(ALICE, false)).await;
    assert_eq!(scene.asked("globex", ALICE).await, by_scim());
    assert_eq!(scene.asked("acme", ALICE).await.0, 200);
    let told = scene.told().await;
    let expected = [
        format!("scim.user_added acme {ALICE}"),
        format!("user.frozen globex {ALICE}"),
        format!("scim.user_added globex {ALICE}"),
    ];
    assert_eq!(told, expected);
    let events = scene.stage.events().await;
    let recorded = events.iter().filter(|event| event["event"] == "scim.refused").count();
    assert!((10..30).contains(&recorded), "{recorded} of thirty");
}
