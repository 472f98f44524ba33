//! Attacks on the wall, run from inside it.
//!
//! The binary of this crate is a worker that has been taken over: it starts,
//! is set up, locks itself and is verified by the very code of the product,
//! and then runs native code of ours in place of the guest's
//! ([`lazaret_guest::start::Work`]). So an attack has what guest code would
//! have that broke out of the engine: the whole process, behind the wall.
//!
//! * [`attack`]: what an attack is: its name, what must stop it, how that ends.
//! * [`attacks`]: all of them, a file for each kind.
//! * [`hostile`]: the worker that has been taken over. It serves honestly
//!   until it is asked for an attack.
//! * `tests/`: a host and a neighbour for each attack, and what must hold.
//!
//! For x86-64 only, where system calls have the most ways in.
#![cfg(target_arch = "x86_64")]
#![deny(missing_docs)]

pub mod attack;
pub mod attacks;
pub mod classics;
pub mod decoys;
pub mod drill;
pub mod drills;
pub mod errno;
pub mod hostile;
pub mod inside;
pub mod range;
pub mod report;
pub mod seen;
pub mod suite;
pub mod system_call;

/// Becomes the red team's worker, or a decoy, if this process was started as one;
/// then it never returns. To be called before `lazaret::init()`, and only in an
/// executable that has the red team in it.
///
/// Neither name gives whoever starts such a process anything that its user hasn't:
/// a worker takes its orders from the socket of a host that has been told to start
/// it, and a decoy only waits.
pub fn init() {
    let name = std::env::args_os().next().unwrap_or_default();
    if name.as_encoded_bytes() == lazaret_wall::worker::RED_TEAM.to_bytes() {
        lazaret_guest::start::worker_with(hostile::Hostile)
    }
    if name == decoys::process::ARGV0 {
        decoys::process::main()
    }
}

/// The tenant that the hostile worker pretends to be: a running sum, and two
/// entry points that only the hostile worker has anything for.
///
/// * `update add (number: u64) -> (u64)`: adds to the sum, answers it.
/// * `query get -> (u64)`: the sum.
/// * `update attack`, `query attack_query`: the attack that the argument
///   names. The module itself only traps there, so an honest worker can't be
///   taken for a hostile one.
///
/// Numbers are little endian, without Candid. The sum is at address 0, the
/// argument at 8; the rest of the 16 MiB is for attacks.
pub const TENANT: &str = r#"
(module
  (import "ic0" "msg_arg_data_copy" (func $argument (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory (export "memory") 256)
  (global $calls (mut i64) (i64.const 0))
  (func (export "canister_update add")
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    (call $argument (i32.const 8) (i32.const 0) (i32.const 8))
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.load (i32.const 8))))
    (call $append (i32.const 0) (i32.const 8))
    (call $reply))
  (func (export "canister_query get")
    (call $append (i32.const 0) (i32.const 8))
    (call $reply))
  (func (export "canister_update attack") unreachable)
  (func (export "canister_query attack_query") unreachable))
"#;

/// The update method that is an attack.
pub const ATTACK: &str = "attack";
/// The query method that is an attack.
pub const ATTACK_QUERY: &str = "attack_query";

/// A module whose compiler is taken over: what follows this in it, up to the
/// next line end, is the attack.
pub const COMPILER_MARK: &str = "lazaret redteam: ";
