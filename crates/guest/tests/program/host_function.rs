//! Host functions, over a real wire with a host in another thread.

use std::os::fd::{AsFd, OwnedFd};

use lazaret_guest::exchange::Exchange;
use lazaret_guest::program::Program;
use lazaret_wire::codec::Message;
use lazaret_wire::message::{
    FromWorker, HostReturn, ProgramEnd, ProgramSetup, ProvidedFunction, ToWorker, TrapKind,
};
use lazaret_wire::{Rung, Shared, Spin, bell, layout, shared};

use super::harness::{compile, engine, pipe, setup};

/// Serves `calls` calls of function 1: reverses the argument, or fails if it is
/// empty.
fn host(shared: &'static Shared, calls: u32) {
    for number in 0..calls {
        let rung = bell::wait_forever(
            shared.u32(layout::ANSWER_BELL),
            shared.u32(layout::HOST_SLEEPS),
            number,
            &mut Spin::at_most(0),
        );
        assert!(matches!(rung, Rung::Next));
        let mut buffer = Vec::new();
        shared.take_answer(&mut buffer).unwrap();
        let FromWorker::HostCall(call) = FromWorker::from_bytes(&buffer).unwrap() else {
            panic!("no host call")
        };
        assert_eq!(call.function, 1);
        let result = if call.argument.is_empty() {
            Err("nothing to reverse".to_owned())
        } else {
            Ok(call.argument.into_iter().rev().collect())
        };
        ToWorker::HostReturn(HostReturn { result })
            .to_bytes(&mut buffer)
            .unwrap();
        shared.put_request(&buffer).unwrap();
        bell::ring(
            shared.u32(layout::REQUEST_BELL),
            shared.u32(layout::WORKER_SLEEPS),
            number + 1,
        );
    }
}

fn run(body: &str, calls: u32) -> ProgramEnd {
    let module = format!(
        r#"(module (import "host" "reverse" (func $reverse (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (data (i32.const 0) "abcd")
            (func (export "_start") {body}))"#
    );
    let file = shared::create().unwrap();
    let shared: &'static Shared = Box::leak(Box::new(Shared::map(file.as_fd()).unwrap()));
    let host = std::thread::spawn(move || host(shared, calls));
    let setup = ProgramSetup {
        host_functions: ["other", "reverse"]
            .map(|name| ProvidedFunction {
                name: name.to_owned(),
                fuel: 0,
            })
            .to_vec(),
        ..setup()
    };
    let streams = [
        pipe().0,
        OwnedFd::from(tempfile::tempfile().unwrap()),
        OwnedFd::from(tempfile::tempfile().unwrap()),
    ];
    let program = Program::load(
        engine(),
        &compile(module.as_bytes()),
        &setup,
        streams,
        None,
        vec![],
    )
    .unwrap();
    let end = program.run(&mut Exchange::new(shared)).end;
    host.join().unwrap();
    end
}

#[test]
fn bytes_go_there_and_back() {
    let end = run(
        r#"(if (i32.ne (call $reverse (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 9)) (i32.const 4)) (then unreachable))
           (if (i32.ne (i32.load (i32.const 8)) (i32.const 0x61626364)) (then unreachable))
           ;; Room for two: the length is that of all four.
           (if (i32.ne (call $reverse (i32.const 8) (i32.const 4) (i32.const 16) (i32.const 2)) (i32.const 4)) (then unreachable))
           (if (i32.ne (i32.load (i32.const 16)) (i32.const 0x6261)) (then unreachable))"#,
        2,
    );
    assert_eq!(end, ProgramEnd::Exit(0));
}

#[test]
fn an_error_is_a_trap_with_its_words() {
    let end = run(
        "(drop (call $reverse (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))",
        1,
    );
    let ProgramEnd::Trap(trap) = end else {
        panic!("{end:?}")
    };
    assert_eq!(
        (trap.kind, trap.message.as_str()),
        (TrapKind::Other, "nothing to reverse")
    );
}

#[test]
fn an_argument_outside_the_memory_never_leaves() {
    let end = run(
        "(drop (call $reverse (i32.const 65535) (i32.const 2) (i32.const 0) (i32.const 0)))",
        0,
    );
    assert!(matches!(end, ProgramEnd::Trap(trap) if trap.kind == TrapKind::MemoryOutOfBounds));
}
