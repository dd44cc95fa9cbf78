//! The committed JSON Schemas say what the Rust types say.

use std::{fs, path::Path};

#[test]
fn committed_schemas_match_the_types() {
    for (name, expected) in schemas::documents::json_schemas().unwrap() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("json")
            .join(name);
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == expected,
            "{} differs from the Rust types: run `cargo run -p schemas --example write-json-schemas`",
            path.display()
        );
    }
}
