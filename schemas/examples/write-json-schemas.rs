//! Writes `schemas/json/*.json` from the Rust types: run it after changing one of them.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
    fs::create_dir_all(&folder)?;
    for (name, text) in schemas::documents::json_schemas()? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
