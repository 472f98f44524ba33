//! A tenant in this process, without a wall: what the host would do around it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use lazaret_guest::canister::Canister;
use lazaret_guest::exchange::Exchange;
use lazaret_wire::Shared;
use lazaret_wire::layout::MAP_RUN_PAGES;
use lazaret_wire::message::{
    Call, CompileSettings, Done, Entry, Failed, Global, Outcome, Purpose, Run, Sizes, TenantSetup,
    Tracking, Trap, TrapKind,
};

/// Fuel that is enough for every test but those about fuel.
pub const FUEL: u64 = 10_000_000_000;

/// A tenant and what the host remembers of it.
pub struct Tenant {
    pub canister: Canister,
    pub exchange: Exchange,
    pub shared: &'static Shared,
    pub tracker: Option<OwnedFd>,
    pub sizes: Sizes,
    pub globals: Vec<Global>,
    /// The next call; its method, argument and so on are set by each call.
    pub next: Call,
}

/// A set-up without an image.
pub fn setup() -> TenantSetup {
    TenantSetup {
        heap_limit: 64 << 20,
        stable_limit: 64 << 20,
        sizes: Sizes::default(),
        runs: Vec::new(),
        map_from: MAP_RUN_PAGES,
        tracking: Tracking::None,
        reusable: true,
        budgeted: false,
        host_functions: Vec::new(),
    }
}

/// A file with these bytes.
pub fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// `text` for 32-bit memory (`I` is i32) or 64-bit memory (`I` is i64, and
/// `(memory 1)` becomes `(memory i64 1)`).
pub fn width(text: &str, memory64: bool) -> String {
    let (ty, memory) = if memory64 {
        ("i64", "(memory i64 ")
    } else {
        ("i32", "(memory ")
    };
    text.replace("{I}", ty).replace("(memory ", memory)
}

/// Compiles and loads; `setup.reusable` is what the compiler says, unless
/// `fresh` asks for a fresh instance a call.
pub fn load(
    text: &str,
    mut setup: TenantSetup,
    files: Vec<OwnedFd>,
    fresh: bool,
) -> Result<Tenant, Failed> {
    let settings = CompileSettings {
        purpose: Purpose::Tenant,
        metered: true,
        cards: setup.tracking == Tracking::Cards,
        snapshot: false,
    };
    let wasm = wat::parse_str(text).unwrap();
    let (artefact, info) = lazaret_guest::compiler::compile(&wasm, &settings).unwrap();
    setup.reusable = info.reusable && !fresh;
    let engine = lazaret_guest::engine::running(Purpose::Tenant).unwrap();
    let shared: &'static Shared = Box::leak(Box::new(
        Shared::map(lazaret_wire::shared::create().unwrap().as_fd()).unwrap(),
    ));
    let sizes = setup.sizes;
    let (canister, tracker) = Canister::load(&engine, &file(&artefact), &setup, files, shared)?;
    let next = Call {
        entry: Entry::Install,
        method: String::new(),
        argument: Vec::new(),
        caller: vec![1, 2, 3],
        canister: vec![9, 9],
        controller: true,
        time: 1_700_000_000_000_000_000,
        version: 7,
        cycles: 1_000,
        fuel: FUEL,
        certificate: None,
        sizes,
        globals: Vec::new(),
        close_heap: Vec::new(),
        close_stable: Vec::new(),
    };
    Ok(Tenant {
        canister,
        exchange: Exchange::new(shared),
        shared,
        tracker,
        sizes,
        globals: Vec::new(),
        next,
    })
}

/// A tenant without an image.
pub fn tenant(text: &str) -> Tenant {
    load(text, setup(), Vec::new(), false).unwrap()
}

impl Tenant {
    /// Runs one call on the present state; if it succeeds and is no query, what
    /// it left is the new state.
    pub fn run(&mut self, entry: Entry, method: &str, argument: &[u8]) -> Done {
        let call = Call {
            entry,
            method: method.to_owned(),
            argument: argument.to_vec(),
            sizes: self.sizes,
            globals: self.globals.clone(),
            ..self.next.clone()
        };
        let given = call.fuel;
        let done = self.canister.call(Box::new(call), &mut self.exchange);
        assert!(done.fuel_left <= given);
        if entry != Entry::Query
            && matches!(
                done.outcome,
                Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply
            )
        {
            self.sizes = done.sizes;
            self.globals.clone_from(&done.globals);
        }
        done
    }

    pub fn install(&mut self) {
        let done = self.run(Entry::Install, "", b"");
        assert_eq!(done.outcome, Outcome::Reply(Vec::new()), "install");
    }

    pub fn update(&mut self, method: &str, argument: &[u8]) -> Outcome {
        self.run(Entry::Update, method, argument).outcome
    }

    pub fn query(&mut self, method: &str, argument: &[u8]) -> Outcome {
        self.run(Entry::Query, method, argument).outcome
    }

    /// The log lines since the last time.
    pub fn log(&self) -> Vec<String> {
        self.shared
            .take_log()
            .0
            .into_iter()
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }
}

/// A reply of one little-endian number.
pub fn reply(number: u64) -> Outcome {
    Outcome::Reply(number.to_le_bytes().to_vec())
}

/// The trap of an outcome that must be one.
pub fn trap(outcome: Outcome) -> Trap {
    match outcome {
        Outcome::Trap(trap) => trap,
        other => panic!("expected a trap, got {other:?}"),
    }
}

/// Asserts a trap's kind and a part of its message.
#[track_caller]
pub fn assert_trap(outcome: Outcome, kind: TrapKind, part: &str) {
    let trap = trap(outcome);
    assert!(trap.kind == kind && trap.message.contains(part), "{trap:?}");
}

/// The set bits of a bitmap in shared memory.
pub fn entered(shared: &Shared, bitmap: usize) -> Vec<usize> {
    let set = |chunk: &usize| {
        shared
            .u64(bitmap + chunk / 64 * 8)
            .load(std::sync::atomic::Ordering::Relaxed)
            >> (chunk % 64)
            & 1
            == 1
    };
    (0..lazaret_wire::layout::CHUNKS_SIZE * 8)
        .filter(set)
        .collect()
}

/// The pages of heap and stable memory that the signal tracker has noted.
pub fn noted(tenant: &Tenant) -> [Vec<u64>; 2] {
    use lazaret_wire::layout;
    [
        (layout::HEAP_CHUNKS, layout::HEAP_PAGES),
        (layout::STABLE_CHUNKS, layout::STABLE_PAGES),
    ]
    .map(|(chunks, pages)| {
        let word = |at: u64| tenant.shared.u64(pages + (at / 64) as usize * 8);
        entered(tenant.shared, chunks)
            .into_iter()
            .flat_map(|chunk| chunk as u64 * 128..(chunk as u64 + 1) * 128)
            .filter(|page| {
                let word = word(*page).load(std::sync::atomic::Ordering::Relaxed);
                word >> (page % 64) & 1 == 1
            })
            .collect()
    })
}

/// A run of the heap's pages.
pub fn run(first_page: u64, pages: u64, file: u16, offset: u64) -> Run {
    Run {
        region: lazaret_wire::message::Region::Heap,
        first_page,
        pages,
        file,
        offset,
    }
}

/// Runs `test` on a thread with the stack that a worker has.
pub fn with_worker_stack<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let size = lazaret_guest::engine::NATIVE_STACK as usize;
    std::thread::Builder::new()
        .stack_size(size)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap()
}
