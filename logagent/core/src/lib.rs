//! The pure half of logagent: what to collect, where lines begin and end, which file is which,
//! what is acknowledged, and what to remember across a restart.
//!
//! Nothing here opens a file, reads a clock or knows Kafka: each module is a small machine that
//! takes what an adapter saw and answers with what to do next. So every rule can be tested
//! against a simulated file system, including the cases that a real one shows once a year.
//!
//! | module | question it answers |
//! |---|---|
//! | [`config`] | which entries does this config value ask for, and what is wrong with it |
//! | [`following`] | what to ask the center next, and may its answer be used |
//! | [`pattern`] | which paths does a pattern mean |
//! | [`plan`] | which tails start, stop, stay, or hand over to another topic |
//! | [`tailer`] | what does one entry do next: stat, open, read, produce, close, wait |
//! | [`framing`] | where are the records in this block |
//! | [`record`] | what does a record hold |
//! | [`pace`] | when may the next line be sent |
//! | [`ack`] | up to which offset is everything acknowledged |
//! | [`identity`] | is this still the file, and the content, that we knew |
//! | [`rotation`] | which sibling files were rotated away unread, and in which order |
//! | [`checkpoint`] | the document that survives a crash |

pub mod ack;
pub mod checkpoint;
pub mod config;
pub mod following;
pub mod framing;
pub mod identity;
pub mod pace;
pub mod pattern;
pub mod plan;
mod planted;
pub mod record;
pub mod rotation;
#[cfg(test)]
mod simulation;
pub mod tailer;
