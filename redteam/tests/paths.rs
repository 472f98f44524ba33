//! Promise: from a granted directory there is no way out, whatever somebody who may
//! write it does to its links while the worker, taken over, opens paths.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use quarantine::{Quarantine, READ_ONLY, READ_WRITE, Seen};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const ROUNDS: u64 = 20_000;

#[test]
fn swapped_links_lead_nowhere() {
    for kind in [READ_ONLY, READ_WRITE] {
        let quarantine = Quarantine::new();
        let granted = quarantine.directory();
        std::fs::create_dir(granted.join("dir")).expect("a directory");
        std::fs::write(granted.join("dir/file"), "inside").expect("a file");
        let outside = granted
            .parent()
            .expect("its parent")
            .join("outside-directory");
        std::fs::create_dir(&outside).expect("a directory");
        std::fs::write(outside.join("file"), "outside").expect("a file");
        // Where the grant's `..` leads for whoever isn't confined.
        symlink("../outside-directory", granted.join("link")).expect("a link");
        assert_eq!(
            std::fs::read(granted.join("link/file")).expect("for us it leads there"),
            b"outside"
        );
        let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (dir, link) = (granted.join("dir"), granted.join("link"));
                while !stop.load(Relaxed) {
                    renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).expect("a swap");
                    swaps.fetch_add(1, Relaxed);
                }
            });
            let seen = quarantine.attack_as(kind, &format!("race_links {ROUNDS}"));
            stop.store(true, Relaxed);
            seen
        });
        let Seen::Reply(text) = &seen else {
            panic!("{seen:?}")
        };
        let numbers: Vec<u64> = text
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let [within, outside, refused] = numbers.as_slice() else {
            panic!("{text}")
        };
        println!("{kind:?}: {text}, {swaps:?} swaps");
        assert_eq!(*outside, 0, "{text}");
        // Both were there at times, and changed often meanwhile.
        assert!(*within > ROUNDS / 100 && *refused > ROUNDS / 100, "{text}");
        assert!(swaps.load(Relaxed) > ROUNDS / 10, "{swaps:?}");
        quarantine.neighbour_is_right();
    }
}
