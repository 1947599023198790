//! Compiles `berth/v1/*.proto` without protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 10] = [
    "job", "attempt", "jobs", "event", "nodes", "cluster", "agents", "peers", "error", "security",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=berth");
    let files = FILES.map(|name| format!("berth/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
