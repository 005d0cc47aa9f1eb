//! `admin.sock`: the admin API for the user who runs the proxy, and nobody else.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use axum::Router;
use tokio::net::UnixListener;

use super::{
    Desk, Error,
    http::{api, elsewhere, nothing_here},
    server,
};
use crate::drain::Drain;

/// The longest path of a socket, in bytes: `sun_path` has 108, one of which ends it.
pub(super) const LONGEST: usize = 107;

/// A socket that nobody else can open. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the file.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // the next one to bind replaces it anyhow
    }
}

impl Socket {
    /// Makes the socket, in place of one that a killed proxy left.
    ///
    /// # Errors
    /// [`Error::SocketPath`], [`Error::SocketTaken`], [`Error::Socket`].
    pub fn bind(path: &Path) -> Result<Self, Error> {
        check_length(path)?;
        check_stale(path)?;
        let failed = |source| Error::Socket { attempt: "make", path: path.to_owned(), source };
        let listener = bind_private(path).map_err(failed)?;
        Ok(Self { listener, file: SocketFile(path.to_owned()) })
    }

    /// Serves until the drain begins.
    pub fn serve(self, desk: Desk, drain: &Drain) {
        self.serves(api(desk), drain);
    }

    /// Says to everybody that this broker has the accounts, until the drain begins.
    pub fn serve_at_broker(self, broker: &str, drain: &Drain) {
        self.serves(elsewhere(broker), drain);
    }

    fn serves(self, api: Router, drain: &Drain) {
        let served = server::serve(self.listener, api.fallback(nothing_here), drain.clone());
        let file = self.file;
        drain.spawn(async move {
            served.await;
            drop(file);
        });
    }
}

/// Whether a socket can have this path.
///
/// # Errors
/// [`Error::SocketPath`].
pub(super) fn check_length(path: &Path) -> Result<(), Error> {
    if path.as_os_str().len() > LONGEST {
        return Err(Error::SocketPath(path.to_owned()));
    }
    Ok(())
}

fn check_stale(path: &Path) -> Result<(), Error> {
    let taken = |why| Err(Error::SocketTaken { path: path.to_owned(), why });
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => taken("it is another kind of file"),
        Ok(_) if UnixStream::connect(path).is_ok() => taken("a process answers there"),
        _ => Ok(()), // what else is wrong with the path, binding will tell
    }
}

/// Binds where nobody else can go yet, then moves the socket into place: between `bind` and `chmod` it would
/// be open to whom the umask says.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let private = folder.join(".a");
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::remove_dir_all(&private)?,
        made => made?,
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&private).and_then(|()| {
        let inside = private.join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    let _ = fs::remove_dir_all(&private); // empty, and replaced the next time
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_users_alone_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(Error::SocketTaken { .. })));
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_proxy_left_is_replaced_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path).unwrap());
        fs::write(&path, "mine").unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::SocketTaken { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_told_as_that() {
        let path = PathBuf::from("/".to_owned() + &"d".repeat(LONGEST));
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("longer than 107 bytes: set a shorter data_dir"), "{error}");
    }
}
