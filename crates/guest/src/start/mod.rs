//! The start of a worker: what it is given, what it becomes, its lock.
//!
//! Everything here runs before any guest code. A failure is answered as
//! [`Failed`], so that the host can say what was wrong and with which layer.
//! What runs once the lock is on is a [`Work`]: [`Guest`] in every product.

#[cfg(feature = "compiler")]
mod compiler;
mod program;
mod tenant;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use lazaret_wall::launcher::SETUP_FD;
use lazaret_wall::layers::landlock::Granted;
use lazaret_wall::policy::{Kind, Uses};
use lazaret_wall::worker::{Closed, Orders};
use lazaret_wall::{Layer, LayerError, Measure, Off};
use lazaret_wire::codec::Message;
use lazaret_wire::message::setup::LISTENER;
#[cfg(feature = "compiler")]
use lazaret_wire::message::{Artefact, CompileSettings, Compiled, Refused};
use lazaret_wire::message::{
    Assignment, Exited, Failed, FromWorker, Hello, Purpose, Ready, ToWorker, WorkerKind,
};
use lazaret_wire::socket::Channel;
use lazaret_wire::{Shared, Spin, layout};
use wasmtime::Engine;

use crate::abort::{self, Reason};
use crate::canister::Canister;
use crate::exchange::{self, Exchange};
use crate::program::Program;
use crate::{engine, memory};

/// A worker that is set up, and what it says when it is locked.
struct Prepared<T> {
    runs: T,
    heap_at: u64,
    stable_at: u64,
    cards_at: [u64; 2],
    kind: Kind,
    /// What Landlock leaves open.
    granted: Vec<(OwnedFd, bool)>,
    /// What the program does there.
    uses: Uses,
}

/// What a worker does once it is locked and the host has verified it.
///
/// The methods are what every worker does ([`Guest`] changes none of them).
/// The red team's worker replaces them by native code of its own, which then
/// has exactly the rights that guest code would have if it broke out of the
/// engine: everything before, the lock included, is this file's.
pub trait Work {
    /// Is told what the worker is for, before anything is loaded: the filter of
    /// the set-up is on, the last one isn't.
    fn assigned(&mut self, assignment: &Assignment) {
        let _ = assignment;
    }

    /// Answers the calls of a tenant, for ever.
    fn tenant(&mut self, canister: Canister, exchange: &mut Exchange) -> ! {
        canister.serve(exchange)
    }

    /// Runs a program that was given these arguments to its end.
    fn program(
        &mut self,
        program: Program,
        arguments: &[String],
        exchange: &mut Exchange,
    ) -> Exited {
        let _ = arguments;
        program.run(exchange)
    }

    /// Compiles a module: the code and its description, or what is wrong with
    /// the module.
    ///
    /// # Errors
    /// In words, for the module's author.
    #[cfg(feature = "compiler")]
    fn compiler(
        &mut self,
        wasm: &[u8],
        settings: &CompileSettings,
        exchange: &mut Exchange,
    ) -> Result<(Vec<u8>, Artefact), Refused> {
        let _ = exchange;
        crate::compiler::compile(wasm, settings)
    }
}

/// The work of every product: guest code, and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guest;

impl Work for Guest {}

/// Turns this process into a worker. Called by `init` when the launcher
/// executed it as one; never returns.
pub fn worker() -> ! {
    worker_with(Guest)
}

/// The same with other work. Start-up, set-up and lock are no different.
pub fn worker_with(mut work: impl Work) -> ! {
    let (channel, mut exchange, told, closed) = greet();
    let engine = or_fail(&mut exchange, get_ready(told.kind));
    if told.blank {
        exchange.answer(&FromWorker::Waiting);
    }
    // A blank worker sleeps here.
    let descriptors = match channel.receive_descriptors(layout::MAX_FILES + 1) {
        Ok(descriptors) => descriptors,
        Err(error) => abort::now(Reason::Wire, &error.to_string()),
    };
    let assignment = match exchange.next() {
        ToWorker::Assign(assign) => assign.assignment,
        other => abort::now(
            Reason::Wire,
            &format!("expected Assign, got {}", exchange::name(&other)),
        ),
    };
    if assignment.kind() != told.kind {
        abort::now(
            Reason::Wire,
            &format!(
                "a worker for a {:?} was assigned to a {:?}",
                told.kind,
                assignment.kind()
            ),
        );
    }
    work.assigned(&assignment);
    let shared = exchange.shared();
    match assignment {
        Assignment::Tenant(setup) => {
            let prepared = or_fail(
                &mut exchange,
                tenant::prepare(engine.as_ref(), &setup, descriptors, &channel, shared),
            );
            let canister = lock(channel, &mut exchange, prepared, &told, closed);
            exchange.set_spin(Spin::HOT);
            work.tenant(canister, &mut exchange)
        }
        Assignment::Program(setup) => {
            let prepared = or_fail(
                &mut exchange,
                program::prepare(engine.as_ref(), &setup, descriptors),
            );
            let program = lock(channel, &mut exchange, prepared, &told, closed);
            match exchange.next() {
                ToWorker::Start => {}
                other => abort::now(
                    Reason::Wire,
                    &format!("expected Start, got {}", exchange::name(&other)),
                ),
            }
            let exited = work.program(program, &setup.arguments, &mut exchange);
            exchange.answer(&FromWorker::Exited(exited));
        }
        #[cfg(not(feature = "compiler"))]
        Assignment::Compiler => or_fail(
            &mut exchange,
            Err(failed("this executable has no compiler in it")),
        ),
        #[cfg(feature = "compiler")]
        Assignment::Compiler => {
            let prepared = or_fail(&mut exchange, compiler::prepare(descriptors));
            lock(channel, &mut exchange, prepared, &told, closed);
            let settings = match exchange.next() {
                ToWorker::Compile(compile) => compile.settings,
                other => abort::now(
                    Reason::Wire,
                    &format!("expected Compile, got {}", exchange::name(&other)),
                ),
            };
            let result = compiler::run(&mut work, &settings, &mut exchange);
            exchange.answer(&FromWorker::Compiled(Compiled { result }));
        }
    }
    // Its work is done: the host ends it.
    let request = exchange.next();
    abort::now(
        Reason::Wire,
        &format!(
            "nothing more was expected, got {}",
            exchange::name(&request)
        ),
    )
}

/// Does what doesn't depend on the module that will be run: what a blank worker
/// has behind it when it is assigned.
fn get_ready(kind: WorkerKind) -> Result<Option<Engine>, Failed> {
    memory::allocator::settle();
    // The seeds of hash tables, once for the life of the thread: a tenant and
    // a compiler have no getrandom later.
    drop(std::hash::RandomState::new());
    // What the processor can do, which an artefact is compared with: to ask it is an
    // instruction that a virtual machine leaves to its host.
    #[cfg(target_arch = "x86_64")]
    std::hint::black_box(std::is_x86_feature_detected!("sse3"));
    let purpose = match kind {
        WorkerKind::Tenant => Purpose::Tenant,
        WorkerKind::Program => Purpose::Program,
        WorkerKind::Compiler => return Ok(None),
    };
    let engine = engine::running(purpose).map_err(|error| failed(format!("engine: {error:#}")))?;
    if kind == WorkerKind::Tenant {
        engine::prepare_thread();
    }
    Ok(Some(engine))
}

/// What the host says first.
struct Told {
    kind: WorkerKind,
    blank: bool,
    accepted: Vec<Layer>,
    off: Off,
    dumpable: bool,
    /// Measures that are left out.
    measures_off: Vec<Measure>,
}

impl Told {
    fn orders(&self) -> Orders<'_> {
        Orders {
            accepted: &self.accepted,
            off: self.off,
            dumpable: self.dumpable,
        }
    }
}

/// Takes the shared memory, and closes this process in.
fn greet() -> (Channel, Exchange, Told, Closed) {
    // SAFETY: the launcher put the socket there, and nothing else uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(SETUP_FD) };
    let fail = |text: String| -> ! {
        // There is no shared memory to say it in.
        eprintln!("lazaret worker: {text}; this process is started by Lazaret itself");
        std::process::exit(2)
    };
    let channel = match Channel::from_descriptor(socket) {
        Ok(channel) => channel,
        Err(error) => fail(error.to_string()),
    };
    let datagram = match channel.receive() {
        Ok(datagram) => datagram,
        Err(error) => fail(error.to_string()),
    };
    let hello = match Hello::from_bytes(&datagram.bytes) {
        Ok(hello) => hello,
        Err(error) => fail(error.to_string()),
    };
    let shared = match datagram
        .descriptors
        .first()
        .map(|file| Shared::map_between_canaries(file.as_fd()))
    {
        Some(Ok(shared)) => shared,
        Some(Err(error)) => fail(error.to_string()),
        None => fail("no shared memory was handed over".into()),
    };
    drop(datagram);
    // One for the life of the process.
    let shared: &'static Shared = Box::leak(Box::new(shared));
    abort::arm(shared);
    if let Err(error) = abort::arm_signals() {
        abort::now(Reason::Signal, &format!("sigaction: {error}"));
    }
    let mut exchange = Exchange::new(shared);
    let accepted: Vec<Layer> = hello
        .accept_missing
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    let off = or_fail(&mut exchange, Off::from_names(&hello.off).map_err(failed));
    let told = Told {
        kind: hello.kind,
        blank: hello.blank,
        accepted,
        off,
        dumpable: hello.dumpable,
        measures_off: hello
            .measures_off
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect(),
    };
    let closed = or_fail(
        &mut exchange,
        lazaret_wall::worker::close_in(told.orders()).map_err(layer_failed),
    );
    (channel, exchange, told, closed)
}

fn layer_failed(error: LayerError) -> Failed {
    Failed {
        layer: Some(error.layer.name().to_owned()),
        message: error.to_string(),
    }
}

fn failed(message: impl Into<String>) -> Failed {
    Failed {
        layer: None,
        message: message.into(),
    }
}

/// Answers a failure and waits to be ended.
fn or_fail<T>(exchange: &mut Exchange, result: Result<T, Failed>) -> T {
    match result {
        Ok(value) => value,
        Err(failed) => {
            exchange.answer(&FromWorker::Failed(failed));
            loop {
                let _ = exchange.next();
            }
        }
    }
}

/// The last steps: no socket, no descriptor that isn't listed, and the lock.
fn lock<T>(
    channel: Channel,
    exchange: &mut Exchange,
    prepared: Prepared<T>,
    told: &Told,
    closed: Closed,
) -> T {
    let granted: Vec<Granted<'_>> = prepared
        .granted
        .iter()
        .map(|(directory, writable)| Granted {
            directory: directory.as_fd(),
            writable: *writable,
            uses: prepared.uses,
        })
        .collect();
    // From here on nothing of this process reads a fine clock.
    let untaken = lazaret_wall::measures::apply(&told.measures_off);
    let locked = lazaret_wall::worker::lock(closed, prepared.kind, &granted, told.orders());
    let locked = or_fail(exchange, locked.map_err(layer_failed));
    let listener: Vec<BorrowedFd<'_>> = locked.listener.iter().map(AsFd::as_fd).collect();
    if let Err(error) = channel.send(LISTENER, &listener) {
        abort::now(Reason::Wire, &error.to_string());
    }
    drop(locked.listener);
    drop(channel);
    drop(prepared.granted);
    exchange.answer(&FromWorker::Ready(Ready {
        heap_at: prepared.heap_at,
        stable_at: prepared.stable_at,
        cards_at: prepared.cards_at,
        missing: locked
            .missing
            .iter()
            .map(|layer| layer.name().to_owned())
            .chain(untaken.iter().map(|measure| measure.name().to_owned()))
            .collect(),
    }));
    prepared.runs
}

/// Puts a descriptor at a fixed number, so that the filter can name it.
fn place(from: OwnedFd, number: i32) -> Result<OwnedFd, Failed> {
    if from.as_raw_fd() == number {
        return Ok(from);
    }
    // SAFETY: `from` is open; `number` is one of 0 to 2, which hold the
    // launcher's /dev/null and belong to nobody.
    if unsafe { libc::dup3(from.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        return Err(failed(format!(
            "place descriptor {number}: {}",
            std::io::Error::last_os_error()
        )));
    }
    // SAFETY: dup3 has just made it, and there is no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn close(number: i32) {
    // SAFETY: one of 0 to 2, which belong to nobody.
    unsafe { libc::close(number) };
}
