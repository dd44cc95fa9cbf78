//! What the core's tailers notice, in the log and in the loss ledger.

use logagent_core::tailer::Note;
use schemas::fleet::Loss;

use crate::ledger::Ledger;

/// Writes a note of the core to the log, and a loss to the ledger; true when the ledger has changed.
pub(super) fn record(ledger: &mut Ledger, path: &str, topic: &str, note: Note) -> bool {
    match note {
        Note::Lost {
            file,
            from_offset,
            to_offset,
            reason,
        } => {
            tracing::warn!(path, topic, %file, from_offset, to_offset, reason, "bytes are lost");
            return ledger.record(Loss {
                path: path.to_owned(),
                topic: topic.to_owned(),
                file: file.to_string(),
                from_offset,
                to_offset,
                reason,
                at_ms: crate::status::unix_ms(),
            });
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
    false
}
