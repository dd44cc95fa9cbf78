//! Asks the agent that runs on a data folder. A whole HTTP client would be much for one GET.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemas::fleet::AgentStatus;

use super::SOCKET_NAME;

/// The agent itself gives up after 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A hundred thousand files need some tens of megabytes.
const ANSWER_MAX_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no agent runs on {path}: start it, or name its folder with --data-dir", path = path.display())]
    NotRunning { path: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    Socket {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the agent answered {0:?}")]
    Refused(String),
    #[error("the agent's answer cannot be understood: {0}")]
    Answer(#[from] serde_json::Error),
}

/// The status document of the agent that runs on this folder.
pub fn status(data_dir: &Path) -> Result<AgentStatus, AskError> {
    let path = data_dir.join(SOCKET_NAME);
    let failed = |source| AskError::Socket {
        path: path.clone(),
        source,
    };
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        // Refused: the socket of an agent that was killed.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(AskError::NotRunning {
                path: data_dir.to_owned(),
            });
        }
        Err(error) => return Err(failed(error)),
    };
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(failed)?;
    stream
        .write_all(b"GET /status HTTP/1.0\r\nHost: agent\r\n\r\n")
        .map_err(failed)?;
    let mut answer = Vec::new();
    // HTTP/1.0: the connection's end is the body's end.
    stream
        .take(ANSWER_MAX_BYTES)
        .read_to_end(&mut answer)
        .map_err(failed)?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n");
    let (head, body) = match end {
        Some(end) => (&answer[..end], &answer[end + 4..]),
        None => (&answer[..], &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        let body = String::from_utf8_lossy(body);
        return Err(AskError::Refused(format!("{first} {}", body.trim())));
    }
    Ok(serde_json::from_slice(body)?)
}
