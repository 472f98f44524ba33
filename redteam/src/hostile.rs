//! The worker that has been taken over. It is honest until it is asked for an
//! attack, so that tests can see the tenant's state before and after.

use lazaret_guest::canister::Canister;
use lazaret_guest::exchange::Exchange;
use lazaret_guest::program::Program;
use lazaret_guest::start::Work;
use lazaret_wire::message::{
    Artefact, Assignment, CompileSettings, Exited, FromWorker, ProgramEnd, Refused, ToWorker,
};

use crate::attack::How;
use crate::drill::{DRILL, answer};
use crate::inside::Inside;
use crate::system_call::system_call;
use crate::{ATTACK, ATTACK_QUERY, COMPILER_MARK, attacks, drills};

/// The work of a hostile worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hostile;

/// Runs the attack that `text` names: `name argument`.
fn run<'a>(text: &'a str, mut inside: Inside<'a>) -> String {
    let (name, argument) = text.split_once(' ').unwrap_or((text, ""));
    inside.argument = argument;
    if name == DRILL {
        let (name, _) = argument.split_once(' ').unwrap_or((argument, ""));
        return match drills::find(name) {
            Some(drill) => answer((drill.run)(&mut inside)),
            None => format!("there is no drill `{name}`"),
        };
    }
    let Some(attack) = attacks::find(name) else {
        return format!("there is no attack `{name}`");
    };
    match attack.how {
        How::Native(attack) => attack(&mut inside),
        How::SystemCall(number, arguments) => {
            let arguments = arguments.map(|value| inside.resolve(value));
            // SAFETY: none is wanted: the call is meant to do harm, to this
            // process at least.
            let result = unsafe { system_call(number, arguments) };
            format!("returned {result}")
        }
    }
}

/// What an attack during set-up begins with, in place of [`ATTACK`].
pub const ATTACK_IN_SETUP: &str = "attack in set-up";

impl Work for Hostile {
    fn assigned(&mut self, assignment: &Assignment) {
        let Assignment::Program(setup) = assignment else {
            return;
        };
        if let [name, number] = setup.arguments.as_slice()
            && name == ATTACK_IN_SETUP
        {
            let number = number.parse().unwrap_or(0);
            // SAFETY: none is wanted.
            let result = unsafe { system_call(number, [11, 12, 13, 14, 15, 16]) };
            // Whoever gets here was not stopped, and must be seen.
            panic!("system call {number} returned {result} during set-up");
        }
    }

    fn tenant(&mut self, mut canister: Canister, exchange: &mut Exchange) -> ! {
        loop {
            let ToWorker::Call(call) = exchange.next() else {
                continue;
            };
            let done = if call.method == ATTACK || call.method == ATTACK_QUERY {
                let text = String::from_utf8_lossy(&call.argument).into_owned();
                let inside = Inside {
                    exchange,
                    argument: "",
                    tenant: Some((&call, &canister)),
                };
                let reply = run(&text, inside);
                Inside {
                    exchange,
                    argument: "",
                    tenant: Some((&call, &canister)),
                }
                .honest(&reply)
            } else {
                canister.call(call, exchange)
            };
            // Not `Exchange::answer`: attacks ring by themselves, and it would
            // go by its own count.
            Inside {
                exchange,
                argument: "",
                tenant: None,
            }
            .answer(&FromWorker::Done(done));
        }
    }

    fn program(
        &mut self,
        program: Program,
        arguments: &[String],
        exchange: &mut Exchange,
    ) -> Exited {
        match arguments {
            [name, text, ..] if name == ATTACK => {
                let reply = run(
                    text,
                    Inside {
                        exchange,
                        argument: "",
                        tenant: None,
                    },
                );
                // SAFETY: a buffer and its length.
                unsafe {
                    system_call(
                        libc::SYS_write,
                        [1, reply.as_ptr() as u64, reply.len() as u64, 0, 0, 0],
                    )
                };
                Exited {
                    end: ProgramEnd::Exit(0),
                    fuel_left: None,
                    memory_limit_hit: false,
                    peak_memory: 0,
                    left: None,
                }
            }
            _ => program.run(exchange),
        }
    }

    fn compiler(
        &mut self,
        wasm: &[u8],
        settings: &CompileSettings,
        exchange: &mut Exchange,
    ) -> Result<(Vec<u8>, Artefact), Refused> {
        let mark = COMPILER_MARK.as_bytes();
        match wasm.windows(mark.len()).position(|window| window == mark) {
            Some(at) => {
                let rest = wasm.get(at + mark.len()..).unwrap_or_default();
                let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let inside = Inside {
                    exchange,
                    argument: "",
                    tenant: None,
                };
                Err(Refused {
                    reason: run(&String::from_utf8_lossy(line), inside),
                    of_module: false,
                })
            }
            None => lazaret_guest::compiler::compile(wasm, settings),
        }
    }
}
