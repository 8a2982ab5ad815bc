//! Snapshots: decodes them, and encodes what was decoded again.
#![no_main]

use grpcmesh::snapshot::codec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let inflated = codec::is_gzip(bytes).then(|| codec::inflate(bytes, 16 << 20));
    let bytes = match &inflated {
        Some(Ok(inflated)) => inflated.as_slice(),
        Some(Err(_)) => return,
        None => bytes,
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(snapshot) = codec::decode(text) else { return };
    let mut encoded = Vec::new();
    codec::encode(&snapshot, &mut encoded).expect("a decoded snapshot can be encoded");
    let text = String::from_utf8(encoded).expect("a snapshot is UTF-8");
    codec::decode(&text).expect("an encoded snapshot can be decoded");
});
