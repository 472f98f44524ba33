//! Promise: a path below a granted directory is resolved once, below it, whatever
//! somebody does to the directory meanwhile.

mod harness;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use harness::{buffer, wat};
use lazaret::Verdict;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// How often the program opens each of its two paths.
const TIMES: u64 = 10_000;

/// Swaps a directory and a link to the outside, until it is told to stop.
fn swap(directory: &Path, stop: &AtomicBool, swaps: &AtomicU64) {
    let (real, link) = (directory.join("dir"), directory.join("link"));
    while !stop.load(Relaxed) {
        renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        swaps.fetch_add(1, Relaxed);
    }
}

fn no_byte_of_the_outside_is_read_while_links_are_swapped() {
    for outside_by in ["../outside", "absolute"] {
        let home = tempfile::tempdir().unwrap();
        let granted = home.path().join("granted");
        let outside = home.path().join("outside");
        std::fs::create_dir_all(granted.join("dir")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(granted.join("dir/file"), "inside").unwrap();
        std::fs::write(outside.join("file"), "outside").unwrap();
        let target = match outside_by {
            "absolute" => outside.clone(),
            relative => relative.into(),
        };
        symlink(target, granted.join("link")).unwrap();
        // The link really leads there, for whoever isn't confined.
        assert_eq!(
            std::fs::read(granted.join("link/file")).unwrap(),
            b"outside"
        );

        let host = harness::older_kernels::builder()
            .cache_dir(harness::cache())
            .build()
            .unwrap();
        let (out, stdout) = buffer();
        let program = host
            .program(wat("race"))
            .directory(&granted, "/granted", false)
            .stdout(stdout);
        let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
        let report = std::thread::scope(|scope| {
            scope.spawn(|| swap(&granted, &stop, &swaps));
            let report = program.run();
            stop.store(true, Relaxed);
            report.unwrap()
        });
        assert_eq!(report.verdict, Verdict::Exited, "{:?}", report.detail);
        let printed = out.lock().unwrap().clone();
        let numbers: Vec<u64> = printed
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let [inside, outside, other, refused] = numbers.as_slice() else {
            panic!("{printed:?}")
        };
        println!(
            "{outside_by}: {inside} inside, {refused} refused, {} swaps",
            swaps.load(Relaxed)
        );
        assert_eq!((*outside, *other), (0, 0), "bytes of the outside");
        assert_eq!(inside + refused, 2 * TIMES);
        // The race was run: the directory was there at times, the link at others,
        // and they changed often.
        assert!(
            *inside > TIMES / 100 && *refused > TIMES / 100,
            "{numbers:?}"
        );
        assert!(swaps.load(Relaxed) > TIMES / 10, "{swaps:?}");
    }
}

pub use harness::{Test, main as main_of};

harness::tests! {
    no_byte_of_the_outside_is_read_while_links_are_swapped,
}
