//! What the end of a program means.

use lazaret_wire::message::{Exited, ProgramEnd, Trap, TrapKind};

use super::report::Verdict;
use crate::ending::Ending;

/// What an end means, what `lazaret run` exits with, and a line for people.
pub(super) fn verdict(
    end: &Result<Exited, Ending>,
    output_limit_hit: bool,
) -> (Verdict, i32, Option<String>) {
    let trapped = |trap: &Trap| {
        let mut text = trap.message.clone();
        if !trap.backtrace.is_empty() {
            text.push('\n');
            text.push_str(trap.backtrace.trim_end());
        }
        Some(text)
    };
    match end {
        _ if output_limit_hit => (
            Verdict::OutputLimit,
            153,
            Some("the output limit was reached".into()),
        ),
        Ok(exited) => match &exited.end {
            ProgramEnd::Exit(code) => (Verdict::Exited, *code as i32, None),
            ProgramEnd::Trap(trap) if trap.kind == TrapKind::Fuel => {
                (Verdict::FuelLimit, 125, trapped(trap))
            }
            ProgramEnd::Trap(trap) if exited.memory_limit_hit => (
                Verdict::MemoryLimit,
                137,
                trapped(trap).map(|text| format!("refused memory over its limit, then {text}")),
            ),
            ProgramEnd::Trap(trap) => (Verdict::Trapped, 134, trapped(trap)),
            ProgramEnd::Aborted(reason) => (Verdict::HostError, 1, Some(reason.clone())),
        },
        Err(ending) => {
            let (verdict, code) = match ending {
                Ending::Deadline(_) | Ending::CpuTime => (Verdict::TimeLimit, 124),
                Ending::Violation(_) | Ending::Malformed(_) | Ending::Exited(_) => {
                    (Verdict::Violation, 159)
                }
                Ending::OutOfMemory { .. } | Ending::Signal(libc::SIGKILL) => {
                    (Verdict::MemoryLimit, 137)
                }
                _ => (Verdict::HostError, 1),
            };
            let text = match ending {
                Ending::Deadline(limit) => {
                    format!("it ran longer than its limit of {limit:?} and was killed")
                }
                ending => ending.to_string(),
            };
            (verdict, code, Some(text))
        }
    }
}
