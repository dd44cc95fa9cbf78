//! The two servers that are compared, each with the flags that a comparison needs.

use std::path::Path;
use std::process::Command;

use super::Kind;
use crate::{Peer, binaries};

/// Passwords are hashed as cheaply as both servers allow: how slow that is, is not compared.
const CHEAP_PASSWORDS: &str = "--bcrypt-cost=4";

/// config-center, as it is built.
pub fn center() -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::program("config-center")?);
    command.arg(CHEAP_PASSWORDS);
    Ok(command)
}

/// The judge of this kind.
pub fn etcd(kind: Kind, folder: &Path) -> anyhow::Result<Peer> {
    match kind {
        Kind::V3 | Kind::Auth | Kind::Gateway => Peer::start(folder, &[CHEAP_PASSWORDS]),
        Kind::V2 => Peer::start_3_4(folder, &[]),
    }
}
