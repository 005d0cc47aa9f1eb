//! Rooms and floors: a module imports only from strictly lower floors; siblings are strangers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every module of the crate, floor by floor.
const FLOORS: &[&[&str]] = &[
    &["secret", "host", "id", "path", "cause", "document", "duration", "braces"],
    &["regular"],
    &["drain", "telemetry", "tls", "clients"],
    &["names"],
    &["dial", "fetch"],
    &["identity", "policy", "vault", "oauth", "audit"],
    &["catalog"],
    &["ruleset", "credential"],
    &["proxy", "broker", "admin", "admission", "redirect"],
    &["config"],
    &["app"],
    &["cli"],
];

#[test]
fn modules_import_only_from_lower_floors() {
    let floors = floors();
    let mut wrong = Vec::new();
    for (module, files) in modules() {
        for file in files {
            for import in imports(&fs::read_to_string(&file).unwrap()) {
                let lower =
                    floors.get(&*import).zip(floors.get(&*module)).is_some_and(|(to, from)| to < from);
                if import != module && !lower {
                    wrong.push(format!("{}: {module} imports {import}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let floors = floors();
    let without: Vec<String> =
        modules().into_keys().filter(|module| !floors.contains_key(&**module)).collect();
    assert_eq!(without, Vec::<String>::new(), "give them one in FLOORS");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{audit::{Audit, Event}, id, vault::Vault};\nuse crate::host::Host;\n\
                /// See [`crate::cli`].\nfn f() { crate::tls::init_crypto() }\npub(in crate::proxy) fn g() {}\n\
                use crate::{\n    drain::Drain,\n    // crate::admin\n    secret::{\n        Secret,\n    },\n};\n";
    let expected = ["audit", "id", "vault", "host", "tls", "proxy", "drain", "secret"];
    assert_eq!(imports(text), expected.map(str::to_owned).into_iter().collect());
}

fn floors() -> BTreeMap<&'static str, usize> {
    let numbered = FLOORS.iter().enumerate();
    numbered.flat_map(|(floor, modules)| modules.iter().map(move |module| (*module, floor))).collect()
}

/// The files of each module. `lib.rs` and `main.rs` are the house, not rooms of it.
fn modules() -> BTreeMap<String, Vec<PathBuf>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in rust_files(&src) {
        let first = file.strip_prefix(&src).unwrap().components().next().unwrap();
        let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if !["lib", "main"].contains(&module) {
            modules.entry(module.to_owned()).or_default().push(file);
        }
    }
    modules
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let nested = paths.map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    nested.flatten().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The modules that a file names by `crate::`, in imports or in code.
fn imports(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
    let code = code.join("\n");
    code.split("crate::").skip(1).flat_map(named).collect()
}

/// What follows `crate::`: one name, or the first names of a group.
fn named(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let mut depth = 0;
    let end = group.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth < 0
    });
    let mut depth = 0;
    let members = group[..end.unwrap()].split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    members.map(|member| word(member.trim_start())).filter(|name| !name.is_empty()).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
