//! Regular files that people name, read without waiting and not without end.
//!
//! Whoever writes the folder of a policy, or a file that is read again while the proxy runs, could put a pipe there, at
//! which a reader waits for ever, or a link to a device that has no end.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::libc;

/// How much is made room for where a file does not say how long it is.
const ROOM: u64 = 64 << 10;

/// The bytes of a regular file, of which there may be `most`.
///
/// # Errors
/// What opening or reading it says; that it is no regular file; that it is longer.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    bounded(open(path)?, most)
}

/// The text of a regular file, which may have `most` bytes.
///
/// # Errors
/// As [`read`], and that it is no UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    bounded_text(open(path)?, most)
}

/// Opens a regular file.
///
/// # Errors
/// What opening it says; that it is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe waits for its other end but for this; of a regular file it means nothing.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(irregular()), // a socket
        opened => opened?,
    };
    // What was opened is asked, and not the path, which may be something else by now.
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// All bytes of a file of whatever kind, of which there may be `most`. A pipe is waited for, so this is for what is
/// read once and by somebody who asked for it.
///
/// # Errors
/// What reading it says; that it is longer.
pub(crate) fn bounded(file: File, most: u64) -> io::Result<Vec<u8>> {
    // Room for all of it at once: a copy that growing leaves behind could be a secret.
    let room = file.metadata().ok().filter(Metadata::is_file).map_or(ROOM, |file| file.len()).min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or_default().saturating_add(1));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let says = format!("it is longer than {}", size(most));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, says));
    }
    Ok(bytes)
}

/// As [`bounded`], as text.
///
/// # Errors
/// As [`bounded`], and that it is no UTF-8.
pub(crate) fn bounded_text(file: File, most: u64) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8");
    String::from_utf8(bounded(file, most)?).map_err(not_text)
}

fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, process::Command};

    use super::*;

    #[test]
    fn what_has_no_end_or_is_waited_for_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", at("device")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["pipe", "device", "socket", "folder"] {
            let error = read(&at(name), 4 << 20).unwrap_err();
            assert_eq!(error.to_string(), "it is no regular file", "{name}");
        }
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![b'a'; 2048]).unwrap();
        assert_eq!(read_text(&path, 2048).unwrap().len(), 2048);
        assert_eq!(read(&path, 2047).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&path, 1024).unwrap_err().to_string(), "it is longer than 1 KiB");
        let endless = bounded(File::open("/dev/zero").unwrap(), 4 << 20).unwrap_err();
        assert_eq!(endless.to_string(), "it is longer than 4 MiB");
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 2048).unwrap_err().to_string(), "it is not text in UTF-8");
    }
}
