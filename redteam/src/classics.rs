//! What is stopped by something that can't be taken off: the wire, the host's
//! checks, its limits of time. Each is one behaviour, tried in all its variants,
//! and must end as its [`Attack`](crate::attack::Attack) says.

use std::time::Duration;

use lazaret::CallOptions;
use lazaret::wall::policy::{Kind, UNFILTERED, policy};

use crate::attack::Expected;
use crate::attacks::{answers, futex, impossible, log};
use crate::range::{Range, RangeError, has_outer_filter};
use crate::seen::Seen;
use crate::system_call::X32;
use crate::{ATTACK, attacks};

/// How long silence is listened to.
const PATIENCE: Duration = Duration::from_millis(300);

/// After how many variants the neighbour is asked.
const NEIGHBOUR_EACH: usize = 16;

/// One behaviour.
#[derive(Debug, Clone, Copy)]
pub struct Classic {
    /// Its name.
    pub name: &'static str,
    /// What it tries, in a sentence without its full stop.
    pub tries: &'static str,
    /// What kind it is.
    pub kind: &'static str,
    /// What stops it.
    pub stopped_by: &'static str,
    /// Its variants, as texts for the attacker.
    variants: fn() -> Vec<String>,
    /// What may come of a variant besides what its attack says: races go either
    /// way.
    also: &'static [Expected],
}

const fn classic(
    name: &'static str,
    kind: &'static str,
    tries: &'static str,
    stopped_by: &'static str,
    variants: fn() -> Vec<String>,
) -> Classic {
    Classic {
        name,
        tries,
        kind,
        stopped_by,
        variants,
        also: &[],
    }
}

const WIRE: &str = "wire";
const CHECKS: &str = "host's checks";
const DEADLINE: &str = "deadline";
const SECCOMP: &str = "seccomp";

/// All of them.
pub const CLASSICS: &[Classic] = &[
    classic(
        "every_system_call",
        "system calls",
        "makes every system call that is not on its list, by number",
        SECCOMP,
        every_system_call,
    ),
    classic(
        "32_bit_entry",
        "system calls",
        "makes system calls by the 32-bit entry, where numbers mean something else (int 0x80)",
        SECCOMP,
        || {
            [1, 3, 5, 11, 90, 102, 120, 180, 190, 358]
                .map(|n| format!("compat {n}"))
                .into()
        },
    ),
    classic(
        "x32_numbers",
        "system calls",
        "makes system calls by their x32 numbers",
        SECCOMP,
        || {
            [0, 1, 2, 9, 41, 56, 57, 59, 62, 101, 257, 512, 520]
                .map(|number| format!("system_call {}", X32 + number))
                .into()
        },
    ),
    classic(
        "futex_operations",
        "system calls",
        "moves, locks or boosts the host's thread that waits for its answer (futex operations)",
        SECCOMP,
        || names(futex::ATTACKS.iter().map(|attack| attack.name)),
    ),
    classic(
        "reseal_shared_file",
        "shared memory",
        "cuts, punches, reseals, locks or remaps the file that it shares with the host",
        SECCOMP,
        || {
            names(
                attacks::shared_file::ATTACKS
                    .iter()
                    .map(|attack| attack.name)
                    .filter(|name| !name.starts_with("advise")),
            )
        },
    ),
    classic(
        "advise_shared_memory",
        "shared memory",
        "has the kernel free, poison, merge or zero the memory that it shares with the host (madvise)",
        SECCOMP,
        || {
            names(
                attacks::shared_file::ATTACKS
                    .iter()
                    .map(|attack| attack.name)
                    .filter(|name| name.starts_with("advise")),
            )
        },
    ),
    classic(
        "run_heap",
        "code",
        "jumps into the tenant's heap",
        "no execution of data, by the processor",
        || vec!["run_heap".into()],
    ),
    classic(
        "use_setup_socket",
        "descriptors",
        "sends on the number that its set-up socket had",
        "descriptors",
        || vec!["sendmsg_setup_socket".into()],
    ),
    classic("answer_twice", WIRE, "answers one call twice", WIRE, || {
        vec!["answer_twice".into()]
    }),
    classic(
        "wild_bell",
        WIRE,
        "rings the host's bell with numbers that are not the next",
        WIRE,
        || numbered("wild_bell", answers::BELLS),
    ),
    classic(
        "wild_length",
        WIRE,
        "says that its answer is longer than the memory for it",
        WIRE,
        || numbered("wild_length", answers::LENGTHS),
    ),
    classic(
        "undecodable_answer",
        WIRE,
        "answers bytes that are no message: wrong, cut, padded, empty, with wild lengths",
        WIRE,
        || {
            (0..14)
                .chain([64, 127, 128, 255, 256, 257, 258, 259])
                .chain(260..answers::BYTES)
                .map(|number| format!("undecodable {number}"))
                .collect()
        },
    ),
    classic(
        "another_question",
        WIRE,
        "answers what it was not asked",
        WIRE,
        || numbered("another_question", answers::OTHERS),
    ),
    classic(
        "wild_log",
        WIRE,
        "leaves a log with wild lengths",
        WIRE,
        || numbered("wild_log", log::KINDS),
    ),
    Classic {
        also: &[Expected::Reply(""), Expected::Unreadable, Expected::Silence],
        ..classic(
            "change_while_read",
            "races",
            "writes random bytes to all shared memory while the host reads it, call after call",
            WIRE,
            || numbered("scribble", 40),
        )
    },
    classic(
        "scribble_over_bells",
        "races",
        "writes random bytes to all shared memory and to the bells, without end",
        WIRE,
        || {
            (1..6)
                .map(|seed| format!("scribble_everything {seed}"))
                .collect()
        },
    ),
    classic(
        "impossible_result",
        "results",
        "gives results that can't be: fuel and cycles from nowhere, memories over their limits, other globals",
        CHECKS,
        || numbered("impossible", impossible::LIES.len() as u64),
    ),
    classic(
        "unknown_host_function",
        "host functions",
        "calls a function that the host doesn't offer",
        CHECKS,
        || vec!["host_function_unknown".into()],
    ),
    classic(
        "oversized_host_call",
        "host functions",
        "calls a function of the host's with more than it takes, or than the wire carries",
        CHECKS,
        || {
            vec![
                "host_function_oversized".into(),
                "host_function_over_the_wire_s_bound".into(),
            ]
        },
    ),
    classic(
        "host_calls_without_end",
        "host functions",
        "calls a function of the host's a thousand times for one call",
        CHECKS,
        || vec!["host_function_without_end".into()],
    ),
    classic("sleep_for_ever", "time", "never answers", DEADLINE, || {
        vec!["sleep_for_ever".into()]
    }),
    classic(
        "spin_for_ever",
        "time",
        "uses a processor for ever",
        DEADLINE,
        || vec!["spin_for_ever".into()],
    ),
    classic(
        "keep_host_asleep",
        "time",
        "clears the word by which the host says that it sleeps, and wakes nobody",
        "bell",
        || vec!["say_that_the_host_is_awake".into()],
    ),
    classic(
        "leave",
        "endings",
        "exits, with the code of a success and with the launcher's own",
        "kernel's word on its end",
        || vec!["exit".into(), "exit_as_the_launcher_would".into()],
    ),
    classic(
        "crash",
        "endings",
        "crashes: by a bad address, an illegal instruction, a division by zero, its stack's end",
        "kernel's word on its end",
        || {
            [
                "crash",
                "illegal_instruction",
                "divide_by_zero",
                "overflow_stack 0",
            ]
            .map(str::to_owned)
            .into()
        },
    ),
    classic(
        "false_last_words",
        "endings",
        "lies about why it ends, with wild lengths, also just before a forbidden call",
        "kernel's word on its end",
        || {
            [
                "fake_panic",
                "fake_unknown_reason",
                "breakpoint_without_words",
                "words_before_a_violation",
            ]
            .map(str::to_owned)
            .into()
        },
    ),
    classic(
        "lie_about_written_pages",
        "pages",
        "says that it wrote all pages, none, or ones that it doesn't have",
        "host's copying",
        || {
            ["set_all_cards", "set_no_card", "set_wild_cards"]
                .map(str::to_owned)
                .into()
        },
    ),
    Classic {
        also: &[Expected::Unreadable],
        ..classic(
            "take_pages_away",
            "races",
            "takes its memory away before and while the host copies it",
            "host's copying",
            || {
                [
                    "unmap_cards",
                    "close_cards",
                    "unmap_carded_pages",
                    "pull_cards_away 7",
                ]
                .map(str::to_owned)
                .into()
            },
        )
    },
    classic(
        "address_space_bombs",
        "exhaustion",
        "asks for memory until there is none: by the allocator, the break, mappings, page tables",
        "rlimits",
        || {
            [
                "allocate",
                "break_bomb",
                "map_bomb",
                "mappings",
                "page_tables",
            ]
            .map(str::to_owned)
            .into()
        },
    ),
];

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}

fn numbered(name: &str, count: u64) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name} {number}"))
        .collect()
}

/// Every number that is on no list of a tenant's, but for those that no filter
/// sees, which `every_system_call` of `redteam/tests` tries.
fn every_system_call() -> Vec<String> {
    let policy = policy(Kind::Tenant);
    (0..=600)
        .filter(|number| policy.find(*number).is_none())
        .filter(|number| UNFILTERED.iter().all(|call| call.number != *number))
        .map(|number| format!("system_call {number} memory 4096 memory 1 memory 16"))
        .collect()
}

/// What came of a classic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// How many variants ended as they should.
    pub held: usize,
    /// The first one that didn't, and how it ended.
    pub broke: Option<String>,
    /// How the last one ended.
    pub evidence: String,
}

impl Classic {
    /// Tries all its variants.
    ///
    /// # Errors
    /// If the red team can't go on, or the neighbour has come to harm.
    pub fn run(&self, range: &Range) -> Result<Came, RangeError> {
        let mut came = Came {
            held: 0,
            broke: None,
            evidence: String::new(),
        };
        let outer = has_outer_filter();
        for (number, text) in (self.variants)().into_iter().enumerate() {
            let name = text.split(' ').next().unwrap_or_default();
            let Some(attack) = attacks::find(name) else {
                came.broke = Some(format!("{text}: there is no such attack"));
                break;
            };
            // An honest worker, whatever became of the one before.
            range.worker()?;
            let options = CallOptions {
                time: Some(match attack.expected {
                    Expected::Silence => PATIENCE,
                    _ => Duration::from_secs(60),
                }),
                ..CallOptions::default()
            };
            let seen = Seen::call(
                range
                    .hostile()
                    .update_with(ATTACK, text.as_bytes(), &options),
            );
            let well = seen.is(attack.expected)
                || self.also.iter().any(|expected| seen.is(*expected))
                || no_32_bit_entry(name, &seen)
                || outer && attack.expected == Expected::Violation && is_refused(&seen);
            if !well && came.broke.is_none() {
                came.broke = Some(format!("{text}: {}", words(&seen)));
            }
            came.held += usize::from(well);
            came.evidence = words(&seen);
            // One that lives may go on with what it began.
            if !matches!(seen, Seen::Ended(_)) {
                range.end_workers();
            }
            if number % NEIGHBOUR_EACH == 0 {
                range.neighbour_is_right()?;
            }
        }
        range.neighbour_is_right()?;
        Ok(came)
    }
}

/// A kernel without `CONFIG_IA32_EMULATION` answers that entry with a signal.
fn no_32_bit_entry(name: &str, seen: &Seen) -> bool {
    name == "compat" && seen.is(Expected::Aborted("unexpected signal"))
}

/// What a container's filter answers to what it refuses.
fn is_refused(seen: &Seen) -> bool {
    [libc::EPERM, libc::ENOSYS]
        .into_iter()
        .any(|errno| *seen == Seen::Reply(format!("returned -{errno}")))
}

fn words(seen: &Seen) -> String {
    match seen {
        Seen::Reply(text) => format!("it lives, and says `{}`", short(text)),
        Seen::Ended(ending) => short(&ending.to_string()),
        Seen::Silence => "no answer in time, and killed".into(),
        Seen::Unreadable(text) | Seen::Other(text) => short(text),
    }
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
