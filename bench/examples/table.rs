//! Prints the table:
//! `cargo run --release -p lazaret-bench --example table -- [quick] [FILTER] [command=LAZARET]`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lazaret::init();
    let mut options = lazaret_bench::Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "quick" => options.quick = true,
            other if let Some(path) = other.strip_prefix("command=") => {
                options.command = Some(path.into())
            }
            filter => options.filter = Some(filter.to_owned()),
        }
    }
    let table = lazaret_bench::run(&options, &mut |what| eprintln!("{what}"))?;
    println!("{table}");
    Ok(())
}
