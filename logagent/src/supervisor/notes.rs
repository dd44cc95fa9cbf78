//! What the core's tailers notice, in the log and in the loss ledger.

use std::collections::VecDeque;

use logagent_core::tailer::Note;
use schemas::fleet::{Loss, Totals};

use super::LOSSES_MAX;

/// Writes a note of the core to the log, and a loss to the ledger.
pub(super) fn record(
    losses: &mut VecDeque<Loss>,
    totals: &mut Totals,
    path: &str,
    topic: &str,
    note: Note,
) {
    match note {
        Note::Lost {
            file,
            from_offset,
            to_offset,
            reason,
        } => {
            tracing::warn!(path, topic, %file, from_offset, to_offset, reason, "bytes are lost");
            totals.lost_bytes += to_offset.saturating_sub(from_offset);
            losses.push_back(Loss {
                path: path.to_owned(),
                topic: topic.to_owned(),
                from_offset,
                to_offset,
                reason,
                at_ms: crate::status::unix_ms(),
            });
            if losses.len() > LOSSES_MAX {
                losses.pop_front();
            }
        }
        Note::Unreadable { file, reason } => {
            tracing::warn!(path, topic, %file, reason, "a rotated file waits: it cannot be opened");
        }
        Note::Opened { file, offset } => tracing::info!(path, topic, %file, offset, "reading"),
        Note::Rotated { file } => {
            tracing::info!(path, topic, %file, "rotated: reading it to its end")
        }
        Note::Truncated { file, reason } => tracing::info!(path, topic, %file, reason, "from 0"),
        Note::HoleSkipped {
            file,
            from_offset,
            to_offset,
        } => {
            tracing::warn!(path, topic, %file, from_offset, to_offset, "a hole is skipped");
        }
        Note::Finished { file, offset } => tracing::info!(path, topic, %file, offset, "finished"),
    }
}
