//! Compiles the .proto files with protox, so that no system protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "grpc")]
    compile()?;
    Ok(())
}

#[cfg(feature = "grpc")]
fn compile() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 12] = [
        "ottla/v1/types.proto",
        "ottla/v1/error.proto",
        "ottla/v1/log_service.proto",
        "ottla/v1/metadata_service.proto",
        "ottla/v1/topic_service.proto",
        "ottla/v1/producer_service.proto",
        "ottla/v1/cluster_service.proto",
        "ottla/v1/group_service.proto",
        "ottla/internal/v1/raft_service.proto",
        "ottla/internal/v1/controller_service.proto",
        "ottla/internal/v1/replication_service.proto",
        "ottla/internal/v1/group_records.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::Compiler::new(["proto"])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let encoded = protox::prost::Message::encode_to_vec(&descriptors);
    std::fs::write(out.join("ottla_descriptors.bin"), encoded)?;
    tonic_prost_build::configure()
        // Payloads travel as `Bytes`: a batch is shared from the socket to the log without a copy.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
