//! Responses of Envoy's admin port and of istiod's debug endpoints.
#![no_main]

use grpcmesh::envoy;
use grpcmesh::envoy::config_dump::{CONFIG_DUMP_PATHS, RunningConfig};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for index in 0..CONFIG_DUMP_PATHS.len() {
        let mut responses = vec![None; CONFIG_DUMP_PATHS.len()];
        responses[index] = Some(bytes.to_vec());
        if let Ok(config) = RunningConfig::parse(&responses) {
            let text = serde_json::to_vec(&config).expect("a parsed configuration serializes to JSON");
            let parsed: RunningConfig = serde_json::from_slice(&text).expect("serialized JSON can be parsed");
            assert_eq!(config, parsed);
        }
    }
    let _ = envoy::sync::parse(bytes);
    let _ = envoy::access_log_formats(bytes);
    let _ = envoy::counters::parse(bytes, |_| true);
});
