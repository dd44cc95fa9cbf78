//! The fleet in a store: which keys hold what.
//!
//! Uses etcd's operations only, so it runs over the built-in store and over any etcd alike. What can
//! be decided without a store is decided by `config_center_core::fleet`.

pub mod keys;
