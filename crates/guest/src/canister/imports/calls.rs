//! Outgoing calls, which don't exist yet.
//!
//! Motoko's canisters import these always and use them rarely, so they link.
//! Whoever begins a call is stopped, with the reason: an error code of
//! `call_perform` would let it go on as if the network were busy, and it might
//! try for ever.

use super::super::context::{Context, Contexts};
use super::super::state::Guest;
use super::super::stop::Stop;
use super::Type::{I, I32, I64};
use super::{Arguments, Import};

/// `U CQ`
const CALL: Contexts = Contexts::of(&[Context::Update, Context::CompositeQuery]);
/// `U`
const UPDATE: Contexts = Contexts::of(&[Context::Update]);

pub(super) const TABLE: &[Import] = &[
    Import {
        name: "call_new",
        parameters: &[I, I, I, I, I, I, I, I],
        result: None,
        allowed: CALL,
        run: unsupported,
    },
    Import {
        name: "call_on_cleanup",
        parameters: &[I, I],
        result: None,
        allowed: CALL,
        run: none_begun,
    },
    Import {
        name: "call_data_append",
        parameters: &[I, I],
        result: None,
        allowed: CALL,
        run: none_begun,
    },
    Import {
        name: "call_with_best_effort_response",
        parameters: &[I32],
        result: None,
        allowed: CALL,
        run: none_begun,
    },
    Import {
        name: "call_cycles_add",
        parameters: &[I64],
        result: None,
        allowed: UPDATE,
        run: none_begun,
    },
    Import {
        name: "call_cycles_add128",
        parameters: &[I64, I64],
        result: None,
        allowed: UPDATE,
        run: none_begun,
    },
    Import {
        name: "call_perform",
        parameters: &[],
        result: Some(I32),
        allowed: CALL,
        run: none_begun,
    },
];

fn unsupported(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Err(guest.contract("calls between tenants are not supported yet"))
}

fn none_begun(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Err(guest.contract("no call has been begun with call_new"))
}
