//! The configctl binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    config_center::configctl::main()
}
