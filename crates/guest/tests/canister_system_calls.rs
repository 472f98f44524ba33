//! After loading, a canister gets by with the few system calls that a locked
//! worker has. Here it runs under a filter that ends the process at any other.

mod canister_harness;

use canister_harness::*;
use lazaret_wire::message::{Entry, Outcome, TrapKind};

const ALLOWED: [libc::c_long; 8] = [
    libc::SYS_futex,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit_group,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_brk,
];

/// Every other system call of this thread kills the process.
fn lock() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // The number of the call is the first word of `struct seccomp_data`.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (position, call) in ALLOWED.iter().enumerate() {
        let jump = statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            u32::try_from(*call).unwrap(),
        );
        program.push(libc::sock_filter {
            jt: (ALLOWED.len() - position) as u8,
            ..jump
        });
    }
    program.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_KILL_PROCESS,
    ));
    program.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is valid for the length it says, and the kernel
    // copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter),
            0
        );
    }
}

const BUSY: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply)) (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 64) (table 4 funcref) (elem declare func $deep)
  (func $deep (call $deep) (drop (i32.const 0)))
  (func (export "canister_update echo")
    (call $arg_copy (i32.const 0) (i32.const 0) (call $arg_size))
    (call $append (i32.const 0) (call $arg_size)) (call $reply))
  (func (export "canister_update grow")
    (drop (memory.grow (i32.const 64)))
    (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))
    (drop (call $stable_grow (i64.const 64)))
    (call $stable_write (i64.const 0) (i64.const 0) (i64.const 4194304))
    (drop (table.grow (ref.func $deep) (i32.const 100000)))
    (call $reply))
  (func (export "canister_update print") (call $print (i32.const 0) (i32.const 100)) (call $reply))
  (func (export "canister_update trap") (call $trap (i32.const 0) (i32.const 10)))
  (func (export "canister_update deep") (call $deep))
  (func (export "canister_update loop") (loop (br 0)))
  (func (export "canister_update beyond") (drop (i32.load (i32.const -4)))))"#;

/// All that a tenant can make the worker do, over and over.
fn work(fresh: bool) {
    // Taking it down needs more system calls than a worker ever makes.
    let mut tenant = std::mem::ManuallyDrop::new(load(BUSY, setup(), Vec::new(), fresh).unwrap());
    let start = tenant.sizes;
    lock();
    tenant.next.fuel = 100_000_000;
    tenant.install();
    let state = tenant.sizes;
    for round in 0..20usize {
        tenant.sizes = state;
        tenant.next.close_heap = (0..3).collect();
        let argument = vec![7; round * 100_000];
        assert_eq!(tenant.update("echo", &argument), Outcome::Reply(argument));
        assert_eq!(tenant.update("grow", b""), Outcome::Reply(Vec::new()));
        assert_eq!(tenant.update("print", b""), Outcome::Reply(Vec::new()));
        assert_trap(tenant.update("trap", b""), TrapKind::Explicit, "");
        assert_trap(tenant.update("deep", b""), TrapKind::Recursion, "recursion");
        assert_trap(tenant.update("loop", b""), TrapKind::Fuel, "fuel");
        assert_trap(
            tenant.update("beyond", b""),
            TrapKind::MemoryOutOfBounds,
            "out of bounds",
        );
        assert!(tenant.log().iter().all(|line| line.len() == 100));
    }
    tenant.sizes = start;
    assert_eq!(
        tenant.run(Entry::Install, "", b"").outcome,
        Outcome::Reply(Vec::new())
    );
}

/// The variable that tells this executable, started again, to be the worker.
const WORKER: &str = "LAZARET_TEST_WORKER";

const NAME: &str = "calls_need_no_more_system_calls_than_a_locked_worker_has";

/// Without the usual harness, as that runs tests on threads of their own: those
/// have other arenas in glibc, and shrinking one of them reads
/// `/proc/sys/vm/overcommit_memory` (malloc/arena.c). A worker has one thread.
fn main() {
    if let Ok(kind) = std::env::var(WORKER) {
        lazaret_guest::memory::allocator::settle();
        work(kind == "fresh");
        // SAFETY: ends the process, as a worker does, without any clean-up.
        unsafe { libc::_exit(0) }
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trial = libtest_mimic::Trial::test(NAME, || {
        in_workers();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

fn in_workers() {
    for kind in ["kept", "fresh"] {
        let worker = std::process::Command::new(std::env::current_exe().unwrap())
            .env(WORKER, kind)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&worker.stderr);
        assert!(
            worker.status.success(),
            "{NAME}: {kind}: {:?}: {said}",
            worker.status
        );
    }
}
