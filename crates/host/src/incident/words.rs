//! What an incident means and what to do, in plain words.

use super::{Severity, Subject, What};

pub(super) struct Words {
    pub(super) severity: Severity,
    pub(super) layer: &'static str,
    pub(super) explanation: String,
    pub(super) advice: &'static str,
}

const BREAK_OUT: &str = "Treat the module as hostile: quarantine or remove the tenant, keep this record, and report it to Lazaret's and the engine's maintainers. Nothing of the call was kept.";
const DEFECT: &str = "Report this record to Lazaret's maintainers. The tenant goes on from its last committed version in a new worker.";
const LIMIT: &str = "Raise the limit if the work is legitimate. Nothing of the call was kept, and nobody else was affected.";

pub(super) fn of(what: &What, subject: &Subject) -> Words {
    let whose = match (&subject.tenant, subject.worker.as_str()) {
        (Some(name), _) => format!("The worker of tenant {name}"),
        (None, "compiler") => "A compiler".to_owned(),
        (None, _) => "A program's worker".to_owned(),
    };
    let words = |severity, layer, explanation: String, advice| Words {
        severity,
        layer,
        explanation,
        advice,
    };
    match what {
        What::ForbiddenCall { call } => {
            let call = call
                .as_ref()
                .map_or("a system call".to_owned(), ToString::to_string);
            words(
                Severity::Critical,
                "seccomp",
                format!(
                    "{whose} tried {call}, which is not on its list. Neither the engine nor code that it compiles makes calls that are not on the list, so other code than that was running. The call did not happen; the worker was ended."
                ),
                BREAK_OUT,
            )
        }
        What::MalformedWire { problem } => words(
            Severity::Critical,
            "wire",
            format!(
                "{whose} wrote something on the wire that makes no sense: {problem}. Guest code can't write there, so other code was running, or its memory was overwritten. It was ended."
            ),
            BREAK_OUT,
        ),
        What::UnaskedExit { code } => words(
            Severity::High,
            "process",
            format!(
                "{whose} exited with code {code}. Workers are never asked to: the host ends them."
            ),
            BREAK_OUT,
        ),
        What::Crash { signal, said } => words(
            Severity::High,
            "process",
            format!(
                "{whose} crashed outside of guest code (signal {signal}{}). That is a defect of the engine or of Lazaret, found by accident or by somebody who looked for it.",
                said.as_ref()
                    .map_or(String::new(), |said| format!(": {said}"))
            ),
            "Report this record to Lazaret's maintainers. If the same module does it again, treat it as hostile.",
        ),
        What::CanaryTouched { said } => words(
            Severity::Critical,
            "canary page",
            format!(
                "{whose} touched a page beside the memory that it shares with its host ({said}). Nothing in a worker ever uses it, so something ran past an end there, or looked for what lies around. It was ended."
            ),
            BREAK_OUT,
        ),
        What::Killed { signal } => words(
            Severity::Medium,
            "process",
            format!(
                "{whose} was ended by signal {signal}, which its host did not send: the kernel's out-of-memory killer, or another process."
            ),
            "Look at the kernel's log for its out-of-memory killer, and at who else may signal these processes.",
        ),
        What::Aborted { reason, said } => words(
            Severity::Medium,
            "process",
            format!("{whose} ended itself: {reason}: {said}."),
            DEFECT,
        ),
        What::PostureChanged { differences } => words(
            Severity::Critical,
            "posture check",
            format!(
                "{whose} no longer looks as it did when its wall was verified: {}. Neither the engine nor code that it compiles changes that, so other code was running. It was ended.",
                differences.join("; ")
            ),
            BREAK_OUT,
        ),
        What::Limit { limit, detail } => words(
            Severity::Low,
            "limits",
            format!("{whose} reached its limit of {limit}: {detail}."),
            LIMIT,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_whose_it_was_and_what_to_do() {
        let tenant = Subject {
            tenant: Some("shop".into()),
            worker: "tenant".into(),
            module: None,
        };
        let compiler = Subject {
            tenant: None,
            worker: "compiler".into(),
            module: None,
        };
        let all = [
            What::ForbiddenCall { call: None },
            What::MalformedWire {
                problem: "length 7".into(),
            },
            What::UnaskedExit { code: 3 },
            What::Crash {
                signal: 11,
                said: None,
            },
            What::Killed { signal: 9 },
            What::CanaryTouched {
                said: "address 0x1000".into(),
            },
            What::Aborted {
                reason: "panic".into(),
                said: "oh".into(),
            },
            What::Limit {
                limit: "memory".into(),
                detail: "1 GiB".into(),
            },
            What::PostureChanged {
                differences: vec!["descriptor 5 is new: socket".into()],
            },
        ];
        for what in &all {
            let words = of(what, &tenant);
            assert!(words.explanation.contains("tenant shop"), "{what:?}");
            assert!(!words.advice.is_empty() && !words.layer.is_empty());
            assert!(of(what, &compiler).explanation.starts_with("A compiler "));
        }
        assert_eq!(of(&all[0], &tenant).severity, Severity::Critical);
        assert_eq!(of(&all[7], &tenant).severity, Severity::Low);
    }
}
