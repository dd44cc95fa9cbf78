//! Twenty times kill -9 of the center under load: what was acknowledged is there afterwards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use e2e::{Center, DEADLINE, wait_until};

const KILLS: usize = 20;
const PUTTERS: usize = 8;
/// Acknowledged puts that each life of the center must see before it is killed.
const PUTS_PER_LIFE: usize = 60;

#[test]
fn acknowledged_puts_survive_kills_of_the_center() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut center = Center::start(work.path())?;
    // Key to the revision that its put was acknowledged with.
    let acknowledged: Arc<Mutex<HashMap<String, i64>>> = Arc::default();
    let highest = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut putters = Vec::new();
    for putter in 0..PUTTERS {
        let store = center.store()?;
        let (acknowledged, highest) = (Arc::clone(&acknowledged), Arc::clone(&highest));
        let stop = Arc::clone(&stop);
        putters.push(thread::spawn(move || {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let key = format!("load/{putter}/{number:08}");
                number += 1;
                match store.put(&key, key.as_bytes()) {
                    Ok(revision) => {
                        highest.fetch_max(revision, Ordering::Relaxed);
                        acknowledged.lock().unwrap().insert(key, revision);
                    }
                    // Down: the put may or may not have happened.
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        }));
    }
    let store = center.store()?;
    for kill in 0..KILLS {
        let before = acknowledged.lock().unwrap().len();
        wait_until("puts to be acknowledged", DEADLINE, || {
            (acknowledged.lock().unwrap().len() >= before + PUTS_PER_LIFE).then_some(())
        })?;
        center.process.kill9()?;
        let promised = highest.load(Ordering::Relaxed);
        center.restart()?;
        let (_, revision) = store.get_from("load/")?;
        assert!(
            revision >= promised,
            "kill {kill}: revision {revision} after {promised}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for putter in putters {
        putter.join().expect("a putter does not panic");
    }
    // One last kill, with nothing under way: the state must be the same before and after.
    let before = store.get_from("load/")?;
    center.process.kill9()?;
    center.restart()?;
    let after = store.get_from("load/")?;
    assert_eq!(before, after);
    let found: HashMap<_, _> = after
        .0
        .iter()
        .map(|pair| (pair.key.clone(), pair))
        .collect();
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() >= KILLS * PUTS_PER_LIFE);
    let mut revisions: Vec<_> = after.0.iter().map(|pair| pair.mod_revision).collect();
    for (key, &revision) in acknowledged.iter() {
        let pair = found.get(key.as_bytes());
        let pair = pair.unwrap_or_else(|| panic!("{key} was acknowledged at {revision}, and lost"));
        assert_eq!(pair.value, key.as_bytes());
        assert_eq!(pair.mod_revision, revision, "{key}");
    }
    revisions.sort_unstable();
    assert!(
        revisions.windows(2).all(|pair| pair[0] < pair[1]),
        "a revision was given twice"
    );
    println!(
        "{} acknowledged puts over {KILLS} kills are there",
        acknowledged.len()
    );
    Ok(())
}
