//! The table of everything that crosses. `lazaret audit` prints it.

use crate::layout;
use crate::message::{call, host_call, setup};

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the worker.
    ToWorker,
    /// From the worker to the host.
    ToHost,
    /// Both write.
    Both,
}

/// What carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The shared memory file.
    SharedMemory,
    /// A message in the request or answer area.
    Message,
    /// The set-up socket, closed by the lock.
    SetupSocket,
    /// A pipe of a program's standard streams.
    Pipe,
    /// The worker's own memory, which the host copies out of and into
    /// (`process_vm_readv`, `process_vm_writev`).
    WorkerMemory,
}

/// One thing that crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// Its name.
    pub name: &'static str,
    /// What carries it.
    pub carrier: Carrier,
    /// Which way.
    pub direction: Direction,
    /// Which kinds of worker have it: `all`, or their names.
    pub workers: &'static str,
    /// The most bytes (or items, where `unit` says so).
    pub bound: u64,
    /// What `bound` counts.
    pub unit: &'static str,
    /// What the receiver does when it is wrong.
    pub when_wrong: &'static str,
}

macro_rules! crossing {
    ($name:literal, $carrier:ident, $direction:ident, $workers:literal, $bound:expr, $unit:literal, $wrong:literal) => {
        Crossing {
            name: $name,
            carrier: Carrier::$carrier,
            direction: Direction::$direction,
            workers: $workers,
            bound: $bound as u64,
            unit: $unit,
            when_wrong: $wrong,
        }
    };
}

const KILL: &str = "the worker is killed, the call fails, nothing of it is kept";

/// Everything that crosses between the host and a worker.
pub const TABLE: &[Crossing] = &[
    crossing!(
        "magic and version",
        SharedMemory,
        ToWorker,
        "all",
        12,
        "bytes",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "request bell and length",
        SharedMemory,
        ToWorker,
        "all",
        8,
        "bytes",
        "the worker ends itself"
    ),
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "answer bell and length",
            SharedMemory,
            ToHost,
            "all",
            8,
            "bytes",
            ""
        )
    },
    crossing!(
        "sleep flags",
        SharedMemory,
        Both,
        "all",
        8,
        "bytes",
        "a wake-up is missed or spare; every wait has a time limit"
    ),
    crossing!(
        "entered chunks",
        SharedMemory,
        ToHost,
        "tenant",
        4 + 2 * layout::CHUNKS_SIZE,
        "bytes",
        "chunks beyond the memory are ignored; pages left out are lost to this tenant only"
    ),
    crossing!(
        "written pages, with the signal tracker",
        SharedMemory,
        ToHost,
        "tenant",
        2 * layout::PAGES_SIZE,
        "bytes",
        "pages beyond the memory are ignored; pages left out are lost to this tenant only"
    ),
    crossing!(
        "transfer area: pages that the worker copies",
        SharedMemory,
        Both,
        "tenant",
        layout::TRANSFER_PAGES * layout::PAGE,
        "bytes",
        "nothing can be wrong: contents of the tenant's own pages"
    ),
    crossing!(
        "last words",
        SharedMemory,
        ToHost,
        "all",
        layout::LAST_WORDS_SIZE,
        "bytes",
        "cut and made valid UTF-8; only ever shown"
    ),
    crossing!(
        "log area",
        SharedMemory,
        ToHost,
        "tenant",
        layout::LOG_SIZE,
        "bytes",
        "the list ends at the first bad record; only ever shown"
    ),
    crossing!(
        "Assign",
        Message,
        ToWorker,
        "all",
        layout::REQUEST_SIZE,
        "bytes",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "Start",
        Message,
        ToWorker,
        "program",
        1,
        "bytes",
        "the worker ends itself"
    ),
    crossing!(
        "Call",
        Message,
        ToWorker,
        "tenant",
        layout::REQUEST_SIZE,
        "bytes",
        "the worker ends itself"
    ),
    crossing!(
        "Prepare",
        Message,
        ToWorker,
        "tenant",
        33 + 2 * (4 + 4 * call::MAX_OPENED),
        "bytes",
        "the worker ends itself"
    ),
    crossing!(
        "Transfer",
        Message,
        ToWorker,
        "tenant",
        7 + 13 * layout::TRANSFER_PAGES,
        "bytes",
        "the worker ends itself"
    ),
    crossing!(
        "HostReturn",
        Message,
        ToWorker,
        "tenant program",
        host_call::MAX_HOST_BYTES + 16,
        "bytes",
        "the worker ends itself"
    ),
    crossing!(
        "Grown",
        Message,
        ToWorker,
        "tenant",
        9,
        "bytes",
        "the worker ends itself"
    ),
    crossing!(
        "Compile",
        Message,
        ToWorker,
        "compiler",
        4,
        "bytes",
        "the worker ends itself"
    ),
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "Ready",
            Message,
            ToHost,
            "all",
            33 + 4 + 64 * (setup::MAX_NAME + 4),
            "bytes",
            ""
        )
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "Failed",
            Message,
            ToHost,
            "all",
            setup::MAX_TEXT + setup::MAX_NAME + 16,
            "bytes",
            ""
        )
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "Done",
            Message,
            ToHost,
            "tenant",
            layout::ANSWER_SIZE,
            "bytes",
            ""
        )
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!("Prepared", Message, ToHost, "tenant", 1, "bytes", "")
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!("Waiting", Message, ToHost, "tenant", 1, "bytes", "")
    },
    crossing!(
        "Grow",
        Message,
        ToHost,
        "tenant",
        9,
        "bytes",
        "refused if the node has too few; sizes beyond what was granted kill the worker"
    ),
    Crossing {
        when_wrong: KILL,
        ..crossing!("Transferred", Message, ToHost, "tenant", 1, "bytes", "")
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "HostCall",
            Message,
            ToHost,
            "tenant program",
            host_call::MAX_HOST_BYTES + 16,
            "bytes",
            ""
        )
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "Exited",
            Message,
            ToHost,
            "program",
            2 * setup::MAX_TEXT + 64,
            "bytes",
            ""
        )
    },
    Crossing {
        when_wrong: "the module is refused",
        ..crossing!(
            "Compiled",
            Message,
            ToHost,
            "compiler",
            layout::ANSWER_SIZE,
            "bytes",
            ""
        )
    },
    crossing!(
        "shared file",
        SetupSocket,
        ToWorker,
        "all",
        1,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "artefact, read-only, never changed",
        SetupSocket,
        ToWorker,
        "tenant program",
        1,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "files of the image, read-only",
        SetupSocket,
        ToWorker,
        "tenant",
        layout::MAX_FILES,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "standard streams",
        SetupSocket,
        ToWorker,
        "program",
        3,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "pages of a snapshot, read-only, never changed",
        SetupSocket,
        ToWorker,
        "program",
        1,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "granted directories",
        SetupSocket,
        ToWorker,
        "program",
        setup::MAX_PREOPENS,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    crossing!(
        "module in, artefact out",
        SetupSocket,
        ToWorker,
        "compiler",
        2,
        "descriptors",
        "the worker ends before it runs anything"
    ),
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "userfaultfd, with the kernel's tracker",
            SetupSocket,
            ToHost,
            "tenant",
            1,
            "descriptors",
            ""
        )
    },
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "the running filter's listener",
            SetupSocket,
            ToHost,
            "all",
            1,
            "descriptors",
            ""
        )
    },
    crossing!(
        "cards",
        WorkerMemory,
        Both,
        "tenant",
        2 * layout::MAX_MEMORY / layout::PAGE as u64,
        "bytes",
        "cards beyond the memory are ignored; a page without a card is lost to this tenant only"
    ),
    crossing!(
        "memory that an initialiser left",
        WorkerMemory,
        ToHost,
        "program",
        layout::MAX_MEMORY,
        "bytes",
        "no snapshot is made; a lie is lost to runs of the same module only"
    ),
    Crossing {
        when_wrong: KILL,
        ..crossing!(
            "pages that were written, pages put back",
            WorkerMemory,
            Both,
            "tenant",
            2 * layout::MAX_MEMORY,
            "bytes",
            ""
        )
    },
    crossing!(
        "standard input",
        Pipe,
        ToWorker,
        "program",
        u64::MAX,
        "bytes",
        "nothing can be wrong: bytes"
    ),
    crossing!(
        "standard output and error",
        Pipe,
        ToHost,
        "program",
        u64::MAX,
        "bytes",
        "cut at the output limit; control sequences are made harmless on a terminal"
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_messages_fit_their_area() {
        for (i, a) in TABLE.iter().enumerate() {
            assert!(
                TABLE[i + 1..].iter().all(|b| a.name != b.name),
                "{} is listed twice",
                a.name
            );
            assert!(!a.when_wrong.is_empty());
            if a.carrier == Carrier::Message {
                assert!(a.bound <= layout::ANSWER_SIZE as u64);
            }
        }
    }
}
