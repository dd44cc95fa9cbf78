//! The fleet service: keeps objects, releases and rollouts in a store, and carries rollouts out.
//!
//! Uses etcd's operations only (range, transaction, watch), so it runs over the built-in store and
//! over any etcd alike. Everything that could be decided without a store is decided by
//! `config_center_core::fleet`; here are keys, transactions, and what to do when one of them loses.
//!
//! No driver of a rollout needs to be the only one: each step is one transaction that compares the
//! rollout's progress, so two drivers cannot both carry out the same step (docs/adr/0010).

pub mod api;
pub mod audit;
pub mod command;
pub mod drafts;
pub mod driver;
pub mod edit;
pub mod error;
pub mod host_actions;
pub mod keys;
pub mod publish;
pub mod records;
pub mod releases;
pub mod rollout_status;
pub mod rollouts;
pub mod service;
pub mod snapshot;
pub mod twins;
pub mod txn;
pub mod view;
