//! A tenant's calls beside a neighbour that takes as much as it can of one thing.
//!
//! Three kinds of rounds alternate: the neighbour is quiet; it takes what it can;
//! it does so on a host without control groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use lazaret::{CallError, CgroupMode, Host, Tenant};

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::Row;

const HOG: &str = include_str!("hog.wat");
const EMPTY: &str = include_str!("../../../tests/fixtures/wat/empty.wat");
const COUNTER: &str = include_str!("../../../tests/fixtures/wat/counter32.wat");

/// Calls in a round.
const CALLS: usize = 40;
/// Between two calls: a tenant that is called now and then, whose worker sleeps.
const PAUSE: Duration = Duration::from_micros(500);

/// What a neighbour takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hog {
    Processors,
    Memory,
    Starts,
    Disk,
    Log,
}

impl Hog {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (
            Self::Processors,
            "hog/cpu",
            "loops in as many queries as there are processors",
        ),
        (
            Self::Memory,
            "hog/memory",
            "fills 128 MiB, again and again, in two queries",
        ),
        (Self::Starts, "hog/pids", "starts one worker after another"),
        (
            Self::Disk,
            "hog/disk",
            "writes and syncs 16 MiB, again and again",
        ),
        (
            Self::Log,
            "hog/log",
            "prints a thousand lines of a kilobyte, again and again",
        ),
    ];

    fn threads(self) -> usize {
        match self {
            Self::Processors => thread::available_parallelism().map_or(1, usize::from),
            Self::Memory => 2,
            Self::Starts | Self::Disk | Self::Log => 1,
        }
    }

    fn take(self, tenant: &Tenant) -> Result<(), CallError> {
        match self {
            Self::Processors => tenant.query("spin", &[]).map(drop),
            Self::Memory => tenant.query("fill", &[]).map(drop),
            Self::Starts => {
                tenant.sleep();
                tenant.query("nothing", &[]).map(drop)
            }
            Self::Disk => tenant.update("write", &[]).map(drop),
            Self::Log => tenant.update("log", &[]).map(drop),
        }
    }

    /// What the other tenant does: what writes is disturbed by writes.
    fn call(self, tenant: &Tenant) -> Result<(), CallError> {
        match self {
            Self::Disk => tenant.update("inc", &[]).map(drop),
            _ => tenant.query("empty", &[]).map(drop),
        }
    }
}

/// A host with both tenants, and what lets the neighbour go.
struct Node {
    tenant: Tenant,
    neighbour: Tenant,
    gate: Arc<Gate>,
    host: Host,
    /// Gone after those who write to it.
    _directory: tempfile::TempDir,
}

#[derive(Default)]
struct Gate {
    open: AtomicBool,
    over: AtomicBool,
    busy: AtomicUsize,
    taken: AtomicUsize,
}

impl Node {
    fn new(options: &Options, hog: Hog, mode: CgroupMode) -> Result<Self, BenchError> {
        let directory = options.temporary()?;
        let host = options
            .host()
            .data_dir(directory.path())
            .cgroups(|options| options.mode = mode)
            .build()?;
        let module = match hog {
            Hog::Disk => COUNTER,
            _ => EMPTY,
        };
        let tenant = host.install("tenant", module, &[])?;
        let neighbour = host.install("neighbour", HOG, &[])?;
        Ok(Self {
            tenant,
            neighbour,
            gate: Arc::default(),
            host,
            _directory: directory,
        })
    }

    /// A thread of the neighbour's callers: it takes while the gate is open.
    fn take(&self, hog: Hog) -> thread::JoinHandle<Result<(), CallError>> {
        let (neighbour, gate) = (self.neighbour.clone(), self.gate.clone());
        thread::spawn(move || {
            while !gate.over.load(SeqCst) {
                gate.busy.fetch_add(1, SeqCst);
                if !gate.open.load(SeqCst) {
                    gate.busy.fetch_sub(1, SeqCst);
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let taken = hog.take(&neighbour);
                gate.busy.fetch_sub(1, SeqCst);
                taken?;
                gate.taken.fetch_add(1, SeqCst);
            }
            Ok(())
        })
    }

    /// The tenant's calls while the neighbour does as it likes, or nothing.
    fn round(&self, hog: Hog, open: bool, sample: &mut Sample) -> Result<(), BenchError> {
        self.gate.open.store(open, SeqCst);
        while !open && self.gate.busy.load(SeqCst) > 0 {
            thread::sleep(Duration::from_micros(200));
        }
        if open {
            thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..CALLS {
            thread::sleep(PAUSE);
            sample.time(|| hog.call(&self.tenant))?;
        }
        self.gate.open.store(false, SeqCst);
        Ok(())
    }
}

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    for (hog, key, what) in Hog::ALL {
        if options.wants(key) {
            progress(&format!("a neighbour that {what}"));
            rows.push(row(options, hog, key, what)?);
        }
    }
    Ok(())
}

fn row(options: &Options, hog: Hog, key: &str, what: &str) -> Result<Row, BenchError> {
    let with = Node::new(options, hog, CgroupMode::Auto)?;
    let without = Node::new(options, hog, CgroupMode::Off)?;
    let [mut quiet, mut beside, mut bare] =
        [Sample::default(), Sample::default(), Sample::default()];
    let mut threads = Vec::new();
    for node in [&with, &without] {
        hog.call(&node.tenant)?;
        hog.take(&node.neighbour)?;
        threads.extend((0..hog.threads()).map(|_| node.take(hog)));
    }
    let mut measure = || {
        for _ in 0..options.times(40) {
            with.round(hog, false, &mut quiet)?;
            with.round(hog, true, &mut beside)?;
            with.round(hog, false, &mut Sample::default())?;
            without.round(hog, true, &mut bare)?;
            without.round(hog, false, &mut Sample::default())?;
        }
        Ok::<_, BenchError>(())
    };
    let measured = measure();
    for node in [&with, &without] {
        node.gate.over.store(true, SeqCst);
    }
    for thread in threads {
        if let Ok(ended) = thread.join() {
            ended?;
        }
    }
    measured?;
    let call = match hog {
        Hog::Disk => "durable update of one page",
        _ => "empty query",
    };
    let ninety_nine = |sample: &Sample| sample.quantiles(MICROSECOND).map_or(0.0, |all| all.p99);
    let [quiet_99, beside_99, bare_99] = [&quiet, &beside, &bare].map(ninety_nine);
    let row = Row::new(key, format!("{call} beside a tenant that {what}"), "us")
        .ours(beside.len(), beside.quantiles(MICROSECOND))
        .baseline("the same while the neighbour is quiet", quiet.quantiles(MICROSECOND))
        .note(format!(
            "p99 with and without the neighbour: {:.1} x; without control groups: {:.1} x ({bare_99:.0} us)",
            beside_99 / quiet_99,
            bare_99 / quiet_99,
        ))
        .note(format!(
            "the neighbour did so {} times meanwhile",
            with.gate.taken.load(SeqCst)
        ));
    Ok(
        match with
            .host
            .cgroups()
            .ok()
            .and_then(|groups| groups.degraded())
        {
            Some((missing, _)) => {
                row.note(format!("not all of control groups works here: {missing}"))
            }
            None => row,
        },
    )
}
