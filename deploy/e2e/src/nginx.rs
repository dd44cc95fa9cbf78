//! A real nginx (Debian package `nginx-light`) that logs numbered lines, and real logrotate.
//!
//! nginx writes what a header of the request says, so that each line is one that the delivery's
//! tally can judge, while opening, writing and reopening the log are nginx's own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::lines::LineFormat;
use crate::ports;
use crate::process::Process;
use crate::tools::run;
use crate::wait::{DEADLINE, wait_until};

const NGINX: &str = "/usr/sbin/nginx";
const LOGROTATE: &str = "/usr/sbin/logrotate";
/// Requests on their way at a time, so that neither side's buffers fill up.
const PIPELINED: u64 = 50;
const ANSWER_ENDS: &[u8] = b"\r\n\r\n";

#[derive(Debug)]
pub struct Nginx {
    pub process: Process,
    pub log: PathBuf,
    format: LineFormat,
    folder: PathBuf,
    client: TcpStream,
    next_seq: u64,
}

impl Nginx {
    /// Logs to `log`, whose folder also holds its other files.
    pub fn start(log: &Path, format: LineFormat) -> anyhow::Result<Self> {
        let folder = log.parent().context("a log in a folder")?.join("nginx");
        fs::create_dir_all(&folder)?;
        let port = ports::free_port();
        let own = |name: &str| folder.join(name).display().to_string();
        let conf = format!(
            "daemon off;\nmaster_process off;\npid {pid};\nerror_log {error};\n\
             events {{ worker_connections 64; }}\n\
             http {{\n log_format line escape=none '$http_x_line';\n\
             client_body_temp_path {temp}; proxy_temp_path {temp}; fastcgi_temp_path {temp};\n\
             uwsgi_temp_path {temp}; scgi_temp_path {temp};\n\
             server {{ listen 127.0.0.1:{port}; keepalive_requests 10000000;\n\
             access_log {log} line; location / {{ return 204; }} }}\n}}\n",
            pid = own("pid"),
            error = own("error.log"),
            temp = own("temp"),
            log = log.display(),
        );
        fs::write(folder.join("nginx.conf"), conf)?;
        let mut command = Command::new(NGINX);
        command.arg("-c").arg(folder.join("nginx.conf"));
        let process = Process::spawn("nginx", command, &folder.join("out.log"))?;
        let client = wait_until("nginx to listen", DEADLINE, || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        client.set_read_timeout(Some(DEADLINE))?;
        Ok(Self {
            process,
            log: log.to_owned(),
            format,
            folder,
            client,
            next_seq: 0,
        })
    }

    pub fn written(&self) -> u64 {
        self.next_seq
    }

    /// So many requests; when it returns, nginx has answered them, and logs them before the next.
    pub fn serve(&mut self, lines: u64) -> anyhow::Result<()> {
        let mut left = lines;
        while left > 0 {
            let batch = left.min(PIPELINED);
            let mut requests = Vec::new();
            for seq in self.next_seq..self.next_seq + batch {
                requests.extend_from_slice(b"GET / HTTP/1.1\r\nHost: x\r\nX-Line: ");
                self.format.append_line(seq, &mut requests);
                requests.extend_from_slice(b"\r\n\r\n");
            }
            self.client.write_all(&requests)?;
            self.take_answers(batch)?;
            self.next_seq += batch;
            left -= batch;
        }
        Ok(())
    }

    fn take_answers(&mut self, count: u64) -> anyhow::Result<()> {
        let (mut answers, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let ends = answers
                .windows(ANSWER_ENDS.len())
                .filter(|window| *window == ANSWER_ENDS);
            if ends.count() as u64 == count {
                return Ok(());
            }
            let filled = self.client.read(&mut buffer)?;
            anyhow::ensure!(filled > 0, "nginx closed the connection");
            answers.extend_from_slice(&buffer[..filled]);
        }
    }

    /// Rotates the log once with these directives of logrotate, such as `create` or `copytruncate`.
    pub fn rotate(&self, directives: &str) -> anyhow::Result<()> {
        let conf = self.folder.join("logrotate.conf");
        let reopen = if directives.contains("copytruncate") {
            String::new()
        } else {
            format!(
                "postrotate\n kill -USR1 $(cat {})\nendscript\n",
                self.folder.join("pid").display()
            )
        };
        let text = format!(
            "{} {{\nrotate 20\nmissingok\n{directives}\n{reopen}}}\n",
            self.log.display()
        );
        fs::write(&conf, text)?;
        let mut command = Command::new(LOGROTATE);
        command.arg("--force").arg("--state");
        command.arg(self.folder.join("logrotate.state")).arg(&conf);
        let output = run(&mut command, "")?;
        anyhow::ensure!(
            output.stderr.is_empty(),
            "logrotate says: {}",
            output.stderr
        );
        output.ok()?;
        Ok(())
    }
}
