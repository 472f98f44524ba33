//! Uses a secret on a guest's behalf: a signing key behind a function.
//!
//!     cargo run --release -p lazaret --example sign
//!
//! The guest has its notes signed with a key that it never sees. What the host
//! offers is declared in one place: how long a note may be, how long a signature
//! is, what one costs, how often one may be had. The key is in the host's memory
//! and nowhere else; `crates/host/tests/host_functions.rs` searches all of a
//! worker's memory for such a key.
//!
//! The signature is a keyed BLAKE3 hash, a message authentication code: whoever
//! has the key can check it. With a public-key signature the same lines would hold
//! another key.

use lazaret::Declaration;

/// The guest, as somebody else would send it: it has its argument signed.
const GUEST: &str = r#"
(module
  (import "host" "sign" (func $sign (param i32 i32 i32 i32) (result i32)))
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_query note")
    (call $copy (i32.const 64) (i32.const 0) (call $size))
    (call $append (i32.const 0)
      (call $sign (i32.const 64) (call $size) (i32.const 0) (i32.const 32)))
    (call $reply)))
"#;

/// A key of this process's, which is never written to anything.
struct Key([u8; blake3::KEY_LEN]);

impl Key {
    /// A new one, from the kernel.
    fn random() -> std::io::Result<Self> {
        let mut key = [0; blake3::KEY_LEN];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self(key))
    }

    fn sign(&self, note: &[u8]) -> [u8; blake3::OUT_LEN] {
        // A context of its own, so that what is signed here means nothing
        // elsewhere, whatever a guest hands over.
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"lazaret example: a note\0").update(note);
        *hasher.finalize().as_bytes()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Workers are this same executable: they begin, and end, here.
    lazaret::init();

    let key = std::sync::Arc::new(Key::random()?);
    let signs = key.clone();
    let directory = tempfile::tempdir()?;
    let host = lazaret::Host::builder()
        .data_dir(directory.path())
        .offer(
            Declaration::new("sign", 1024, blake3::OUT_LEN)
                .purpose("signs a note with the host's key")
                .fuel(100_000)
                .rate(10, 3),
            move |note| Ok(signs.sign(note).to_vec()),
        )
        .build()?;
    for offered in host.offered() {
        println!("{}", offered.declaration);
    }
    let guest = host.install("notes", GUEST, &[])?;

    let note = b"the quarantine is over on Friday";
    let reply = guest.query("note", note)?;
    println!("signed for {} fuel", reply.fuel_used);
    // Compared in constant time, which a plain comparison of bytes is not.
    let signature = blake3::Hash::from_slice(&reply.bytes)?;
    assert_eq!(signature, blake3::Hash::from_bytes(key.sign(note)));

    // More than its share is the guest's trap; the key has signed no more.
    let refused = (0..100).find_map(|_| guest.query("note", note).err());
    println!("then: {}", refused.ok_or("the rate was not kept")?);
    Ok(())
}
