//! What is on disk: manifests, segment headers and shard headers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = lazaret_image::decode_manifest(bytes);
    let _ = lazaret_image::decode_segment_header(bytes);
    let _ = lazaret_image::decode_segment_fields(bytes);
    let _ = lazaret_image::decode_shard_header(bytes);
});
