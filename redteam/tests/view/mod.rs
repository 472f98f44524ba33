//! A host, its workers, and what can be seen of them from outside, through
//! `/proc`.
// Every test binary uses a part of this.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../tests/older_kernels.rs"]
pub mod older_kernels;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use lazaret::wall::layers::descriptors;
use lazaret::wall::{Kind, Profile};
use lazaret::{Host, Input, Output, Report, RunError, Verdict};

use crate::process::{WORKER_EXE, found};

const POLL: &str = include_str!("../../../tests/fixtures/wat/poll.wat");

/// The layers that are namespaces, as `/proc/PID/ns` names them. A time
/// namespace is not among them: it would only hide the host's uptime, which
/// the vDSO's clocks tell anyway.
const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

pub fn data() -> PathBuf {
    std::env::temp_dir().join("data")
}

pub fn host() -> Host {
    builder().build().expect("a host")
}

pub fn builder() -> lazaret::Builder {
    lazaret::init();
    older_kernels::builder()
        .worker_exe(std::env::var_os(WORKER_EXE).expect("set by the parent"))
        .data_dir(data())
        .relaxed_durability()
        // Each process is accounted for.
        .pool(|pool| pool.blanks = 0)
}

pub fn text(pid: i32, file: &str) -> String {
    String::from_utf8_lossy(
        &fs::read(format!("/proc/{pid}/{file}"))
            .unwrap_or_else(|error| panic!("/proc/{pid}/{file}: {error}")),
    )
    .into_owned()
}

/// What is open, by number: what the link leads to, in the words of
/// [`descriptors::Listed`].
fn open(pid: i32) -> BTreeMap<i32, String> {
    let kind = |target: &str| match target.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None if target.starts_with("/memfd:lazaret-code") => "memfd".to_owned(),
        None if target.starts_with('/') => "path".to_owned(),
        None => target.to_owned(),
    };
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .map(|entry| {
            let entry = entry.expect("a descriptor");
            let target = fs::read_link(entry.path()).expect("its target");
            let number = entry.file_name().to_string_lossy().parse();
            (number.expect("a number"), kind(&target.to_string_lossy()))
        })
        .collect()
}

/// What is open is what `lazaret audit` prints for this kind, line by line:
/// nothing else, and nothing less. `directories` were granted.
pub fn has_open_what_is_listed(pid: i32, kind: Kind, directories: usize) {
    let listed = descriptors::listed(kind);
    let printed: Vec<String> = listed
        .iter()
        .flat_map(|entry| {
            let times = if entry.each_directory { directories } else { 1 };
            std::iter::repeat_n(entry.to_string(), times)
        })
        .collect();
    let open = open(pid);
    let seen: Vec<String> = open
        .iter()
        .map(|(number, link)| {
            listed
                .iter()
                .find(|entry| entry.is(*number, link))
                .map_or_else(
                    || format!("{number}: {link}, which is not listed"),
                    ToString::to_string,
                )
        })
        .collect();
    assert_eq!(seen, printed, "{kind:?} has {open:?}");
}

/// Everything that must be so, but for the descriptors.
pub fn is_locked(pid: i32) {
    let status = text(pid, "status");
    let field = |name: &str| {
        let found = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found
            .unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    let namespaces = older_kernels::profile() == Profile::Full;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        // It takes a capability to empty the bounding set, of which there is none
        // without a user namespace.
        if set == "CapBnd" && !namespaces {
            continue;
        }
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("Threads"), "1");
    assert_eq!(
        fs::read_dir(format!("/proc/{pid}/task"))
            .expect("its threads")
            .count(),
        1
    );
    assert!(
        field("Uid").split_whitespace().all(|uid| uid != "0"),
        "uid on the host: {}",
        field("Uid")
    );
    assert!(
        field("Gid").split_whitespace().all(|gid| gid != "0"),
        "gid on the host: {}",
        field("Gid")
    );
    assert_eq!(text(pid, "environ"), "");
    for name in NAMESPACES.iter().filter(|_| namespaces) {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{name}")).expect("a namespace");
        assert_ne!(of(&pid.to_string()), of("self"), "namespace {name}");
    }
    let writable_code: Vec<String> = text(pid, "maps")
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|flags| flags.contains('w') && flags.contains('x'))
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(writable_code, Vec::<String>::new());
    assert!(
        !namespaces
            || fs::read_dir(format!("/proc/{pid}/root/"))
                .expect("its root")
                .count()
                == 0,
        "its root"
    );
    let core = text(pid, "limits")
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .map(|line| line.split_whitespace().nth(5) == Some("0"));
    assert_eq!(core, Some(true), "core dumps");
}

pub fn only_worker() -> i32 {
    let workers = found("lazaret:worker");
    assert_eq!(workers.len(), 1, "{workers:?}");
    workers[0]
}

/// A program that waits for its input and a clock at once, while it does.
pub struct Polling {
    input: Option<OwnedFd>,
    run: std::thread::JoinHandle<Result<Report, RunError>>,
}

impl Polling {
    /// Starts it and waits until the clock has come first, twice.
    pub fn start(host: &Host, directory: Option<bool>) -> Self {
        let (input, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        let (read, output) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        let mut program = host
            .program(POLL)
            .stdin(Input::Descriptor(input))
            .stdout(Output::Descriptor(Arc::new(output)));
        if let Some(writable) = directory {
            let granted = std::env::temp_dir().join("granted");
            fs::create_dir_all(&granted).expect("a directory");
            program = program.directory(granted, "/granted", writable);
        }
        let run = std::thread::spawn(move || program.run());
        let mut printed = vec![0; 10];
        fs::File::from(read.try_clone().expect("the pipe"))
            .read_exact(&mut printed)
            .unwrap_or_else(|error| {
                panic!("the program said nothing: {error}");
            });
        assert_eq!(printed, b"tick\ntick\n");
        // Its ticks go nowhere from now on, or the pipe would fill.
        std::thread::spawn(move || std::io::copy(&mut fs::File::from(read), &mut std::io::sink()));
        Self {
            input: Some(write),
            run,
        }
    }

    /// Ends its input, and it.
    pub fn end(mut self) {
        drop(self.input.take());
        let report = self.run.join().expect("the thread").expect("the run");
        assert_eq!(
            (report.verdict, report.exit_code),
            (Verdict::Exited, 0),
            "{:?}",
            report.detail
        );
    }
}
