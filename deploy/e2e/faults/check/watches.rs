//! What watchers were told, against the history: in order, once, all events of a revision together,
//! none missing, also across resumptions on other members.

use crate::history::{Event, History};

/// One response of a watch.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) at_ns: u64,
    /// The store's revision in the header; a response without events promises that everything up to
    /// it was delivered.
    pub(crate) revision: i64,
    pub(crate) events: Vec<Event>,
}

/// All that one watcher was told, over all members that it asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) first_revision: i64,
    pub(crate) batches: Vec<Batch>,
}

/// One sentence for the first thing that is wrong with each watcher.
pub(crate) fn check(watchers: &[Watched], history: &History) -> Vec<String> {
    let wrong = |watched: &Watched| {
        let reason = judge(watched, history).err()?;
        Some(format!("watcher {}: {reason}", watched.name))
    };
    watchers.iter().filter_map(wrong).collect()
}

fn judge(watched: &Watched, history: &History) -> Result<(), String> {
    let mut delivered = watched.first_revision - 1;
    let from = history
        .events
        .partition_point(|e| e.revision < watched.first_revision);
    let mut expected = history.events[from..].iter();
    for batch in &watched.batches {
        let Some(last) = batch.events.last() else {
            // A promise: the next event that the history has must lie above it.
            if let Some(next) = expected.as_slice().first()
                && next.revision <= batch.revision
            {
                return Err(format!(
                    "told that all up to {} was delivered, before {next:?}",
                    batch.revision
                ));
            }
            continue;
        };
        if batch.revision < last.revision {
            return Err(format!(
                "a header of revision {} with {last:?}",
                batch.revision
            ));
        }
        let first = &batch.events[0];
        if first.revision == delivered {
            return Err(format!("revision {delivered} came in two responses"));
        }
        if first.revision < delivered {
            return Err(format!("{first:?} after revision {delivered}"));
        }
        for event in &batch.events {
            match expected.next() {
                Some(next) if next == event => {}
                Some(next) => return Err(format!("{event:?} where {next:?} was due")),
                None => return Err(format!("{event:?}, which never happened")),
            }
        }
        if let Some(rest) = expected.as_slice().first()
            && rest.revision == last.revision
        {
            return Err(format!("{last:?} without {rest:?} of the same revision"));
        }
        delivered = last.revision;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sample::{delete, put};

    fn history() -> History {
        History::new(vec![
            put(2, "a", "1", 2, 1),
            put(3, "a", "2", 2, 2),
            delete(4, "a"),
            put(4, "m", "m", 4, 1),
            put(5, "b", "1", 5, 1),
        ])
    }

    fn verdict(first_revision: i64, batches: &[&[usize]]) -> Vec<String> {
        let history = history();
        let batches = batches
            .iter()
            .map(|places| Batch {
                at_ns: 0,
                revision: 5,
                events: places
                    .iter()
                    .map(|at| history.events[*at].clone())
                    .collect(),
            })
            .collect();
        let watched = Watched {
            name: "w".to_owned(),
            first_revision,
            batches,
        };
        check(&[watched], &history)
    }

    #[test]
    fn any_cut_into_whole_revisions_is_right() {
        assert_eq!(verdict(1, &[&[0, 1, 2, 3, 4]]), [""; 0]);
        assert_eq!(verdict(1, &[&[0], &[1], &[2, 3], &[4], &[]]), [""; 0]);
        assert_eq!(verdict(4, &[&[2, 3]]), [""; 0]);
    }

    #[test]
    fn each_way_to_go_wrong_is_found() {
        for (first, batches, expected) in [
            (1, &[&[0_usize][..], &[2, 3]][..], "was due"),
            (1, &[&[0], &[0]], "came in two responses"),
            (1, &[&[0, 1], &[0]], "after revision 3"),
            (1, &[&[0, 0]], "was due"),
            (1, &[&[0, 1], &[2], &[3]], "of the same revision"),
            (1, &[&[1, 0]], "was due"),
            (4, &[&[0]], "after revision 3"),
            (1, &[&[]], "before"),
        ] {
            let found = verdict(first, batches);
            assert!(
                found.len() == 1 && found[0].contains(expected),
                "{batches:?}: {found:?}"
            );
        }
        let foreign = Watched {
            first_revision: 6,
            batches: vec![Batch {
                at_ns: 0,
                revision: 6,
                events: vec![put(6, "x", "x", 6, 1)],
            }],
            ..Watched::default()
        };
        assert!(check(&[foreign], &history())[0].contains("never happened"));
    }
}
