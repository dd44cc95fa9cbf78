//! The producer settings that every program of the comparison gets.

/// What all producers have in common; compression is chosen per row.
pub const COMMON: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "5"),
    ("socket.nagle.disable", "true"),
];

/// The key of every record: host and path, as logagent makes it.
pub fn record_key(host: &str, path: &str) -> String {
    format!("{host}:{path}")
}
