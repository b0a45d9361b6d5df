//! Which calls bring more than one message, by their paths.

use ottla_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::collections::BTreeSet;
use std::sync::LazyLock;

static PATHS: LazyLock<BTreeSet<String>> = LazyLock::new(paths);

/// Whether a call, such as `/ottla.v1.LogService/ProduceStream`, may bring several messages.
/// What is not known may: who is not served holds nothing for long.
pub(super) fn brings_several(path: &str) -> bool {
    PATHS.contains(path)
}

fn paths() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("compiled in");
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in service.method.iter().filter(|method| method.client_streaming()) {
                let (service, method) = (service.name(), method.name());
                paths.insert(format!("/{}.{service}/{method}", file.package()));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_by_their_paths() {
        for path in ["ProduceStream", "Consume"] {
            assert!(brings_several(&format!("/ottla.v1.LogService/{path}")), "{path}");
        }
        for path in ["Produce", "Fetch"] {
            assert!(!brings_several(&format!("/ottla.v1.LogService/{path}")), "{path}");
        }
        assert!(paths().iter().any(|path| path.starts_with("/ottla.internal.v1.")));
    }
}
