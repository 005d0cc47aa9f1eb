//! A container, for real: the root file system that the Dockerfile's last stage makes, with the program linked as there,
//! in a network of its own. What a container runtime adds is added: `/proc`, devices, the two files of names, a folder
//! with the configuration, and the volumes. All else can only be read.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command as Synchronous, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use keybearer::drain::Drain;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
};

use super::{
    evidence,
    netns::{NameServer, Namespace},
    pod::{POD, WORLD, join, skipped, wire},
    postgres::Postgres,
};

/// Enters the root, as its arguments say: root, user, variables, and the program with its arguments.
const ENTER: &str = "set -e; root=$1; user=$2; variables=$3; shift 3; chroot=$(command -v chroot)
mount --bind \"$root\" \"$root\"
for volume in data tmp; do mount --bind \"$root/$volume\" \"$root/$volume\"; done
mount -o remount,bind,ro \"$root\"
mount -t proc proc \"$root/proc\"
for device in null random urandom; do mount --bind /dev/$device \"$root/dev/$device\"; done
exec env -i $variables \"$chroot\" --userspec=\"$user\" \"$root\" \"$@\"";

/// A container before anything runs in it.
pub(crate) struct Container {
    pub(crate) net: Namespace,
    pub(crate) world: Namespace,
    root: TempDir,
    image: Image,
    _names: NameServer,
}

/// What the Dockerfile says of the image but its files.
struct Image {
    user: String,
    variables: Vec<String>,
    program: String,
}

impl Container {
    /// One whose world has these names. `None`, and a line that says why, where we may make no namespaces.
    pub(crate) fn new(names: &[(&str, &[&str])], resolv_conf: &str, hosts: &str) -> Option<Self> {
        let made = Namespace::new("container").and_then(|net| Ok((net, Namespace::new("world")?)));
        let (net, world) = match made {
            Ok(both) => both,
            Err(why) => {
                skipped("image", &why);
                return None;
            }
        };
        wire(&world);
        join(&net, &world, "container", POD);
        let names = world.name_server(names);
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let image = unpack(root.path());
        for folder in ["proc", "dev", "etc/keybearer/policies"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for device in ["null", "random", "urandom"] {
            fs::write(root.path().join("dev").join(device), "").unwrap();
        }
        let container = Self { net, world, root, image, _names: names };
        container.write("etc/resolv.conf", resolv_conf);
        container.write("etc/hosts", hosts);
        Some(container)
    }

    /// Writes a file that is mounted into the container.
    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// A file as it is called from outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Every file in the root but in the volumes.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.root.path(), "", &mut found);
        found.sort();
        found
    }

    /// The image's program with these arguments.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.net.name(), "unshare", "--mount", "sh", "-c", ENTER, "sh"]);
        command.arg(self.root.path()).arg(&self.image.user).arg(self.image.variables.join(" "));
        command.arg(&self.image.program).args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end: whether it went well, and what it said.
    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input.as_bytes()).await; // a command that fails early has closed its end already
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        evidence::keep("log", &said);
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// Runs a command, and it must go well.
    pub(crate) async fn done(&self, arguments: &[&str], input: &str) -> String {
        let (is_done, said) = self.run(arguments, input).await;
        assert!(is_done, "{arguments:?}\n{said}");
        said
    }

    /// Starts the proxy with these options, and waits until it serves.
    pub(crate) async fn proxy(&self, options: &[&str]) -> Running {
        let mut child = self.command(&[&["proxy"], options].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("agents at") {
            let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it did not start: {said}"));
            said.push_str(&line);
        }
        let log = Arc::new(Mutex::new(said));
        let more = Arc::clone(&log);
        Drain::default().detach(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                more.lock().unwrap().push_str(&line);
            }
        });
        Running { log, _child: child }
    }

    /// A connection from inside the container's network.
    pub(crate) fn connect(&self, address: &str) -> TcpStream {
        self.net.connect(address).unwrap()
    }

    /// A database of the shared server, which the world has at its own address: the URL over `host`.
    pub(crate) async fn database(&self, host: &str) -> String {
        let listener = self.world.listener(&format!("{}:5432", WORLD[0]));
        let url = Postgres::shared().database().await;
        let (address, folder) = url.split_once("?host=").unwrap();
        let socket = PathBuf::from(folder).join(".s.PGSQL.5432");
        Drain::default().detach(async move {
            while let Ok((mut theirs, _)) = listener.accept().await {
                let mut ours = UnixStream::connect(&socket).await.unwrap();
                Drain::default().detach(async move {
                    let _ = tokio::io::copy_bidirectional(&mut theirs, &mut ours).await; // whoever ends it
                });
            }
        });
        format!("{}?sslmode=disable", address.replace("@/", &format!("@{host}/")))
    }
}

/// A proxy in its container; it is killed when dropped.
pub(crate) struct Running {
    log: Arc<Mutex<String>>,
    _child: Child,
}

impl Running {
    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        evidence::keep("log", self.log().as_bytes());
    }
}

/// Makes what the Dockerfile's last stage makes.
fn unpack(root: &Path) -> Image {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    let (_, stage) = text.rsplit_once("\nFROM scratch\n").expect("the image begins with nothing");
    let mut image = Image { user: String::new(), variables: Vec::new(), program: String::new() };
    for line in stage.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["COPY", "--from=build", rest @ ..] => copy(root, rest),
            ["ENV", variable] => image.variables.push((*variable).to_owned()),
            ["USER", user] => (*user).clone_into(&mut image.user),
            ["ENTRYPOINT", program] => program.trim_matches(['[', ']', '"']).clone_into(&mut image.program),
            _ => {}
        }
    }
    image
}

/// One COPY, with what the stage before makes under `/out`.
fn copy(root: &Path, words: &[&str]) {
    let (owner, [from, to]) = match words {
        [owner, from, to] => (owner.strip_prefix("--chown=").unwrap().split_once(':'), [*from, *to]),
        [from, to] => (None, [*from, *to]),
        other => panic!("{other:?}"),
    };
    let target = root.join(to.trim_start_matches('/'));
    match from.strip_prefix("/out/").unwrap() {
        "keybearer" => {
            fs::hard_link(program(), &target).or_else(|_| fs::copy(program(), &target).map(drop)).unwrap();
        }
        "sbom.json" => fs::write(&target, "{}").unwrap(),
        _ => fs::create_dir(&target).unwrap(),
    }
    if let Some((user, group)) = owner {
        chown(&target, Some(user.parse().unwrap()), Some(group.parse().unwrap())).unwrap();
    }
}

/// The program that is tested here, linked once more, with nothing left to load.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let linked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keybearer-static");
        let draft = linked.with_extension(std::process::id().to_string());
        let objects = Path::new(env!("CARGO_BIN_EXE_keybearer")).with_file_name("deps");
        let mut rustc = Synchronous::new("rustc");
        rustc.current_dir(env!("CARGO_MANIFEST_DIR")).args(["--edition=2024", "--crate-name=keybearer"]);
        rustc.args(["-Ctarget-feature=+crt-static", "-Cstrip=debuginfo", "src/main.rs", "-o"]).arg(&draft);
        rustc.arg("-L").arg(format!("dependency={}", objects.display()));
        rustc.arg("--extern").arg(format!("keybearer={}", library(&objects).display()));
        let output = rustc.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(draft, &linked).unwrap(); // that of the last run may still be used by another one
        linked
    })
}

/// The library that the program beside it was linked with: the last one that was made before it.
fn library(objects: &Path) -> PathBuf {
    let age = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let linked = age(Path::new(env!("CARGO_BIN_EXE_keybearer")));
    let files = fs::read_dir(objects).unwrap().map(|entry| entry.unwrap().path());
    let libraries = files.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libkeybearer-") && name.ends_with(".rlib") && age(path) <= linked
    });
    libraries.max_by_key(|path| age(path)).expect("cargo has made it")
}

fn walk(root: &Path, folder: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let path = PathBuf::from(folder).join(entry.unwrap().file_name()).display().to_string();
        if !root.join(&path).is_dir() {
            found.push(path);
        } else if !["data", "tmp", "proc"].contains(&path.as_str()) {
            walk(root, &path, found);
        }
    }
}
