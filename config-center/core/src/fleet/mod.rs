//! The fleet: from what operators declare to what each host collects, and how a change travels.
//!
//! ```text
//! source (YAML, JSON) → decode → inventory → render → host documents → diff, plan
//!                                                                    → rollout, wave by wave
//! ```
//!
//! Pure: texts, objects, observations and times come in; documents, actions and records go out.
//! Knows no store, no key and no clock. The same inputs give the same bytes on every machine, which
//! is what lets a new leader, a dry run and an agent's status speak of the same hash.

pub mod audit;
pub mod change;
pub mod decode;
pub mod diff;
pub mod document;
pub mod edit;
pub mod host_state;
pub mod import;
pub mod inventory;
pub mod merge;
pub mod render;
pub mod rollout;
pub mod source;
pub mod three_way;

use sha2::{Digest as _, Sha256};

/// The hash by which agents name a configuration, in lower-case hexadecimal.
pub fn sha256_hex(value: &[u8]) -> String {
    Sha256::digest(value)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_lower_case_hexadecimal() {
        assert_eq!(
            super::sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
