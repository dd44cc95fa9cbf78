//! The supervisor over real files and a sink in memory.
