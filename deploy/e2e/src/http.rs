//! A blocking HTTP/1.1 client that shows everything: status, headers, body, and streams chunk by
//! chunk. Follows no redirect and hides no error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer silence means that nothing will come.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer whose body is still coming.
pub struct Streaming {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    source: BufReader<TcpStream>,
    body: Body,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Chunked,
    /// Bytes that are left.
    Sized(usize),
    UntilClose,
}

/// Sends a request and returns when the headers of the answer are here.
pub fn open(
    port: u16,
    verb: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Streaming> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut request = format!("{verb} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!(
        "Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    stream.write_all(request.as_bytes())?;
    let mut source = BufReader::new(stream);
    let line = read_line(&mut source)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("a status line, not {line:?}"))?;
    let headers = read_headers(&mut source)?;
    let named = |name: &str| headers.iter().find(|(known, _)| known == name);
    let body = if verb == "HEAD" {
        Body::Sized(0)
    } else if named("transfer-encoding").is_some_and(|(_, value)| value == "chunked") {
        Body::Chunked
    } else {
        match named("content-length") {
            Some((_, length)) => Body::Sized(length.parse()?),
            None => Body::UntilClose,
        }
    };
    Ok(Streaming {
        status,
        headers,
        source,
        body,
    })
}

/// Sends a request and reads the whole answer.
pub fn exchange(
    port: u16,
    verb: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Answer> {
    let mut streaming = open(port, verb, target, headers, body)?;
    let mut body = String::new();
    while let Some(piece) = streaming.piece()? {
        body.push_str(&piece);
    }
    Ok(Answer {
        status: streaming.status,
        headers: streaming.headers,
        body,
    })
}

impl Streaming {
    /// The next piece of the body as the server sent it; `None` at the end.
    pub fn piece(&mut self) -> anyhow::Result<Option<String>> {
        let size = match self.body {
            Body::Chunked => usize::from_str_radix(&read_line(&mut self.source)?, 16)?,
            Body::Sized(left) => {
                self.body = Body::Sized(0);
                left
            }
            Body::UntilClose => {
                let mut rest = String::new();
                self.source.read_to_string(&mut rest)?;
                self.body = Body::Sized(0);
                return Ok(Some(rest));
            }
        };
        if size == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; size];
        self.source.read_exact(&mut bytes)?;
        if matches!(self.body, Body::Chunked) {
            read_line(&mut self.source)?;
        }
        Ok(Some(String::from_utf8(bytes)?))
    }
}

fn read_headers(source: &mut impl BufRead) -> anyhow::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(source)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').context("a header")?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(source: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    source.read_line(&mut line)?;
    anyhow::ensure!(line.ends_with('\n'), "the connection ended in {line:?}");
    Ok(line.trim_end().to_owned())
}
