//! Whatever bytes a worker writes, the host decodes them or refuses them: it
//! never panics, never reserves more than the input is long, and what it
//! accepts has exactly one encoding.

use lazaret_wire::codec::Message;
use lazaret_wire::message::{
    Artefact, Call, Compiled, Done, Effects, Entry, Exited, Failed, FromWorker, Global, HostCall,
    Initialised, Outcome, ProgramEnd, Ready, Refused, Sizes, ToWorker, Trap, TrapKind,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn canonical<M: Message + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::from_bytes(bytes) {
        let mut again = Vec::new();
        message
            .to_bytes(&mut again)
            .expect("what was decoded can be encoded");
        assert_eq!(again, bytes, "{message:?} has two encodings");
    }
}

fn trap() -> impl Strategy<Value = Trap> {
    (
        proptest::sample::select(TrapKind::ALL),
        ".{0,40}",
        ".{0,80}",
    )
        .prop_map(|(kind, message, backtrace)| Trap {
            kind,
            message,
            backtrace,
        })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Outcome::Reply),
        ".{0,40}".prop_map(Outcome::Reject),
        trap().prop_map(Outcome::Trap),
        Just(Outcome::NoReply),
        Just(Outcome::NoMethod),
        ".{0,40}".prop_map(Outcome::Aborted),
    ]
}

fn global() -> impl Strategy<Value = Global> {
    prop_oneof![
        any::<u32>().prop_map(Global::I32),
        any::<u64>().prop_map(Global::I64),
        any::<u32>().prop_map(Global::F32),
        any::<u64>().prop_map(Global::F64),
        any::<u128>().prop_map(Global::V128),
    ]
}

fn sizes() -> impl Strategy<Value = Sizes> {
    any::<(u64, u64)>().prop_map(|(heap, stable)| Sizes { heap, stable })
}

fn effects() -> impl Strategy<Value = Effects> {
    (
        proptest::option::of(vec(any::<u8>(), 0..=32)),
        any::<Option<u64>>(),
        any::<u128>(),
    )
        .prop_map(|(certified_data, global_timer, cycles_burned)| Effects {
            certified_data,
            global_timer,
            cycles_burned,
        })
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (any::<[u64; 4]>(), vec("[a-z-]{0,12}", 0..4)).prop_map(
            |([heap_at, stable_at, heap_cards, stable_cards], missing)| {
                FromWorker::Ready(Ready {
                    heap_at,
                    stable_at,
                    cards_at: [heap_cards, stable_cards],
                    missing,
                })
            }
        ),
        (proptest::option::of("[a-z-]{0,12}"), ".{0,40}")
            .prop_map(|(layer, message)| FromWorker::Failed(Failed { layer, message })),
        (
            outcome(),
            any::<u64>(),
            sizes(),
            vec(global(), 0..20),
            effects()
        )
            .prop_map(
                |(outcome, fuel_left, sizes, globals, effects)| FromWorker::Done(Done {
                    outcome,
                    fuel_left,
                    sizes,
                    globals,
                    effects
                })
            ),
        (any::<u16>(), vec(any::<u8>(), 0..100))
            .prop_map(|(function, argument)| FromWorker::HostCall(HostCall { function, argument })),
        (
            prop_oneof![
                any::<u32>().prop_map(ProgramEnd::Exit),
                trap().prop_map(ProgramEnd::Trap),
                ".{0,40}".prop_map(ProgramEnd::Aborted)
            ],
            any::<Option<u64>>(),
            any::<bool>(),
            any::<u64>(),
            any::<Option<(u64, u64)>>(),
            vec(global(), 0..10)
        )
            .prop_map(
                |(end, fuel_left, memory_limit_hit, peak_memory, left, globals)| {
                    FromWorker::Exited(Exited {
                        end,
                        fuel_left,
                        memory_limit_hit,
                        peak_memory,
                        left: left.map(|(memory_at, memory)| Initialised {
                            memory_at,
                            memory,
                            globals,
                        }),
                    })
                }
            ),
        (any::<u64>(), vec(global(), 0..10), any::<bool>()).prop_map(
            |(length, globals, reusable)| FromWorker::Compiled(Compiled {
                result: Ok(Artefact {
                    length,
                    globals,
                    reusable
                })
            })
        ),
        (any::<bool>(), ".{0,200}").prop_map(|(of_module, reason)| FromWorker::Compiled(
            Compiled {
                result: Err(Refused { reason, of_module })
            }
        )),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    (
        (
            proptest::sample::select(Entry::ALL),
            "[a-z_]{0,20}",
            vec(any::<u8>(), 0..200),
            vec(any::<u8>(), 0..=29),
            vec(any::<u8>(), 0..=29),
        ),
        (
            any::<bool>(),
            any::<u64>(),
            any::<u64>(),
            any::<u128>(),
            any::<u64>(),
        ),
        (
            proptest::option::of(vec(any::<u8>(), 0..50)),
            sizes(),
            vec(global(), 0..10),
            vec(any::<u32>(), 0..5),
            vec(any::<u32>(), 0..5),
        ),
    )
        .prop_map(
            |(
                (entry, method, argument, caller, canister),
                (controller, time, version, cycles, fuel),
                (certificate, sizes, globals, close_heap, close_stable),
            )| Call {
                entry,
                method,
                argument,
                caller,
                canister,
                controller,
                time,
                version,
                cycles,
                fuel,
                certificate,
                sizes,
                globals,
                close_heap,
                close_stable,
            },
        )
}

proptest! {
    #[test]
    fn noise_is_refused_or_has_one_encoding(bytes in vec(any::<u8>(), 0..400)) {
        canonical::<FromWorker>(&bytes);
        canonical::<ToWorker>(&bytes);
    }

    #[test]
    fn every_answer_comes_back_as_it_was(message in from_worker()) {
        let mut bytes = Vec::new();
        message.to_bytes(&mut bytes).unwrap();
        prop_assert_eq!(FromWorker::from_bytes(&bytes).unwrap(), message);
    }

    #[test]
    fn every_call_comes_back_as_it_was(call in call(), other in call()) {
        let (mut bytes, mut kept) = (Vec::new(), Vec::new());
        ToWorker::call_to_bytes(&call, &mut kept).unwrap();
        let call = ToWorker::Call(Box::new(call));
        call.to_bytes(&mut bytes).unwrap();
        prop_assert_eq!(&bytes, &kept);
        prop_assert_eq!(&ToWorker::from_bytes(&bytes).unwrap(), &call);
        // Nothing of another call shines through where its buffers are used again.
        for mut over in [ToWorker::Call(Box::new(other)), ToWorker::Start] {
            over.replace_from_bytes(&bytes).unwrap();
            prop_assert_eq!(&over, &call);
            over.replace_from_bytes(&[1]).unwrap();
            prop_assert_eq!(&over, &ToWorker::Start);
        }
    }

    #[test]
    fn a_changed_answer_is_refused_or_has_one_encoding(message in from_worker(), at in any::<proptest::sample::Index>(), bit in 0..8u8, cut in any::<proptest::sample::Index>()) {
        let mut bytes = Vec::new();
        message.to_bytes(&mut bytes).unwrap();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        canonical::<FromWorker>(&bytes);
        canonical::<FromWorker>(&bytes[..cut.index(bytes.len())]);
    }
}

/// A count that the input can't hold is not believed.
#[test]
fn a_lying_count_reserves_nothing() {
    // Done, Reply, a length of 4 GiB.
    let bytes = [2, 0, 0xff, 0xff, 0xff, 0xff];
    assert!(FromWorker::from_bytes(&bytes).is_err());
    // Done, NoReply, numbers, then a thousand globals and nothing after.
    let mut bytes = vec![2, 3];
    bytes.extend([0; 24]);
    bytes.extend(1000u32.to_le_bytes());
    assert!(FromWorker::from_bytes(&bytes).is_err());
}
