//! A tenant's Candid interface: arguments from text, replies to text.
//!
//! What a module says of its interface is as hostile as the module. Candid's
//! types nest, and both its checker and its printer recurse, so all of it
//! happens on a thread with a deep stack, for text of bounded length and for a
//! bounded time, and a reply is decoded with a quota (zero-sized values make a
//! few bytes of it as long as one likes).

mod error;

use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use candid::types::{Type, TypeEnv, TypeInner};
use candid::{DecoderConfig, IDLArgs};
use candid_parser::syntax::IDLInitArgs;
use candid_parser::typing::check_init_args;
use candid_parser::utils::CandidSource;

pub(crate) use self::error::InterfaceError;

/// The longest interface that is looked at, in bytes. Every level of nesting
/// takes four bytes of text (`opt `) at least.
const MAX_SECTION: usize = 256 << 10;
/// The longest argument text that is parsed, in bytes.
const MAX_TEXT: usize = 16 << 20;
/// Stack for all this, in bytes; only what is used is ever made.
const STACK: usize = 1 << 30;
/// What decoding a reply may cost, in Candid's own units. The largest reply of
/// two-byte records costs 1.5 thousand millions, which is half a second.
const QUOTA: usize = 2_000_000_000;
/// How long all this may take. Real interfaces take milliseconds; checking one
/// that nests as deep as it can takes minutes.
const TIME: Duration = Duration::from_secs(10);

/// What a module says of its interface (its `candid:service` and `candid:args`
/// sections).
#[derive(Debug, Clone, Default)]
pub(crate) struct Sections {
    /// The service, in Candid.
    pub service: Option<Vec<u8>>,
    /// The types of the initialiser's arguments.
    pub init: Option<Vec<u8>>,
}

/// What an argument is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The initialiser, or what runs after an upgrade.
    Init,
    /// A method.
    Method(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => f.write_str("the initialiser"),
            Self::Method(name) => write!(f, "method `{name}`"),
        }
    }
}

/// Turns Candid text into the bytes of an argument: with the types that
/// `target` takes if they are known, else with those that the text suggests.
pub(crate) fn encode(
    sections: &Sections,
    target: &Target,
    text: &str,
) -> Result<Vec<u8>, InterfaceError> {
    let (sections, target, text) = (sections.clone(), target.clone(), text.to_owned());
    deep(move || {
        let fail = |reason: String| InterfaceError::Parse {
            text: shortened(&text, 80),
            reason,
        };
        if text.len() > MAX_TEXT {
            return Err(fail(format!(
                "it has {} bytes; the limit is {MAX_TEXT}",
                text.len()
            )));
        }
        let values =
            candid_parser::parse_idl_args(&text).map_err(|error| fail(one_line(&error)))?;
        let Some((env, types)) = types(&sections, &target, Side::Arguments) else {
            return values.to_bytes().map_err(|error| fail(one_line(&error)));
        };
        let misfit = |reason: String| InterfaceError::Misfit {
            text: shortened(&text, 80),
            target: target.clone(),
            expected: tuple(&types),
            reason,
        };
        // Candid's own encoder ignores values beyond the last type.
        if values.args.len() > types.len() {
            return Err(misfit(format!("it has {} values", values.args.len())));
        }
        let values = values
            .annotate_types(true, &env, &types)
            .map_err(|error| misfit(one_line(&error)))?;
        values
            .to_bytes_with_types(&env, &types)
            .map_err(|error| misfit(one_line(&error)))
    })
}

/// Turns the bytes of a reply into Candid text: with the names of the types
/// that `method` returns if they are known and fit.
pub(crate) fn decode(
    sections: &Sections,
    method: &str,
    reply: &[u8],
) -> Result<String, InterfaceError> {
    let (sections, target, reply) = (
        sections.clone(),
        Target::Method(method.to_owned()),
        reply.to_vec(),
    );
    deep(move || {
        let mut quota = DecoderConfig::new();
        quota
            .set_decoding_quota(QUOTA)
            .set_skipping_quota(QUOTA)
            .set_full_error_message(false);
        let typed = types(&sections, &target, Side::Results).and_then(|(env, types)| {
            IDLArgs::from_bytes_with_types_with_config(&reply, &env, &types, &quota).ok()
        });
        let values = match typed {
            Some(values) => values,
            None => IDLArgs::from_bytes_with_config(&reply, &quota).map_err(|error| {
                InterfaceError::Reply {
                    size: reply.len(),
                    reason: one_line(&error),
                }
            })?,
        };
        Ok(values.to_string())
    })
}

/// Which types of a method.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Arguments,
    Results,
}

/// The types of `target`, if the module tells them in a way that can be read.
fn types(sections: &Sections, target: &Target, side: Side) -> Option<(TypeEnv, Vec<Type>)> {
    let service = text_of("candid:service", sections.service.as_deref());
    let (env, actor) = match service.map(|text| CandidSource::Text(text).load()) {
        Some(Ok(loaded)) => loaded,
        Some(Err(error)) => {
            tracing::warn!(
                error = one_line(&error),
                "the module's Candid interface can't be read; arguments are encoded as they are written"
            );
            return None;
        }
        None => (TypeEnv::new(), None),
    };
    match target {
        Target::Method(name) => {
            let function = env.get_method(&actor?, name).ok()?.clone();
            Some((
                env,
                if side == Side::Arguments {
                    function.args
                } else {
                    function.rets
                },
            ))
        }
        Target::Init => {
            let actor = actor.and_then(|actor| env.trace_type(&actor).ok());
            if let Some(TypeInner::Class(types, _)) = actor.as_deref_inner() {
                return Some((env, types.clone()));
            }
            let parsed: IDLInitArgs = text_of("candid:args", sections.init.as_deref())?
                .parse()
                .ok()?;
            let mut own = TypeEnv::new();
            let types = check_init_args(&mut own, &env, &parsed).ok()?;
            Some((own, types))
        }
    }
}

/// The inside of a type that may be missing.
trait Inner {
    fn as_deref_inner(&self) -> Option<&TypeInner>;
}

impl Inner for Option<Type> {
    fn as_deref_inner(&self) -> Option<&TypeInner> {
        self.as_ref().map(|found| found.as_ref())
    }
}

fn text_of<'a>(name: &str, section: Option<&'a [u8]>) -> Option<&'a str> {
    let section = section?;
    if section.len() > MAX_SECTION {
        tracing::warn!(
            section = name,
            bytes = section.len(),
            limit = MAX_SECTION,
            "the module's Candid interface is too long to be looked at"
        );
        return None;
    }
    std::str::from_utf8(section).ok()
}

/// Runs `work` on a thread with a deep stack, and gives up on it after a while:
/// this process ends soon, and the thread with it.
fn deep<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InterfaceError> + Send + 'static,
) -> Result<T, InterfaceError> {
    let (answer, answered) = sync_channel(1);
    let run = move || {
        // Whoever asked may have given up.
        let _ = answer.send(work());
    };
    std::thread::Builder::new()
        .name("lazaret-candid".into())
        .stack_size(STACK)
        .spawn(run)
        .map_err(InterfaceError::Thread)?;
    match answered.recv_timeout(TIME) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(InterfaceError::Time),
        Err(RecvTimeoutError::Disconnected) => Err(InterfaceError::Panicked),
    }
}

fn tuple(types: &[Type]) -> String {
    let words: Vec<String> = types.iter().map(one_line).collect();
    format!("({})", words.join(", "))
}

/// Something's text in one line, with its causes, and not too long.
fn one_line(of: &impl fmt::Display) -> String {
    shortened(
        &format!("{of:#}")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        300,
    )
}

/// The first characters of a text.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = r#"
        type Shape = variant { circle : float64; square : record { side : nat32 } };
        service : { describe : (vec Shape, opt text) -> (record { count : nat; first : opt Shape }) query; add : (nat) -> (nat) }"#;

    fn sections() -> Sections {
        Sections {
            service: Some(SERVICE.into()),
            init: Some("(greeting : text)".into()),
        }
    }

    fn method(name: &str) -> Target {
        Target::Method(name.into())
    }

    #[test]
    fn numbers_become_what_the_method_takes() {
        let nat = encode(&sections(), &method("add"), "(1)").unwrap();
        assert_eq!(nat, b"DIDL\0\x01\x7d\x01");
        // Without an interface, the text decides: an int.
        assert_eq!(
            encode(&Sections::default(), &method("add"), "(1)").unwrap(),
            b"DIDL\0\x01\x7c\x01"
        );
        assert_eq!(
            encode(&Sections::default(), &Target::Init, "()").unwrap(),
            b"DIDL\0\0"
        );
        // Left-out options are null.
        encode(
            &sections(),
            &method("describe"),
            "(vec { variant { circle = 1.5 } })",
        )
        .unwrap();
        assert_eq!(
            encode(&sections(), &Target::Init, "(\"x\")").unwrap(),
            b"DIDL\0\x01\x71\x01x"
        );
    }

    #[test]
    fn a_misfit_names_what_is_taken() {
        for (target, text, words) in [
            (method("add"), "(\"x\")", ["method `add`", "(nat)"]),
            (method("add"), "(-1)", ["method `add`", "(nat)"]),
            (method("add"), "(1, 2)", ["method `add`", "2 values"]),
            (method("add"), "()", ["method `add`", "(nat)"]),
            (Target::Init, "(7)", ["the initialiser", "(text)"]),
        ] {
            let error = encode(&sections(), &target, text).unwrap_err();
            assert!(
                matches!(error, InterfaceError::Misfit { .. }),
                "{text}: {error:?}"
            );
            let error = error.to_string();
            assert!(
                words.iter().all(|word| error.contains(word)) && !error.contains('\n'),
                "{error}"
            );
        }
        for text in ["", "42", "(", "(foo)", &"(".repeat(1000)] {
            let error = encode(&sections(), &method("add"), text).unwrap_err();
            assert!(
                matches!(error, InterfaceError::Parse { .. }),
                "{text}: {error:?}"
            );
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn replies_have_the_names_of_their_fields_where_the_types_are_known() {
        let reply = candid_parser::parse_idl_args("(record { count = 2 : nat; first = opt variant { square = record { side = 3 : nat32 } } })").unwrap();
        let reply = reply.to_bytes().unwrap();
        let text = decode(&sections(), "describe", &reply).unwrap();
        assert!(
            text.contains("count = 2") && text.contains("square") && text.contains("side = 3"),
            "{text}"
        );
        let untyped = decode(&Sections::default(), "describe", &reply).unwrap();
        assert!(
            untyped.contains("2 : nat") && !untyped.contains("side"),
            "{untyped}"
        );
        // A reply that isn't of the types that the module states is shown all the same.
        assert_eq!(
            decode(&sections(), "describe", b"DIDL\0\x01\x7d\x07").unwrap(),
            "(7 : nat)"
        );
        assert!(matches!(
            decode(&sections(), "add", b"\x01\x02"),
            Err(InterfaceError::Reply { size: 2, .. })
        ));
    }

    #[test]
    fn a_large_reply_fits_the_quota_and_a_bomb_does_not() {
        let blob = candid::encode_one(vec![7u8; 2 << 20]).unwrap();
        assert!(decode(&Sections::default(), "x", &blob).unwrap().len() > 2 << 20);
        // vec null, 2^40 of them: 17 bytes.
        let bomb = b"DIDL\x01\x6d\x7f\x01\x00\x80\x80\x80\x80\x80\x20";
        assert!(matches!(
            decode(&Sections::default(), "x", bomb),
            Err(InterfaceError::Reply { .. })
        ));
    }

    #[test]
    fn an_interface_that_nests_deeply_is_survived() {
        let nested = |levels: usize| Sections {
            service: Some(
                format!("service : {{ f : ({} nat) -> () }}", "opt ".repeat(levels)).into_bytes(),
            ),
            init: None,
        };
        assert!(encode(&nested(1000), &method("f"), "(null)").is_ok());
        // Whatever comes of it, it comes back.
        match encode(&nested(MAX_SECTION / 4 - 20), &method("f"), "(null)") {
            Ok(_) | Err(InterfaceError::Time | InterfaceError::Misfit { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        let longer = Sections {
            service: Some(vec![b' '; MAX_SECTION + 1]),
            init: None,
        };
        assert!(encode(&longer, &method("f"), "(1)").is_ok());
    }
}
