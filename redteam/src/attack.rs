//! What an attack is: a name, what must stop it, how that ends, what it does.

use lazaret_wall::Layer;

use crate::inside::Inside;

/// What must stop an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A layer of the wall.
    Layer(Layer),
    /// The wire: bells have one next value, lengths a bound, messages one
    /// decoding.
    Wire,
    /// The host's check of an answer against what is possible.
    Possible,
    /// The host's time limit.
    Deadline,
    /// The host's copying of pages: it reads and writes another process's
    /// memory, and nothing there can make more of it than an error.
    Pages,
    /// The bounds of the host functions that the embedder offers.
    HostFunctions,
    /// The host looks at its workers again now and then.
    Posture,
    /// The host tells how a worker ended from the kernel's word first.
    Ending,
}

/// How an attack must end, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The kernel killed the worker for a forbidden system call.
    Violation,
    /// The host killed it for what it wrote on the wire.
    Malformed,
    /// It ended itself with this reason.
    Aborted(&'static str),
    /// It ran out of its own memory.
    OutOfMemory,
    /// This signal ended it.
    Signal(i32),
    /// It exited with this code.
    Exited(i32),
    /// It said nothing, and was killed.
    Silence,
    /// The host could not copy its pages: the call fails.
    Unreadable,
    /// It lives, and answers with a text that begins so.
    Reply(&'static str),
}

/// An argument of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// The address of 64 KiB of the attacker's own zeros.
    Memory,
    /// The address of the memory that is shared with the host.
    Shared,
    /// The address of the tenant's heap.
    Heap,
    /// The address of a page of the worker's own code.
    Code,
}

/// What an attack does.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// One system call.
    SystemCall(i64, [Value; 6]),
    /// Native code. What it returns is the worker's answer.
    Native(fn(&mut Inside<'_>) -> String),
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Its name, which starts it.
    pub name: &'static str,
    /// What must stop it.
    pub stopped_by: Guard,
    /// How it must end.
    pub expected: Expected,
    /// What it does.
    pub how: How,
}

impl Attack {
    /// A forbidden system call.
    pub const fn call(
        name: &'static str,
        stopped_by: Guard,
        number: i64,
        arguments: [Value; 6],
    ) -> Self {
        Self {
            name,
            stopped_by,
            expected: Expected::Violation,
            how: How::SystemCall(number, arguments),
        }
    }

    /// Native code.
    pub const fn native(
        name: &'static str,
        stopped_by: Guard,
        expected: Expected,
        run: fn(&mut Inside<'_>) -> String,
    ) -> Self {
        Self {
            name,
            stopped_by,
            expected,
            how: How::Native(run),
        }
    }
}

/// Six arguments from up to six numbers; the rest is 0.
pub const fn numbers<const N: usize>(given: [u64; N]) -> [Value; 6] {
    let mut all = [Value::Number(0); 6];
    let mut i = 0;
    while i < N {
        all[i] = Value::Number(given[i]);
        i += 1;
    }
    all
}

/// Six arguments from up to six values; the rest is 0.
pub const fn values<const N: usize>(given: [Value; N]) -> [Value; 6] {
    let mut all = [Value::Number(0); 6];
    let mut i = 0;
    while i < N {
        all[i] = given[i];
        i += 1;
    }
    all
}
