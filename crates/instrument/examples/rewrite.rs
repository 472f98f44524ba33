//! Rewrites a module and prints what was found, how long it took, and both sizes.
//!
//! `cargo run --release -p lazaret-instrument --example rewrite -- in.wasm out.wasm`

use lazaret_instrument::{Limits, Options, RECURSION_LIMIT, instrument};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: rewrite IN.wasm OUT.wasm".into());
    };
    let wasm = std::fs::read(input)?;
    let options = Options {
        metering: true,
        recursion_limit: Some(RECURSION_LIMIT),
        limits: Limits::program(),
        ..Options::default()
    };
    let start = Instant::now();
    let instrumented = instrument(&wasm, &options)?;
    println!(
        "{:.1?}: {} bytes to {}",
        start.elapsed(),
        wasm.len(),
        instrumented.wasm.len()
    );
    println!("{:#?}", instrumented.report);
    std::fs::write(output, instrumented.wasm)?;
    Ok(())
}
