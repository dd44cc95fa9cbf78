//! How the cost of a put grows: with the keys in the store, with the connections, with the members.
//! Watchers are in a section of their own.

use crate::Arguments;
use crate::results::Cell;
use crate::rows::{Client, State, Timing, USUAL_KEYS, fill, measure_row, program, row};
use crate::store::{Kind, STORES, Store};

const KEYS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const CONNECTIONS: [usize; 3] = [10, 100, 1_000];
const MEMBERS: [usize; 3] = [1, 3, 5];

pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Cell>> {
    let timing = Timing::of(arguments).with_rounds(2);
    let mut cells = Vec::new();
    let (keys, members) = if arguments.quick {
        (&KEYS[..2], &MEMBERS[..2])
    } else {
        (&KEYS[..], &MEMBERS[..])
    };
    let stores = started(arguments, 1)?;
    for count in keys {
        for store in &stores {
            fill(arguments, store.first().endpoint, *count, 256)?;
        }
        for operation in ["put", "range"] {
            let row = row(Client::Lean, operation, 500, 50, 256).with(State::Keys(*count));
            cells.extend(measure_row(arguments, &timing, &row, &stores)?);
        }
    }
    for connections in CONNECTIONS {
        let row = row(Client::Lean, "put", 1_000, connections, 256);
        cells.extend(measure_row(arguments, &timing, &row, &stores)?);
    }
    drop(stores);
    for count in members {
        let stores = started(arguments, *count)?;
        for store in &stores {
            fill(arguments, store.first().endpoint, USUAL_KEYS, 256)?;
        }
        let row = row(Client::Lean, "put", 500, 50, 256).with(State::Members(*count));
        cells.extend(measure_row(arguments, &timing, &row, &stores)?);
    }
    Ok(cells)
}

/// The newer etcd is enough to compare a curve with.
fn started(arguments: &Arguments, members: usize) -> anyhow::Result<Vec<Store>> {
    let kinds = STORES.into_iter().filter(|kind| *kind != Kind::Etcd34);
    kinds
        .map(|kind| {
            let program = program(arguments, kind);
            Store::start_members(kind, program, &arguments.work, members)
        })
        .collect()
}
