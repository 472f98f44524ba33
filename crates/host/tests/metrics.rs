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
        counted
    };
    // What could be is there from the first moment, so that an alarm can be set.
    assert_eq!(counted(), [("lazaret_incidents_lost_total ".into(), 0)]);
    let report = host
        .program(wat("loop"))
        .time(Duration::from_millis(100))
        .run()
        .unwrap();
    assert_eq!(report.verdict, Verdict::TimeLimit);
    assert_eq!(
        counted(),
        [
            ("lazaret_incidents_lost_total ".into(), 0),
            (
                "lazaret_incidents_total layer=limits severity=low".into(),
                1
            ),
        ]
    );
}

harness::tests! {
    incidents_are_counted,
}
