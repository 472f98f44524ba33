//! Embeds a plug-in that nobody trusts, with a host function of one's own.
//!
//!     cargo run --release -p lazaret --example plugin
//!
//! The plug-in prices a basket of goods. It asks the host for each price
//! through `host.price`, the only thing besides memory that it can reach. The
//! price list stays in the host.

use std::collections::HashMap;

/// The plug-in, as somebody else would send it. It is asked for the total of
/// its argument: two-byte article numbers.
const PLUGIN: &str = r#"
(module
  (import "host" "price" (func $price (param i32 i32 i32 i32) (result i32)))
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_query total") (local $at i32) (local $end i32)
    (local.set $end (call $size))
    (call $copy (i32.const 16) (i32.const 0) (local.get $end))
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end))
        (then
          (drop (call $price (i32.add (i32.const 16) (local.get $at)) (i32.const 2) (i32.const 8) (i32.const 8)))
          (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.load (i32.const 8))))
          (local.set $at (i32.add (local.get $at) (i32.const 2)))
          (br $next))))
    (call $append (i32.const 0) (i32.const 8))
    (call $reply)))
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Workers are this same executable: they begin, and end, here.
    lazaret::init();

    let prices: HashMap<u16, u64> = HashMap::from([(1, 250), (2, 1_999), (7, 5)]);
    let directory = tempfile::tempdir()?;
    let host = lazaret::Host::builder()
        .data_dir(directory.path())
        // At most 2 bytes go out of the plug-in and 8 come back.
        .host_function("price", 2, 8, move |article| {
            let number = <[u8; 2]>::try_from(article)
                .map_err(|_| "an article number has two bytes".to_owned())?;
            let number = u16::from_le_bytes(number);
            let price = prices
                .get(&number)
                .ok_or_else(|| format!("there is no article {number}"))?;
            Ok(price.to_le_bytes().to_vec())
        })
        .build()?;
    let plugin = host.install("pricing", PLUGIN, &[])?;

    let basket: Vec<u8> = [1u16, 2, 7, 7]
        .iter()
        .flat_map(|article| article.to_le_bytes())
        .collect();
    let reply = plugin.query("total", &basket)?;
    let total = u64::from_le_bytes(reply.bytes.as_slice().try_into()?);
    println!("total: {total}, for {} fuel", reply.fuel_used);
    assert_eq!(total, 250 + 1_999 + 5 + 5);

    // What the plug-in can't have ends in a trap of its own, and it goes on.
    let error = plugin
        .query("total", &9u16.to_le_bytes())
        .expect_err("article 9 does not exist");
    println!("article 9: {error}");
    println!(
        "its wall: {} layers verified from outside",
        plugin.receipt()?.layers.len()
    );
    Ok(())
}
