//! Transactions: compares, the chosen path, and its execution.
