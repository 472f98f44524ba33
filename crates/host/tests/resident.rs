//! Promise: what is told of a tenant's memory is what its workers really have:
//! running ones too, and pages of the image that several map once.

mod harness;

use std::sync::Mutex;
use std::sync::mpsc::channel;

use harness::wat;
use lazaret::Resident;

const MIB: u64 = 1 << 20;

fn pages_of_the_image_count_once_and_written_ones_in_each_worker() {
    let directory = tempfile::tempdir().unwrap();
    let (arrive, arrived) = channel();
    let arrive = Mutex::new(arrive);
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        .host_function("gate", 8, 8, move |_| {
            let (go_on, wait) = channel::<()>();
            arrive.lock().unwrap().send(go_on).unwrap();
            wait.recv().map_err(|error| error.to_string())?;
            Ok(Vec::new())
        })
        .build()
        .unwrap();
    let tenant = host.install("a", wat("versions"), b"").unwrap();
    // 32 MiB more of heap, every page of which is written.
    tenant.update("grow", &512u64.to_le_bytes()).unwrap();
    let state = tenant.info().heap_bytes + tenant.info().stable_bytes;
    let written = tenant.info().resident.unwrap();
    assert!(
        written.workers == 1 && written.private_bytes > state,
        "{written:?} of {state}"
    );
    tenant.compact().unwrap();
    tenant.sleep();
    while tenant.info().resident.is_some() {
        std::thread::yield_now();
    }
    // From now on workers map the base, which holds all of the state.
    let resident: Vec<Resident> = std::thread::scope(|scope| {
        let mut held = Vec::new();
        let resident = (1..=3)
            .map(|workers| {
                let query = || tenant.query("hold", b"").unwrap();
                scope.spawn(query);
                held.push(arrived.recv().unwrap());
                let resident = tenant.info().resident.unwrap();
                // None of them is idle.
                assert!(tenant.info().workers.is_empty() && resident.workers == workers);
                resident
            })
            .collect();
        for go_on in held {
            go_on.send(()).unwrap();
        }
        resident
    });
    for one in &resident {
        assert_eq!(one.private_bytes + one.shared_bytes, one.resident_bytes);
        assert!(
            one.proportional && one.resident_bytes > state,
            "{resident:?}"
        );
    }
    let [one, .., three] = &resident[..] else {
        panic!("{resident:?}")
    };
    // Two more workers have read two more times the state, and share it.
    assert!(
        three.resident_bytes < one.resident_bytes + MIB * 16,
        "{resident:?} of {state}"
    );
    assert!(
        one.private_bytes > state && three.private_bytes < state,
        "{resident:?} of {state}"
    );
    assert!(three.shared_bytes > state, "{resident:?} of {state}");
}

harness::tests! {
    pages_of_the_image_count_once_and_written_ones_in_each_worker,
}
