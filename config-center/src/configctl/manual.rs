//! `man`: the manual pages, made from the same definitions as `--help`.

use std::{fs, path::Path};

use clap::CommandFactory as _;

use super::{
    exit::{Exit, Failure},
    flags::Cli,
    output::Output,
};

/// Writes `configctl.1` and one page for each command into a folder, which is made when need be.
pub(crate) fn write(out: Output, folder: &Path) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("{}: {error}", folder.display());
        Failure::new(Exit::LocalIo, message)
    };
    fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    out.line(&format!("the pages are in {}", folder.display()))?;
    Ok(Exit::Done)
}
