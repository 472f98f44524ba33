//! Promise: whoever embeds a host can count what happens, with the recorder of
//! their choice.

mod harness;

use std::time::Duration;

use harness::wat;
use lazaret::Verdict;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

fn incidents_are_counted() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    recorder.install().unwrap();
    let host = harness::builder().build().unwrap();
    let counted = || -> Vec<(String, u64)> {
        let mut counted: Vec<_> = seen
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, _, description, value)| {
                assert!(description.is_some(), "{key:?} has no description");
                let (_, key) = key.into_parts();
                let labels: Vec<String> = key
                    .labels()
                    .map(|label| format!("{}={}", label.key(), label.value()))
                    .collect();
                let DebugValue::Counter(count) = value else {
                    panic!("{value:?}");
                };
                (format!("{} {}", key.name(), labels.join(" ")), count)
            })
            .collect();
        counted.sort();
        // As often as it happens, which depends on the machine.
        let there = counted.len();
        counted.retain(|(name, _)| !name.starts_with("lazaret_worker_wakeups_total"));
        assert_eq!(counted.len(), there - 1);
        counted
    };
    // What could be is there from the first moment, so that an alarm can be set.
    let nothing = |name: &str| (format!("{name} "), 0);
    assert_eq!(
        counted(),
        [
            nothing("lazaret_incidents_lost_total"),
            nothing("lazaret_launchers_replaced_total"),
            nothing("lazaret_submitted_calls_total"),
            nothing("lazaret_workers_called_back_total"),
        ]
    );
    let report = host
        .program(wat("loop"))
        .time(Duration::from_millis(100))
        .run()
        .unwrap();
    assert_eq!(report.verdict, Verdict::TimeLimit);
    assert_eq!(
        counted(),
        [
            nothing("lazaret_incidents_lost_total"),
            (
                "lazaret_incidents_total layer=limits severity=low".into(),
                1
            ),
            nothing("lazaret_launchers_replaced_total"),
            nothing("lazaret_submitted_calls_total"),
            nothing("lazaret_workers_called_back_total"),
        ]
    );
}

harness::tests! {
    incidents_are_counted,
}
