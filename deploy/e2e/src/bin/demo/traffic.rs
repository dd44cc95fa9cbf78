//! A thread that writes numbered lines into both files at a steady rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::LineWriter;

/// How often lines are written.
const TICK: Duration = Duration::from_millis(10);

/// The two writers, shared with the thread that drives them.
#[derive(Debug)]
pub(crate) struct Traffic {
    writers: Arc<Mutex<Vec<LineWriter>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Traffic {
    pub(crate) fn start(writers: Vec<LineWriter>, lines_per_s: u64) -> Self {
        let writers = Arc::new(Mutex::new(writers));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (writers, stop) = (Arc::clone(&writers), Arc::clone(&stop));
            move || write(&writers, &stop, lines_per_s)
        });
        Self {
            writers,
            stop,
            thread: Some(thread),
        }
    }

    /// The writers, held still while the guard lives.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Vec<LineWriter>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written(&self, file: usize) -> u64 {
        self.hold()[file].written()
    }

    /// Stops writing; an error is one that the thread met.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => anyhow::bail!("the writer panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(
    writers: &Mutex<Vec<LineWriter>>,
    stop: &AtomicBool,
    lines_per_s: u64,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * lines_per_s as f64) as u64;
        for writer in writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter_mut()
        {
            writer.write(due - done)?;
        }
        done = due;
        std::thread::sleep(TICK);
    }
    Ok(())
}
