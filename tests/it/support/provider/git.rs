//! Git's smart HTTP, by git's own server (`git http-backend`, a CGI program) on bare repositories.
//!
//! The backend decides about chunked and gzip'd request bodies itself: no `CONTENT_LENGTH` means read to the end.

use std::{io, path::Path, process::Stdio};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderName, HeaderValue, StatusCode, request::Parts};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{Shared, access::Tenant};

/// Makes a bare repository with one commit on `main`, as `root/<name>.git`.
pub(crate) async fn seed(root: &Path, name: &str) {
    let bare = root.join(format!("{name}.git"));
    std::fs::create_dir_all(&bare).unwrap();
    let script = "git init -q --bare -b main . && tree=$(git mktree </dev/null) && \
                  commit=$(git -c user.name=seed -c user.email=seed@example.test commit-tree -m seed $tree) && \
                  git update-ref refs/heads/main $commit";
    let status = git(root, "sh").args(["-c", script]).current_dir(&bare).status().await.unwrap();
    assert!(status.success(), "cannot seed {}", bare.display());
}

/// Runs one request through the backend. Whoever authenticated may push.
pub(super) async fn serve(
    State(shared): State<Shared>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    request: Request,
) -> Response {
    if !request.uri().path().contains(".git/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (head, body) = request.into_parts();
    match run(&shared, &head, body, &tenant).await {
        Ok(answer) => answer,
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("git http-backend: {error}\n")).into_response()
        }
    }
}

async fn run(shared: &Shared, head: &Parts, body: Body, tenant: &str) -> io::Result<Response> {
    let mut child = backend(shared.git_root.path(), head, tenant).spawn()?;
    let stdin = child.stdin.take().expect("piped");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    shared.drain.spawn(feed(stdin, body));
    let answer = cgi_head(&mut stdout).await?;
    answer.body(Body::from_stream(rest(child, stdout))).map_err(io::Error::other)
}

fn backend(root: &Path, head: &Parts, tenant: &str) -> Command {
    let mut command = git(root, "git");
    command.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", tenant)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = head.headers.get(header).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    command
}

/// A command that sees no configuration but the repository's own.
fn git(root: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", root).env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

async fn feed(mut stdin: ChildStdin, body: Body) -> io::Result<()> {
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        stdin.write_all(&chunk.map_err(io::Error::other)?).await?;
    }
    stdin.shutdown().await
}

/// The CGI response's header block (RFC 3875 §6).
async fn cgi_head(stdout: &mut BufReader<ChildStdout>) -> io::Result<http::response::Builder> {
    let mut answer = Response::builder();
    let mut line = String::new();
    loop {
        line.clear();
        if stdout.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(answer) };
        let value = value.trim();
        answer = if name.eq_ignore_ascii_case("status") {
            answer.status(value.split(' ').next().unwrap_or(value))
        } else {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
            answer.header(name, HeaderValue::from_str(value).map_err(io::Error::other)?)
        };
    }
}

/// What the backend still says; the child lives as long as its answer is read.
fn rest(child: Child, stdout: BufReader<ChildStdout>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((child, stdout), |(mut child, mut stdout)| async move {
        let mut chunk = BytesMut::with_capacity(64 * 1024);
        if stdout.read_buf(&mut chunk).await? == 0 {
            child.wait().await?;
            return Ok(None);
        }
        Ok(Some((chunk.freeze(), (child, stdout))))
    })
}
