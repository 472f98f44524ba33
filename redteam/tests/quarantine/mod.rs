//! A host whose workers are hostile, a tenant that is taken over, and a
//! neighbour that isn't.
// Every test binary uses a part of this.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../tests/older_kernels.rs"]
pub mod older_kernels;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lazaret::incident::What;
use lazaret::wall::policy::{Kind, ProgramRights, Uses};
use lazaret::{
    Builder, CallOptions, Clock, CompileError, Ending, Host, Output, RunError, Tenant, TrackerKind,
    Verdict, Violation,
};
use lazaret_redteam::attack::{Attack, Expected};
pub use lazaret_redteam::seen::Seen;
use lazaret_redteam::{ATTACK, ATTACK_QUERY, COMPILER_MARK, TENANT};

/// Limits of heap and of stable memory: small, so that bombs are cheap. The
/// attacks on memory know them.
pub const MEMORY: u64 = 64 << 20;

/// How long the host waits for an answer before it takes it for silence.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// A program that imports nothing: what it does is the hostile worker's.
const NO_IMPORTS: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// A program that imports whatever any system call could be needed for.
const ALL_IMPORTS: &str = include_str!("../../src/range/program.wat");

/// A program without directories or imports.
pub const BARE: Kind = Kind::Program(ProgramRights {
    directories: false,
    writable: false,
    uses: Uses::NONE,
});
/// A program without directories.
pub const NOTHING: Kind = program(false, false);
/// A program with a directory to read.
pub const READ_ONLY: Kind = program(true, false);
/// A program with a directory to write.
pub const READ_WRITE: Kind = program(true, true);

/// The same, with clocks as programs have them if nobody says otherwise.
pub const COARSE: Kind = Kind::Program(ProgramRights {
    directories: true,
    writable: true,
    uses: Uses::ALL.without(Uses::EXACT_CLOCKS),
});

/// A program with these grants, and with all imports.
pub const fn program(directories: bool, writable: bool) -> Kind {
    Kind::Program(ProgramRights {
        directories,
        writable,
        uses: Uses::ALL,
    })
}

/// The host, the tenant that is taken over, its neighbour, and what both know.
pub struct Quarantine {
    pub host: Host,
    pub hostile: Tenant,
    pub neighbour: Tenant,
    sums: [Cell<u64>; 2],
    /// What `host.note` was called with.
    pub notes: Arc<Mutex<Vec<Vec<u8>>>>,
    data: tempfile::TempDir,
}

impl Quarantine {
    /// A host with both tenants installed.
    pub fn new() -> Self {
        Self::with(TrackerKind::default())
    }

    /// The same, with this tracker.
    pub fn with(tracker: TrackerKind) -> Self {
        Self::made(|builder| builder.tracker(tracker))
    }

    /// The same, with other options.
    pub fn made(change: impl FnOnce(Builder) -> Builder) -> Self {
        lazaret::init();
        let data = tempfile::tempdir().expect("a temporary directory");
        let notes = Arc::new(Mutex::new(Vec::new()));
        let noted = notes.clone();
        let builder = older_kernels::builder()
            .worker_exe(env!("CARGO_BIN_EXE_lazaret-redteam"))
            .data_dir(data.path().join("tenants"))
            .relaxed_durability()
            // Enough for all that they may have.
            .memory_budget(64 * MEMORY)
            .tenant_limits(|limits| {
                limits.heap = MEMORY;
                limits.stable = MEMORY;
            })
            .hold_back(false)
            .host_function("note", 64, 64, move |bytes| {
                noted.lock().expect("notes").push(bytes.to_vec());
                Ok(b"noted".to_vec())
            });
        let host = change(builder).build().expect("a host");
        let hostile = host
            .install("hostile", TENANT, b"")
            .expect("the hostile tenant");
        let neighbour = host
            .install("neighbour", TENANT, b"")
            .expect("the neighbour");
        let made = Self {
            host,
            hostile,
            neighbour,
            sums: [Cell::new(0), Cell::new(0)],
            notes,
            data,
        };
        // Sums that are not zero, so that nothing is right by chance.
        made.add(0, 1000);
        made.add(1, 7_000_000);
        made
    }

    /// The host goes; what it kept stays as long as what is returned.
    pub fn leave(self) -> tempfile::TempDir {
        let Self {
            host,
            hostile,
            neighbour,
            data,
            ..
        } = self;
        drop((hostile, neighbour, host));
        data
    }

    fn add(&self, which: usize, number: u64) {
        let (tenant, sum) = ([&self.hostile, &self.neighbour][which], &self.sums[which]);
        sum.set(sum.get() + number);
        let reply = tenant.update("add", &number.to_le_bytes()).expect("add");
        assert_eq!(
            reply.bytes,
            sum.get().to_le_bytes(),
            "the sum after adding {number}"
        );
        assert!(reply.committed.is_some());
    }

    /// The neighbour counts, rightly.
    pub fn neighbour_is_right(&self) {
        self.add(1, 3);
        let got = self.neighbour.query("get", b"").expect("get");
        assert_eq!(got.bytes, self.sums[1].get().to_le_bytes());
    }

    /// The attacked tenant has its last committed sum, and can go on.
    pub fn victim_goes_on(&self) {
        let got = self
            .hostile
            .query("get", b"")
            .expect("the tenant's next call");
        assert_eq!(
            got.bytes,
            self.sums[0].get().to_le_bytes(),
            "the state after an attack"
        );
        self.add(0, 1);
    }

    /// Runs an attack in the tenant.
    pub fn attack(&self, text: &str) -> Seen {
        self.attack_within(text, Duration::from_secs(60))
    }

    /// Runs an attack in the tenant, with a time limit.
    pub fn attack_within(&self, text: &str, time: Duration) -> Seen {
        let options = CallOptions {
            time: Some(time),
            ..CallOptions::default()
        };
        Seen::call(self.hostile.update_with(ATTACK, text.as_bytes(), &options))
    }

    /// The same from a query.
    pub fn attack_by_query(&self, text: &str, time: Duration) -> Seen {
        let options = CallOptions {
            time: Some(time),
            ..CallOptions::default()
        };
        Seen::call(
            self.hostile
                .query_with(ATTACK_QUERY, text.as_bytes(), &options),
        )
    }

    /// Runs an attack from its table, and checks how it ended and that both
    /// tenants have what they should.
    pub fn check(&self, attack: &Attack, argument: &str) {
        let time = if attack.expected == Expected::Silence {
            PATIENCE
        } else {
            Duration::from_secs(60)
        };
        let seen = self.attack_within(format!("{} {argument}", attack.name).trim(), time);
        assert!(
            seen.is(attack.expected),
            "{} {argument}: must be stopped by {:?} and end as {:?}, but: {seen:?}",
            attack.name,
            attack.stopped_by,
            attack.expected
        );
        self.neighbour_is_right();
    }

    /// The directory that is granted to programs: with a file, and links to
    /// the outside.
    pub fn directory(&self) -> PathBuf {
        let directory = self.data.path().join("granted");
        if !directory.exists() {
            std::fs::create_dir(&directory).expect("a directory");
            std::fs::write(directory.join("inside"), "inside").expect("a file");
            std::fs::write(self.data.path().join("outside"), "outside").expect("a file");
            std::os::unix::fs::symlink("/etc/passwd", directory.join("link-out")).expect("a link");
            std::os::unix::fs::symlink("../outside", directory.join("relative-link-out"))
                .expect("a link");
        }
        directory
    }

    /// The last incident of the host, which is a forbidden call.
    fn last_violation(&self) -> Violation {
        let incidents = self.host.recent_incidents();
        let incident = incidents.last().expect("an incident");
        match &incident.what {
            What::ForbiddenCall { call } => Violation {
                call: call.clone(),
                incident: Some(incident.id.clone()),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Runs an attack in a worker of any kind.
    pub fn attack_as(&self, kind: Kind, text: &str) -> Seen {
        match kind {
            Kind::Tenant => self.attack(text),
            Kind::Compiler => self.attack_as_compiler(text),
            Kind::Program(grants) => self.attack_as_program(grants, text),
            Kind::Launch => panic!("no worker stays unlocked"),
        }
    }

    fn attack_as_program(&self, grants: ProgramRights, text: &str) -> Seen {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let mut program = self
            .host
            .program(if grants.uses == Uses::NONE {
                NO_IMPORTS
            } else {
                assert_eq!(grants.uses.with(Uses::EXACT_CLOCKS), Uses::ALL);
                ALL_IMPORTS
            })
            .arguments([ATTACK, text])
            .stdout(Output::Buffer(printed.clone()))
            .time(Duration::from_secs(20));
        if grants.uses.any(Uses::EXACT_CLOCKS) {
            program = program.clock(Clock::Exact);
        }
        if grants.directories {
            program = program.directory(self.directory(), "/granted", grants.writable);
        }
        match program.run() {
            Ok(report) => match (report.verdict, report.detail) {
                (Verdict::Exited, _) => Seen::Reply(
                    String::from_utf8_lossy(&printed.lock().expect("output")).into_owned(),
                ),
                (Verdict::TimeLimit, _) => Seen::Silence,
                (Verdict::Violation, Some(detail)) if detail.starts_with("it tried ") => {
                    assert_eq!(report.exit_code, 159);
                    let violation = self.last_violation();
                    assert_eq!(detail, violation.to_string());
                    Seen::Ended(Ending::Violation(Box::new(violation)))
                }
                (_, Some(detail)) if detail.starts_with("it exited with code 0") => {
                    Seen::Ended(Ending::Exited(0))
                }
                (Verdict::HostError, Some(detail))
                    if detail.starts_with("it ended itself: unexpected signal") =>
                {
                    Seen::Ended(Ending::Aborted {
                        reason: "unexpected signal",
                        text: detail,
                    })
                }
                (verdict, detail) => Seen::Other(format!("{verdict:?}: {detail:?}")),
            },
            Err(error) => Seen::Other(format!("{error:?}")),
        }
    }

    fn attack_as_compiler(&self, text: &str) -> Seen {
        let module = format!(
            r#"(module (memory (export "memory") 1) (data (i32.const 0) "{COMPILER_MARK}{text}\n") (func (export "_start")))"#
        );
        match self.host.program(module).run() {
            Err(RunError::Compile(CompileError::Ended(ending))) => Seen::Ended(ending),
            Err(RunError::Compile(CompileError::Failed(text))) => Seen::Reply(text),
            other => Seen::Other(format!("{other:?}")),
        }
    }
}
