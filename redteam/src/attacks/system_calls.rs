//! Any system call, by number: `system_call NUMBER [ARGUMENT]...`, where an
//! argument is a number, `memory`, `shared`, `heap` or `code`.

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard, Value};
use crate::inside::Inside;
use crate::system_call::system_call;

/// seccomp: whatever is not on the printed list kills the worker.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

/// The attacks.
pub const ATTACKS: &[Attack] = &[Attack::native(
    "system_call",
    STOPPED_BY,
    Expected::Violation,
    by_number,
)];

fn value(word: &str) -> Option<Value> {
    Some(match word {
        "memory" => Value::Memory,
        "shared" => Value::Shared,
        "heap" => Value::Heap,
        "code" => Value::Code,
        number => Value::Number(number.parse().ok()?),
    })
}

fn by_number(inside: &mut Inside<'_>) -> String {
    let mut words = inside.argument.split_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse::<i64>().ok()) else {
        return "no number".into();
    };
    let mut arguments = [0; 6];
    for (place, word) in arguments.iter_mut().zip(words) {
        match value(word) {
            Some(value) => *place = inside.resolve(value),
            None => return format!("`{word}` is no argument"),
        }
    }
    // SAFETY: none is wanted: whatever it does is this process's harm.
    let result = unsafe { system_call(number, arguments) };
    format!("returned {result}")
}
