//! Users, roles and permissions, and the one decision whether a request is allowed.
//!
//! Replicated like keys: every change is a command, and every command carries who asked for it and
//! at which revision of this table, so that all members decide alike when they apply it. Knows no
//! passwords, only hashes that were made before the proposal, and no tokens.

mod access;
mod permissions;
mod table;
mod v2;

pub use access::{Access, Caller};
pub use table::{AuthChange, ROOT_ROLE, ROOT_USER};
pub use v2::{V2AuthRefusal, V2Principal, V2Rights};

pub(crate) use access::authorize;
pub(crate) use table::AuthTable;
