//! Values of globals, as the wire and as the engine has them.

use lazaret_wire::message::Global as Value;
use wasmtime::Val;

/// The wire's form of a value; none if it is a reference.
pub(crate) fn value(val: &Val) -> Option<Value> {
    Some(match *val {
        Val::I32(value) => Value::I32(value.cast_unsigned()),
        Val::I64(value) => Value::I64(value.cast_unsigned()),
        Val::F32(bits) => Value::F32(bits),
        Val::F64(bits) => Value::F64(bits),
        Val::V128(value) => Value::V128(value.as_u128()),
        _ => return None,
    })
}

/// The engine's form of a value.
pub(crate) fn val(value: &Value) -> Val {
    match *value {
        Value::I32(value) => Val::I32(value.cast_signed()),
        Value::I64(value) => Val::I64(value.cast_signed()),
        Value::F32(bits) => Val::F32(bits),
        Value::F64(bits) => Val::F64(bits),
        Value::V128(value) => Val::V128(value.into()),
    }
}
