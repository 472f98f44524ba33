//! Runs one program in this process, without a wall.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use lazaret_guest::engine;
use lazaret_guest::exchange::Exchange;
use lazaret_guest::program::Program;
use lazaret_wire::message::{Beginning, Clock, Exited, Failed, Preopen, ProgramSetup, Purpose};
use lazaret_wire::{Shared, shared};
use wasmtime::Engine;

/// The engine that runs the programs of all tests in this process.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine::running(Purpose::Program).expect("an engine"))
}

/// A set-up with nothing but a name and 64 MiB.
pub fn setup() -> ProgramSetup {
    ProgramSetup {
        arguments: vec!["program".to_owned()],
        environment: Vec::new(),
        preopens: Vec::new(),
        memory_limit: 64 << 20,
        fuel: None,
        host_functions: Vec::new(),
        learn: false,
        uses: u32::MAX,
        clock: Clock::Coarse,
        beginning: Beginning::Fresh,
    }
}

/// A module of `tests/fixtures/wat`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/wat")
        .join(name)
        .with_extension("wat");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compiles a module, in text or binary form, into a file.
pub fn compile(module: &[u8]) -> File {
    let compiling = engine::compiling(Purpose::Program).expect("an engine");
    let artefact = compiling.precompile_module(module).expect("it compiles");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&artefact).expect("written");
    file
}

/// A wire that nobody reads.
pub fn exchange() -> Exchange {
    let file = shared::create().expect("shared memory");
    Exchange::new(Box::leak(Box::new(
        Shared::map(std::os::fd::AsFd::as_fd(&file)).expect("mapped"),
    )))
}

/// A pipe: its reading and its writing end.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe")
}

/// What a program left behind.
#[derive(Debug)]
pub struct Ran {
    pub exited: Exited,
    pub stdout: String,
    pub stderr: String,
}

/// Loads and runs a compiled program with `input`, and collects its output.
pub fn run_with(
    artefact: &File,
    setup: &ProgramSetup,
    input: OwnedFd,
    directories: &[(&Path, bool)],
) -> Result<Ran, Failed> {
    // Loading changes the working directory: of this thread alone, from now on.
    // SAFETY: it affects no memory, and the paths below are absolute.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }
        .expect("a working directory of its own");
    let setup = ProgramSetup {
        preopens: directories
            .iter()
            .enumerate()
            .map(|(number, (_, writable))| Preopen {
                guest: format!("/{number}"),
                writable: *writable,
            })
            .collect(),
        ..setup.clone()
    };
    let directories = directories
        .iter()
        .map(|(path, _)| OwnedFd::from(File::open(path).expect("a directory")))
        .collect();
    let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe(), pipe());
    let collect = |end: OwnedFd| {
        std::thread::spawn(move || {
            let mut text = String::new();
            File::from(end).read_to_string(&mut text).expect("UTF-8");
            text
        })
    };
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    let program = Program::load(
        engine(),
        artefact,
        &setup,
        [input, stdout_end, stderr_end],
        None,
        directories,
    )?;
    let exited = program.run(&mut exchange());
    Ok(Ran {
        exited,
        stdout: stdout.join().expect("stdout"),
        stderr: stderr.join().expect("stderr"),
    })
}

/// Runs a module with these bytes as its input.
pub fn run(
    module: &[u8],
    setup: &ProgramSetup,
    input: &[u8],
    directories: &[(&Path, bool)],
) -> Result<Ran, Failed> {
    let (reader, writer) = pipe();
    let input = input.to_vec();
    // Ends when the program stops reading, by EPIPE.
    std::thread::spawn(move || File::from(writer).write_all(&input));
    run_with(&compile(module), setup, reader, directories)
}
