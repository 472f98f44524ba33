//! A tenant that keeps its state: through calls, through the end of its
//! worker, and through the end of the host.
//!
//!     cargo run --release -p lazaret --example counter

/// Counts in its heap: no database, no file.
const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 1)
  (data (i32.const 100) "changed my mind")
  (func $answer (call $append (i32.const 0) (i32.const 8)) (call $reply))
  (func $add (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1))))
  (func (export "canister_update add") (call $add) (call $answer))
  (func (export "canister_update add_and_trap") (call $add) (call $trap (i32.const 100) (i32.const 15)))
  (func (export "canister_query get") (call $answer)))
"#;

fn number(bytes: &[u8]) -> Result<u64, Box<dyn std::error::Error>> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lazaret::init();
    let directory = tempfile::tempdir()?;
    {
        let host = lazaret::Host::builder()
            .data_dir(directory.path())
            .build()?;
        let tenant = host.install("counter", COUNTER, &[])?;
        for _ in 0..3 {
            let reply = tenant.update("add", &[])?;
            let commit = reply.committed.ok_or("nothing was committed")?;
            println!(
                "count {}: version {}, {} pages, on disk",
                number(&reply.bytes)?,
                commit.version,
                commit.pages
            );
        }
        // What a trapped update wrote is gone.
        println!(
            "then: {}",
            tenant.update("add_and_trap", &[]).expect_err("it traps")
        );
        assert_eq!(number(&tenant.query("get", &[])?.bytes)?, 3);
        // The worker may go at any time.
        tenant.sleep();
        assert_eq!(number(&tenant.query("get", &[])?.bytes)?, 3);
    }
    let host = lazaret::Host::builder()
        .data_dir(directory.path())
        .build()?;
    let count = number(&host.tenant("counter")?.query("get", &[])?.bytes)?;
    println!("after the host was opened again: {count}");
    assert_eq!(count, 3);
    Ok(())
}
