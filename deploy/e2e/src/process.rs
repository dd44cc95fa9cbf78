//! One child process with its log file; ends with its guard.
//!
//! Knows signals and exit codes, not what the programs do.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

/// Bytes of each log that a failed wait shows.
const TAIL_BYTES: u64 = 3_000;

/// Processes that are alive now, for the one case in which no guard runs: Ctrl-C.
static ALIVE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

thread_local! {
    /// Name and log of each process that this thread, hence this test, has started.
    static STARTED: RefCell<Vec<(String, PathBuf)>> = const { RefCell::new(Vec::new()) };
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts the command with both of its outputs appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        ALIVE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(child.id());
        STARTED.with_borrow_mut(|started| {
            if !started.iter().any(|(_, known)| known == log) {
                started.push((name.to_owned(), log.to_owned()));
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            exited: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the process and its predecessors with the same log have written.
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The exit status, when the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.forget();
            self.exited = Some(status);
        }
        self.exited
    }

    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("{} (pid {}) to end", self.name, self.pid());
        wait_until(&what, deadline, || self.exit_status())
    }

    /// SIGKILL: no chance to tidy up. Returns when the process is gone.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            self.signal(Signal::KILL)?;
            self.wait_exit(crate::DEADLINE)?;
        }
        Ok(())
    }

    /// SIGTERM, then waits for the exit.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
        }
        self.wait_exit(crate::DEADLINE)
    }

    /// SIGSTOP: the process stays, but does nothing.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.is_running(),
            "{} has ended already: {:?}",
            self.name,
            self.exited
        );
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child has a positive process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    fn forget(&self) {
        let pid = self.pid();
        ALIVE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|&alive| alive != pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // Failing to kill or reap means that it has ended meanwhile.
            drop(self.child.kill());
            drop(self.child.wait());
            self.forget();
        }
    }
}

/// Kills every child of this process. For signal handlers, which run no guards.
pub fn kill_all() {
    for pid in ALIVE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended a moment ago; then there is nothing to kill.
            kill_process(pid, Signal::KILL).unwrap_or_default();
        }
    }
}

/// The ends of the logs of this thread's processes, for the message of a failed test.
pub fn tails_of_this_thread() -> String {
    STARTED.with_borrow(|started| {
        let mut text = String::new();
        for (name, log) in started {
            text.push_str(&format!("--- {name}: end of {}\n", log.display()));
            text.push_str(&tail(log).unwrap_or_else(|error| format!("({error})")));
            text.push('\n');
        }
        text
    })
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
