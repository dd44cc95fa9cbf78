//! The server with one known bug, to show that the tests against a real etcd can fail.
//!
//! Exists only with the cargo feature `planted`. `CONFIG_CENTER_PLANTED` names the bug.

use std::process::ExitCode;

#[path = "../main.rs"]
mod server;

fn main() -> ExitCode {
    let name = std::env::var("CONFIG_CENTER_PLANTED").unwrap_or_default();
    if let Err(reason) = config_center_core::planted::plant(&name) {
        eprintln!("config-center-planted: CONFIG_CENTER_PLANTED: {reason}");
        return ExitCode::FAILURE;
    }
    server::main()
}
