//! Compiles the protobuf schemas without protoc: protox parses them, tonic-prost-build generates
//! Rust into OUT_DIR, and the descriptor set beside it serves reflection and the schema test.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = [
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/rpc.proto",
    "etcd/lock.proto",
    "etcd/election.proto",
    "grpc/health/v1/health.proto",
    "config_center/command.proto",
    "config_center/peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
