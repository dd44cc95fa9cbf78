//! The rows of what the v2 API keeps beside the keyspace: how their changes are gathered, written
//! and read back.

use std::collections::BTreeMap;

use bytes::Bytes;
use config_center_core::Restorer;
use config_center_core::v2::{HISTORY_EVENTS, V2Change};
use prost::Message as _;
use schemas::command::{V2Event, V2Node};
use sqlx::{Row as _, SqliteConnection};

/// One format step of `state.db`.
pub(super) const UPGRADE: &str = "
        -- config_center.v1.V2Node, encoded.
        CREATE TABLE v2_nodes (
            path BLOB PRIMARY KEY,
            node BLOB NOT NULL
        ) STRICT;
        -- config_center.v1.V2Event, encoded.
        CREATE TABLE v2_events (
            event_index INTEGER PRIMARY KEY,
            event BLOB NOT NULL
        ) STRICT;";

/// The changes of one transaction, the last one of each row. `None` is a deletion.
#[derive(Debug, Default)]
pub(super) struct FoldedV2 {
    nodes: BTreeMap<Bytes, Option<V2Node>>,
    events: Vec<V2Event>,
}

impl FoldedV2 {
    pub(super) fn add(&mut self, change: V2Change) {
        match change {
            V2Change::NodePut(node) => {
                self.nodes.insert(node.path.clone(), Some(node));
            }
            V2Change::NodeDelete { path } => {
                self.nodes.insert(path, None);
            }
            V2Change::Event(event) => self.events.push(event),
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.nodes.len() + self.events.len()
    }

    /// Within the caller's transaction.
    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for (path, node) in &self.nodes {
            let query = match node {
                Some(node) => {
                    sqlx::query("INSERT OR REPLACE INTO v2_nodes (path, node) VALUES (?, ?)")
                        .bind(&path[..])
                        .bind(node.encode_to_vec())
                }
                None => sqlx::query("DELETE FROM v2_nodes WHERE path = ?").bind(&path[..]),
            };
            query.execute(&mut *connection).await?;
        }
        for event in &self.events {
            sqlx::query("INSERT OR REPLACE INTO v2_events (event_index, event) VALUES (?, ?)")
                .bind(event.index)
                .bind(event.encode_to_vec())
                .execute(&mut *connection)
                .await?;
        }
        if let Some(last) = self.events.last() {
            sqlx::query("DELETE FROM v2_events WHERE event_index <= ?")
                .bind(last.index - HISTORY_EVENTS)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

/// Reads all rows back. A row that cannot be decoded is an error of the database.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    restorer: &mut Restorer,
) -> Result<(), sqlx::Error> {
    let damaged = |error: prost::DecodeError| sqlx::Error::Decode(Box::new(error));
    let nodes = sqlx::query("SELECT node FROM v2_nodes")
        .fetch_all(&mut *connection)
        .await?;
    for row in nodes {
        let node = V2Node::decode(row.try_get::<&[u8], _>(0)?).map_err(damaged)?;
        restorer.v2(V2Change::NodePut(node));
    }
    let events = sqlx::query("SELECT event FROM v2_events ORDER BY event_index")
        .fetch_all(connection)
        .await?;
    for row in events {
        let event = V2Event::decode(row.try_get::<&[u8], _>(0)?).map_err(damaged)?;
        restorer.v2(V2Change::Event(event));
    }
    Ok(())
}
