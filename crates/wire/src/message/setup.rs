//! Set-up: what a blank worker becomes.

use super::byte_enum;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};

/// The longest text of an error or a trap, in bytes.
pub const MAX_TEXT: usize = 64 << 10;
/// The most arguments or environment variables of a program.
pub const MAX_STRINGS: usize = 4096;
/// The longest argument or environment variable, in bytes.
pub const MAX_STRING: usize = 1 << 20;
/// The most directories a program is given.
pub const MAX_PREOPENS: usize = 64;
/// The most runs of pages a worker is given: what fits in the request area.
pub const MAX_RUNS: usize = 100_000;
/// The most host functions of a tenant.
pub const MAX_HOST_FUNCTIONS: usize = 256;
/// The longest name of a host function, in bytes.
pub const MAX_NAME: usize = 256;

byte_enum! {
    /// What a worker is for. Its filter is derived from this and its grants.
    WorkerKind, "worker kind" {
        /// Runs a WASI program once.
        Program = 0,
        /// Runs a tenant's calls.
        Tenant = 1,
        /// Compiles one module.
        Compiler = 2,
    }
}

byte_enum! {
    /// What a program is told of time.
    Clock, "clock" {
        /// The kernel's clocks as they are.
        Exact = 0,
        /// Clocks that move on with the kernel's tick, every 1 to 10 ms.
        Coarse = 1,
        /// Clocks that show when the program was loaded.
        Frozen = 2,
    }
}

byte_enum! {
    /// One of a tenant's two memories.
    Region, "region" {
        /// The module's linear memory.
        Heap = 0,
        /// The stable memory of the `ic0` interface.
        Stable = 1,
    }
}

byte_enum! {
    /// How the host learns which pages a call wrote.
    Tracking, "tracking" {
        /// It doesn't: nothing is kept.
        None = 0,
        /// The kernel says: write-protection by userfaultfd, read from outside.
        Kernel = 1,
        /// The worker notes it: a byte for each page, set before the page is
        /// written, by compiled code and by system calls alike.
        Cards = 2,
        /// The worker's fault handler notes it: pages are read-only until
        /// their first write in a call.
        Signal = 3,
    }
}

/// A directory that a program finds opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preopen {
    /// Its path in the guest.
    pub guest: String,
    /// Whether the guest may write in it.
    pub writable: bool,
}

/// Pages that lie one after another in memory and in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which memory.
    pub region: Region,
    /// The first page (address / 4096).
    pub first_page: u64,
    /// How many pages.
    pub pages: u64,
    /// Which of the files handed over, counted from 0.
    pub file: u16,
    /// Where in the file, in bytes; a multiple of 4096.
    pub offset: u64,
}

/// A function of the embedder's that a guest may import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidedFunction {
    /// Its name.
    pub name: String,
    /// What a call costs, in fuel.
    pub fuel: u64,
}

impl Message for ProvidedFunction {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.bytes("host function", self.name.as_bytes(), MAX_NAME)?
            .u64(self.fuel);
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: from.text("host function", MAX_NAME)?.to_owned(),
            fuel: from.u64("fuel of a host function")?,
        })
    }
}

/// A WASI program. Descriptors: artefact, standard input, output, error, the
/// pages of its snapshot if it begins from one, then one for each directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSetup {
    /// Arguments, the program's name first.
    pub arguments: Vec<String>,
    /// Environment variables, `NAME=value`.
    pub environment: Vec<String>,
    /// Directories.
    pub preopens: Vec<Preopen>,
    /// The most bytes that all memories and tables may have.
    pub memory_limit: u64,
    /// Fuel, if the module is metered.
    pub fuel: Option<u64>,
    /// Host functions, in the order of their numbers.
    pub host_functions: Vec<ProvidedFunction>,
    /// What its imports can need system calls for: the bits of
    /// `lazaret_wall::policy::Uses`.
    pub uses: u32,
    /// Whether the filter follows no uses: each call for them is the host's to
    /// let go on, for `lazaret learn`.
    pub learn: bool,
    /// What it is told of time.
    pub clock: Clock,
    /// What it begins with.
    pub beginning: super::Beginning,
}

/// A tenant. Descriptors: artefact, then one for each file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSetup {
    /// The most bytes the heap may have.
    pub heap_limit: u64,
    /// The most bytes the stable memory may have.
    pub stable_limit: u64,
    /// What the image holds.
    pub sizes: super::Sizes,
    /// Where its pages are.
    pub runs: Vec<Run>,
    /// Runs of at least so many pages are mapped, at most
    /// [`MAX_MAPPED_RUNS`](crate::layout::MAX_MAPPED_RUNS); shorter ones are
    /// copied into anonymous memory.
    pub map_from: u64,
    /// How writes are tracked.
    pub tracking: Tracking,
    /// Whether one instance may serve all calls ([`Artefact::reusable`]); else
    /// each call gets a fresh one on the same memory.
    ///
    /// [`Artefact::reusable`]: super::Artefact::reusable
    pub reusable: bool,
    /// Whether growing the memories is to be granted first
    /// ([`FromWorker::Grow`](super::FromWorker::Grow)), as the node has a budget.
    pub budgeted: bool,
    /// Host functions, in the order of their numbers.
    pub host_functions: Vec<ProvidedFunction>,
}

/// What to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// A program.
    Program(ProgramSetup),
    /// A tenant.
    Tenant(TenantSetup),
    /// A compiler. Descriptors: input (the module), output (the artefact).
    Compiler,
}

impl Assignment {
    /// The kind of worker that this makes.
    pub fn kind(&self) -> WorkerKind {
        match self {
            Self::Program(_) => WorkerKind::Program,
            Self::Tenant(_) => WorkerKind::Tenant,
            Self::Compiler => WorkerKind::Compiler,
        }
    }
}

/// The first datagram on the set-up socket. Descriptors: the shared file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What it is going to be assigned to, so that it can get ready for that.
    pub kind: WorkerKind,
    /// Whether it says that it waits, as it isn't assigned yet.
    pub blank: bool,
    /// Names of layers whose absence the operator has accepted.
    pub accept_missing: Vec<String>,
    /// Names of layers that the host leaves out on purpose
    /// (`lazaret_wall::Off::names`).
    pub off: Vec<String>,
    /// Whether the worker stays open to processes of its own user, as the host
    /// could not look at it otherwise (`lazaret_wall::worker::Orders`).
    pub dumpable: bool,
    /// Names of measures that are left out on purpose.
    pub measures_off: Vec<String>,
}

impl Message for Hello {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.kind.encode(to)?;
        to.flag(self.blank);
        to.list("accepted layers", &self.accept_missing, 64, |to, name| {
            to.bytes("layer", name.as_bytes(), MAX_NAME).map(drop)
        })?;
        to.list("layers left out", &self.off, 64, |to, name| {
            to.bytes("layer", name.as_bytes(), MAX_NAME).map(drop)
        })?
        .flag(self.dumpable);
        to.list("measures off", &self.measures_off, 64, |to, name| {
            to.bytes("measure", name.as_bytes(), MAX_NAME).map(drop)
        })
        .map(drop)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: WorkerKind::decode(from)?,
            blank: from.flag("blank")?,
            accept_missing: from.list("accepted layers", 64, |from| {
                from.text("layer", MAX_NAME).map(str::to_owned)
            })?,
            off: from.list("layers left out", 64, |from| {
                from.text("layer", MAX_NAME).map(str::to_owned)
            })?,
            dumpable: from.flag("dumpable")?,
            measures_off: from.list("measures off", 64, |from| {
                from.text("measure", MAX_NAME).map(str::to_owned)
            })?,
        })
    }
}

/// The first request: what to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// What to become.
    pub assignment: Assignment,
}

impl Assignment {
    pub(super) fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.kind().encode(to)?;
        let string = |field| {
            move |to: &mut Writer<'_>, text: &String| {
                to.bytes(field, text.as_bytes(), MAX_STRING).map(drop)
            }
        };
        let provided = |to: &mut Writer<'_>, function: &ProvidedFunction| function.encode(to);
        match self {
            Assignment::Compiler => Ok(()),
            Assignment::Program(p) => {
                to.list("arguments", &p.arguments, MAX_STRINGS, string("argument"))?;
                to.list(
                    "environment",
                    &p.environment,
                    MAX_STRINGS,
                    string("variable"),
                )?;
                to.list("preopens", &p.preopens, MAX_PREOPENS, |to, preopen| {
                    to.bytes("guest path", preopen.guest.as_bytes(), MAX_STRING)?
                        .flag(preopen.writable);
                    Ok(())
                })?;
                to.u64(p.memory_limit).option(p.fuel.as_ref(), |to, fuel| {
                    to.u64(*fuel);
                    Ok(())
                })?;
                to.list(
                    "host functions",
                    &p.host_functions,
                    MAX_HOST_FUNCTIONS,
                    provided,
                )?;
                to.u32(p.uses).flag(p.learn);
                p.clock.encode(to)?;
                p.beginning.encode(to)
            }
            Assignment::Tenant(t) => {
                to.u64(t.heap_limit).u64(t.stable_limit);
                t.sizes.encode(to)?;
                to.list("runs", &t.runs, MAX_RUNS, |to, run| {
                    run.region.encode(to)?;
                    to.u64(run.first_page)
                        .u64(run.pages)
                        .u16(run.file)
                        .u64(run.offset);
                    Ok(())
                })?;
                to.u64(t.map_from);
                t.tracking.encode(to)?;
                to.flag(t.reusable).flag(t.budgeted);
                to.list(
                    "host functions",
                    &t.host_functions,
                    MAX_HOST_FUNCTIONS,
                    provided,
                )
                .map(drop)
            }
        }
    }
}

impl Message for Assign {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.assignment.encode(to)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let string =
            |field| move |from: &mut Reader<'_>| from.text(field, MAX_STRING).map(str::to_owned);
        let assignment = match WorkerKind::decode(from)? {
            WorkerKind::Compiler => Assignment::Compiler,
            WorkerKind::Program => Assignment::Program(ProgramSetup {
                arguments: from.list("arguments", MAX_STRINGS, string("argument"))?,
                environment: from.list("environment", MAX_STRINGS, string("variable"))?,
                preopens: from.list("preopens", MAX_PREOPENS, |from| {
                    Ok(Preopen {
                        guest: from.text("guest path", MAX_STRING)?.to_owned(),
                        writable: from.flag("writable")?,
                    })
                })?,
                memory_limit: from.u64("memory limit")?,
                fuel: from.option("fuel", |from| from.u64("fuel"))?,
                host_functions: from.list(
                    "host functions",
                    MAX_HOST_FUNCTIONS,
                    ProvidedFunction::decode,
                )?,
                uses: from.u32("uses")?,
                learn: from.flag("learn")?,
                clock: Clock::decode(from)?,
                beginning: super::Beginning::decode(from)?,
            }),
            WorkerKind::Tenant => Assignment::Tenant(TenantSetup {
                heap_limit: from.u64("heap limit")?,
                stable_limit: from.u64("stable limit")?,
                sizes: super::Sizes::decode(from)?,
                runs: from.list("runs", MAX_RUNS, |from| {
                    Ok(Run {
                        region: Region::decode(from)?,
                        first_page: from.u64("first page")?,
                        pages: from.u64("pages")?,
                        file: from.u16("file")?,
                        offset: from.u64("offset")?,
                    })
                })?,
                map_from: from.u64("least mapped run")?,
                tracking: Tracking::decode(from)?,
                reusable: from.flag("reusable")?,
                budgeted: from.flag("budgeted")?,
                host_functions: from.list(
                    "host functions",
                    MAX_HOST_FUNCTIONS,
                    ProvidedFunction::decode,
                )?,
            }),
        };
        Ok(Self { assignment })
    }
}

/// The text of the datagram that a worker sends when its last filter is on,
/// with the filter's listener if it has one.
pub const LISTENER: &[u8] = b"listener";

/// Set up and locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where the heap begins in the worker's address space; 0 if it has none.
    /// The host checks that it is page-aligned and below 2^47. A lie makes the
    /// host read other memory of the same worker, or fail.
    pub heap_at: u64,
    /// The same of the stable memory.
    pub stable_at: u64,
    /// The same of the cards of heap and stable memory; 0 where there are none.
    pub cards_at: [u64; 2],
    /// Layers and measures that the worker could not apply, by name. The host checks from
    /// outside what can be checked.
    pub missing: Vec<String>,
}

impl Message for Ready {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u64(self.heap_at)
            .u64(self.stable_at)
            .u64(self.cards_at[0])
            .u64(self.cards_at[1]);
        to.list("missing layers", &self.missing, 64, |to, name| {
            to.bytes("layer", name.as_bytes(), MAX_NAME).map(drop)
        })?;
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            heap_at: from.u64("heap address")?,
            stable_at: from.u64("stable address")?,
            cards_at: [
                from.u64("address of the heap's cards")?,
                from.u64("address of the stable memory's cards")?,
            ],
            missing: from.list("missing layers", 64, |from| {
                from.text("layer", MAX_NAME).map(str::to_owned)
            })?,
        })
    }
}

/// Could not be set up or locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The layer of the wall that failed, if it was one.
    pub layer: Option<String>,
    /// What went wrong.
    pub message: String,
}

impl Message for Failed {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.option(self.layer.as_ref(), |to, layer| {
            to.bytes("layer", layer.as_bytes(), MAX_NAME).map(drop)
        })?;
        to.bytes("message", self.message.as_bytes(), MAX_TEXT)?;
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            layer: from.option("layer", |from| {
                from.text("layer", MAX_NAME).map(str::to_owned)
            })?,
            message: from.text("message", MAX_TEXT)?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_layers_comes_back_as_it_was_sent() {
        let sent = Hello {
            kind: WorkerKind::Tenant,
            blank: true,
            accept_missing: vec!["mdwe".into()],
            off: vec!["seccomp".into(), "landlock".into()],
            measures_off: vec!["store-bypass".to_owned()],
            dumpable: true,
        };
        let mut bytes = Vec::new();
        sent.to_bytes(&mut bytes).unwrap();
        assert_eq!(Hello::from_bytes(&bytes), Ok(sent));
        bytes.pop();
        assert!(Hello::from_bytes(&bytes).is_err());
    }

    #[test]
    fn a_tenant_comes_back_as_it_was_sent() {
        let run = Run {
            region: Region::Stable,
            first_page: 3,
            pages: 16,
            file: 1,
            offset: 1 << 40,
        };
        for (tracking, reusable) in [
            (Tracking::None, true),
            (Tracking::Kernel, false),
            (Tracking::Cards, true),
            (Tracking::Signal, true),
        ] {
            let sent = Assign {
                assignment: Assignment::Tenant(TenantSetup {
                    heap_limit: 1 << 32,
                    stable_limit: 1 << 33,
                    sizes: crate::message::Sizes {
                        heap: 1 << 16,
                        stable: 2 << 16,
                    },
                    runs: vec![
                        run,
                        Run {
                            region: Region::Heap,
                            ..run
                        },
                    ],
                    map_from: 17,
                    tracking,
                    reusable,
                    budgeted: !reusable,
                    host_functions: vec![ProvidedFunction {
                        name: "log".to_owned(),
                        fuel: 7,
                    }],
                }),
            };
            let mut bytes = Vec::new();
            sent.to_bytes(&mut bytes).unwrap();
            assert_eq!(Assign::from_bytes(&bytes).unwrap(), sent);
            bytes.pop();
            assert!(Assign::from_bytes(&bytes).is_err());
        }
    }
}
