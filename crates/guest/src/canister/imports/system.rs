//! The canister itself and its surroundings.

use lazaret_wire::layout::{LOG_SIZE, MAX_PRINCIPAL};
use lazaret_wire::message::Entry;
use lazaret_wire::message::outcome::MAX_CERTIFIED_DATA;
use lazaret_wire::message::setup::MAX_TEXT;

use super::super::context::{Context, Contexts};
use super::super::costs;
use super::super::state::Guest;
use super::super::stop::Stop;
use super::Type::{I, I32, I64};
use super::{Arguments, Import};

use Context::{CompositeQuery, Init, PreUpgrade, Query, ReplicatedQuery, Update};

/// `I G U`
const EFFECT: Contexts = Contexts::of(&[Init, PreUpgrade, Update]);
/// `I G U RQ`
const REPLICATED: Contexts = Contexts::of(&[Init, PreUpgrade, Update, ReplicatedQuery]);
/// `NRQ CQ`
const CERTIFICATE: Contexts = Contexts::of(&[Query, CompositeQuery]);

/// `canister_status`: running. Stopped tenants aren't called.
const RUNNING: u64 = 1;

pub(super) const TABLE: &[Import] = &[
    Import {
        name: "canister_self_size",
        parameters: &[],
        result: Some(I),
        allowed: Contexts::NOT_START,
        run: |guest, _| Ok(guest.state().call.canister.len() as u64),
    },
    Import {
        name: "canister_self_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: Contexts::NOT_START,
        run: canister,
    },
    Import {
        name: "canister_status",
        parameters: &[],
        result: Some(I32),
        allowed: Contexts::NOT_START,
        run: |_, _| Ok(RUNNING),
    },
    Import {
        name: "canister_version",
        parameters: &[],
        result: Some(I64),
        allowed: Contexts::NOT_START,
        run: |guest, _| Ok(guest.state().call.version),
    },
    // There is no subnet and no root key here: both are empty.
    Import {
        name: "subnet_self_size",
        parameters: &[],
        result: Some(I),
        allowed: Contexts::NOT_START,
        run: |_, _| Ok(0),
    },
    Import {
        name: "subnet_self_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: Contexts::NOT_START,
        run: nothing,
    },
    Import {
        name: "root_key_size",
        parameters: &[],
        result: Some(I),
        allowed: REPLICATED,
        run: |_, _| Ok(0),
    },
    Import {
        name: "root_key_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: REPLICATED,
        run: nothing,
    },
    Import {
        name: "certified_data_set",
        parameters: &[I, I],
        result: None,
        allowed: EFFECT,
        run: certify,
    },
    Import {
        name: "data_certificate_present",
        parameters: &[],
        result: Some(I32),
        allowed: Contexts::NOT_START,
        run: |guest, _| Ok(certified(guest).into()),
    },
    Import {
        name: "data_certificate_size",
        parameters: &[],
        result: Some(I),
        allowed: CERTIFICATE,
        run: certificate_size,
    },
    Import {
        name: "data_certificate_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: CERTIFICATE,
        run: certificate,
    },
    Import {
        name: "time",
        parameters: &[],
        result: Some(I64),
        allowed: Contexts::NOT_START,
        run: |guest, _| Ok(guest.state().call.time),
    },
    Import {
        name: "global_timer_set",
        parameters: &[I64],
        result: Some(I64),
        allowed: EFFECT,
        run: timer,
    },
    Import {
        name: "performance_counter",
        parameters: &[I32],
        result: Some(I64),
        allowed: Contexts::ALL,
        run: counter,
    },
    Import {
        name: "is_controller",
        parameters: &[I, I],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: is_controller,
    },
    Import {
        name: "in_replicated_execution",
        parameters: &[],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: |guest, _| Ok((!CERTIFICATE.contains(guest.state().context)).into()),
    },
    // No tenant has environment variables yet.
    Import {
        name: "env_var_count",
        parameters: &[],
        result: Some(I),
        allowed: Contexts::NOT_START,
        run: |_, _| Ok(0),
    },
    Import {
        name: "env_var_name_size",
        parameters: &[I],
        result: Some(I),
        allowed: Contexts::NOT_START,
        run: no_variable,
    },
    Import {
        name: "env_var_name_copy",
        parameters: &[I, I, I, I],
        result: None,
        allowed: Contexts::NOT_START,
        run: no_variable,
    },
    Import {
        name: "env_var_name_exists",
        parameters: &[I, I],
        result: Some(I32),
        allowed: Contexts::NOT_START,
        run: |_, _| Ok(0),
    },
    Import {
        name: "env_var_value_size",
        parameters: &[I, I],
        result: Some(I),
        allowed: Contexts::NOT_START,
        run: no_variable,
    },
    Import {
        name: "env_var_value_copy",
        parameters: &[I, I, I, I, I],
        result: None,
        allowed: Contexts::NOT_START,
        run: no_variable,
    },
    Import {
        name: "debug_print",
        parameters: &[I, I],
        result: None,
        allowed: Contexts::ALL,
        run: print,
    },
    Import {
        name: "trap",
        parameters: &[I, I],
        result: None,
        allowed: Contexts::ALL,
        run: trap,
    },
];

fn canister(guest: &mut Guest<'_>, &[to, offset, length, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy_field([to, offset, length], |state| &state.call.canister)?;
    Ok(0)
}

fn nothing(guest: &mut Guest<'_>, &[to, offset, length, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy_field([to, offset, length], |_| &[])?;
    Ok(0)
}

fn certify(guest: &mut Guest<'_>, &[at, length, ..]: &Arguments) -> Result<u64, Stop> {
    let data = guest.read(at, length, MAX_CERTIFIED_DATA)?;
    guest.state_mut().effects.certified_data = Some(data);
    Ok(0)
}

fn certified(guest: &Guest<'_>) -> bool {
    let state = guest.state();
    state.call.entry == Entry::Query && state.call.certificate.is_some()
}

fn certificate_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    match &guest.state().call.certificate {
        Some(bytes) => Ok(bytes.len() as u64),
        None => Err(guest.contract("there is no certificate")),
    }
}

fn certificate(guest: &mut Guest<'_>, &[to, offset, length, ..]: &Arguments) -> Result<u64, Stop> {
    certificate_size(guest, &[0; 8])?;
    guest.copy_field([to, offset, length], |state| {
        state.call.certificate.as_deref().unwrap_or_default()
    })?;
    Ok(0)
}

/// Gives the timer that this call set before, or 0: the one from before the
/// call isn't part of the request.
fn timer(guest: &mut Guest<'_>, &[time, ..]: &Arguments) -> Result<u64, Stop> {
    let before = guest.state_mut().effects.global_timer.replace(time);
    Ok(before.unwrap_or(0))
}

/// 0 counts this message, 1 the whole call context: the same, as there are no
/// outgoing calls. The unit is fuel.
fn counter(guest: &mut Guest<'_>, &[which, ..]: &Arguments) -> Result<u64, Stop> {
    if which > 1 {
        return Err(guest.contract(format_args!("there is no counter {which}; use 0 or 1")));
    }
    let given = guest.state().fuel_given;
    Ok(given.saturating_sub(guest.fuel()).max(0).cast_unsigned())
}

/// Only of the caller is known whether it is a controller: of anybody else the
/// answer is no.
fn is_controller(guest: &mut Guest<'_>, &[at, length, ..]: &Arguments) -> Result<u64, Stop> {
    let principal = guest.read(at, length, MAX_PRINCIPAL)?;
    let call = &guest.state().call;
    Ok((call.controller && principal == call.caller).into())
}

fn no_variable(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Err(guest.contract("there is no such environment variable"))
}

/// Charged for all of it, kept up to what the log area holds.
fn print(guest: &mut Guest<'_>, &[at, length, ..]: &Arguments) -> Result<u64, Stop> {
    let kept = length.min(LOG_SIZE as u64 / 4);
    guest.charge(costs::copying(length - kept))?;
    let heap = &guest.state().heap;
    if at.checked_add(length).is_none_or(|end| end > heap.size()) {
        return Err(guest.beyond("heap", at, length, heap.size()));
    }
    let line = guest.read(at, kept, LOG_SIZE)?;
    if let Some(exchange) = &guest.state().exchange {
        exchange.log(&line);
    }
    Ok(0)
}

fn trap(guest: &mut Guest<'_>, &[at, length, ..]: &Arguments) -> Result<u64, Stop> {
    let text = guest.read(at, length.min(MAX_TEXT as u64), MAX_TEXT)?;
    Err(Stop::Explicit(String::from_utf8_lossy(&text).into_owned()))
}
