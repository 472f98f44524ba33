//! x
fn main() {
    lazaret::init();
    let host = lazaret::Host::builder().data_dir("/tmp/lzdata").relaxed_durability().build().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[1] == "run" {
        let wasm = std::fs::read(&arguments[2]).unwrap();
        use std::os::fd::AsFd;
        let out = |fd: std::os::fd::BorrowedFd| lazaret::Output::Descriptor(std::sync::Arc::new(fd.try_clone_to_owned().unwrap()));
        let t = std::time::Instant::now();
        let r = host.program(wasm).arguments(arguments[2..].iter().cloned()).stdout(out(std::io::stdout().as_fd())).stderr(out(std::io::stderr().as_fd())).run();
        println!("{:?}", t.elapsed());
        match r { Ok(r) => println!("{}", serde_json::to_string_pretty(&r).unwrap()), Err(e) => println!("error: {e}") }
    } else {
        let wasm = std::fs::read(&arguments[2]).unwrap();
        let _ = host.remove("t");
        let t = host.install("t", wasm, b"DIDL\0\0").unwrap();
        println!("{:?}", t.info());
        for m in &arguments[3..] {
            let s = std::time::Instant::now();
            let r = if let Some(q) = m.strip_prefix("q:") { t.query(q, b"DIDL\0\0") } else { t.update(m, b"DIDL\0\0") };
            println!("{m}: {:?} {:?}", r, s.elapsed());
        }
        println!("{:?}", t.logs().unwrap());
    }
}
