//! Kernel objects through which two tenants could tell each other something, or
//! one could learn what another does: who closes each, and what a process could
//! try. `docs/covert-channels.md` is this table in words.

mod table;

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard, Value, numbers, values};
use crate::inside::Inside;

pub use table::CHANNELS;

/// The filter: none of these calls is allowed.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

/// The processor, which the kernel has told to refuse it: SIGSEGV at no address
/// that the handler of the guest's traps knows.
const MEASURE: Guard = Guard::Ending;
const CRASH: Expected = Expected::Aborted("unexpected signal");

/// How a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Closed, and by what.
    Closed(&'static str),
    /// Open, and how far.
    Open(&'static str),
}

/// One channel.
#[derive(Debug, Clone, Copy)]
pub struct Channel {
    /// What is shared.
    pub object: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What a process would do to use it: system calls that are forbidden to a
    /// tenant and to the program that may do most.
    pub calls: &'static [Try],
    /// Other tests that show it.
    pub shown_by: &'static str,
}

/// A system call that is forbidden to everybody.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub number: i64,
    /// What it is called with.
    pub arguments: [Value; 6],
}

const fn call<const N: usize>(name: &'static str, number: i64, arguments: [u64; N]) -> Try {
    Try {
        name,
        number,
        arguments: numbers(arguments),
    }
}

/// A call some of whose arguments are memory of the attacker's.
const fn with_memory<const N: usize>(
    name: &'static str,
    number: i64,
    arguments: [Value; N],
) -> Try {
    Try {
        name,
        number,
        arguments: values(arguments),
    }
}

const M: Value = Value::Memory;
const fn n(number: u64) -> Value {
    Value::Number(number)
}

/// Instructions that time, and opening what the kernel tells of the machine.
pub const ATTACKS: &[Attack] = &[
    Attack::native("rdtsc", MEASURE, CRASH, rdtsc),
    Attack::native("rdtscp", MEASURE, CRASH, rdtscp),
    Attack::native("rdpmc", MEASURE, CRASH, rdpmc),
    Attack::native("clock", STOPPED_BY, Expected::Violation, clock),
    Attack::native("channel", STOPPED_BY, Expected::Violation, channel),
];

/// `clock NUMBER`: asks the kernel for that clock.
fn clock(inside: &mut Inside<'_>) -> String {
    let mut time = [0u64; 2];
    let (clock, into) = (inside.number(), time.as_mut_ptr() as u64);
    // SAFETY: room for a timespec on this stack.
    let result = unsafe {
        crate::system_call::system_call(libc::SYS_clock_gettime, [clock, into, 0, 0, 0, 0])
    };
    format!("returned {result}: {time:?}")
}

fn rdtsc(_: &mut Inside<'_>) -> String {
    // SAFETY: reads a counter, or ends this process.
    format!("read {}", unsafe { core::arch::x86_64::_rdtsc() })
}

fn rdtscp(_: &mut Inside<'_>) -> String {
    let mut processor = 0;
    // SAFETY: as above.
    let time = unsafe { core::arch::x86_64::__rdtscp(&raw mut processor) };
    format!("read {time} on {processor}")
}

fn rdpmc(_: &mut Inside<'_>) -> String {
    let (low, high): (u32, u32);
    // SAFETY: as above; the first general counter.
    unsafe {
        core::arch::asm!("rdpmc", in("ecx") 0, out("eax") low, out("edx") high,
            options(nomem, nostack));
    }
    format!("read {high}:{low}")
}

/// `channel C T`: call T of channel C.
fn channel(inside: &mut Inside<'_>) -> String {
    let numbers: Vec<usize> = inside
        .argument
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [channel, attempt] = numbers.as_slice() else {
        return "which?".into();
    };
    let Some(attempt) = CHANNELS
        .get(*channel)
        .and_then(|channel| channel.calls.get(*attempt))
    else {
        return "there is no such call".into();
    };
    let arguments = attempt.arguments.map(|value| inside.resolve(value));
    // SAFETY: none is wanted.
    let result = unsafe { crate::system_call::system_call(attempt.number, arguments) };
    format!("{} returned {result}", attempt.name)
}
