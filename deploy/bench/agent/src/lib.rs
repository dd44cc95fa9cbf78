//! What the agent's benchmark and its floor share.

pub mod corpus;
pub mod properties;
