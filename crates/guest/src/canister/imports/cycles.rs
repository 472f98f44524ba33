//! Cycles: a plain number for now. None come with a call, and calls and
//! services cost none.

use super::super::context::{Context, Contexts};
use super::super::state::Guest;
use super::super::stop::Stop;
use super::Type::{I, I32, I64};
use super::{Arguments, Import};

use Context::{Init, PreUpgrade, ReplicatedQuery, Update};

/// `U RQ`
const WITH_CALL: Contexts = Contexts::of(&[Update, ReplicatedQuery]);
/// `I G U RQ`
const BURN: Contexts = Contexts::of(&[Init, PreUpgrade, Update, ReplicatedQuery]);

/// Of `cost_sign_with_ecdsa` and its like: there is no key of that name.
const NO_SUCH_KEY: u64 = 2;

pub(super) const TABLE: &[Import] = &[
    Import {
        name: "canister_cycle_balance",
        parameters: &[],
        result: Some(I64),
        allowed: Contexts::NOT_START,
        run: balance_64,
    },
    Import {
        name: "canister_cycle_balance128",
        parameters: &[I],
        result: None,
        allowed: Contexts::NOT_START,
        run: balance,
    },
    Import {
        name: "canister_liquid_cycle_balance128",
        parameters: &[I],
        result: None,
        allowed: Contexts::NOT_START,
        run: balance,
    },
    Import {
        name: "msg_cycles_available",
        parameters: &[],
        result: Some(I64),
        allowed: WITH_CALL,
        run: |_, _| Ok(0),
    },
    Import {
        name: "msg_cycles_available128",
        parameters: &[I],
        result: None,
        allowed: WITH_CALL,
        run: |guest, &[to, ..]| put(guest, to, 0),
    },
    Import {
        name: "msg_cycles_accept",
        parameters: &[I64],
        result: Some(I64),
        allowed: WITH_CALL,
        run: |_, _| Ok(0),
    },
    Import {
        name: "msg_cycles_accept128",
        parameters: &[I64, I64, I],
        result: None,
        allowed: WITH_CALL,
        run: |guest, &[_, _, to, ..]| put(guest, to, 0),
    },
    // Only in the callbacks of outgoing calls.
    Import {
        name: "msg_cycles_refunded",
        parameters: &[],
        result: Some(I64),
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    Import {
        name: "msg_cycles_refunded128",
        parameters: &[I],
        result: None,
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    Import {
        name: "cycles_burn128",
        parameters: &[I64, I64, I],
        result: None,
        allowed: BURN,
        run: burn,
    },
    Import {
        name: "cost_call",
        parameters: &[I64, I64, I],
        result: None,
        allowed: Contexts::ALL,
        run: |guest, &[_, _, to, ..]| put(guest, to, 0),
    },
    Import {
        name: "cost_create_canister",
        parameters: &[I],
        result: None,
        allowed: Contexts::ALL,
        run: |guest, &[to, ..]| put(guest, to, 0),
    },
    Import {
        name: "cost_http_request",
        parameters: &[I64, I64, I],
        result: None,
        allowed: Contexts::ALL,
        run: |guest, &[_, _, to, ..]| put(guest, to, 0),
    },
    Import {
        name: "cost_sign_with_ecdsa",
        parameters: &[I, I, I32, I],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: |_, _| Ok(NO_SUCH_KEY),
    },
    Import {
        name: "cost_sign_with_schnorr",
        parameters: &[I, I, I32, I],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: |_, _| Ok(NO_SUCH_KEY),
    },
    Import {
        name: "cost_vetkd_derive_key",
        parameters: &[I, I, I32, I],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: |_, _| Ok(NO_SUCH_KEY),
    },
];

fn put(guest: &mut Guest<'_>, to: u64, amount: u128) -> Result<u64, Stop> {
    guest.write(to, &amount.to_le_bytes())?;
    Ok(0)
}

fn held(guest: &Guest<'_>) -> u128 {
    guest
        .state()
        .call
        .cycles
        .saturating_sub(guest.state().effects.cycles_burned)
}

fn balance(guest: &mut Guest<'_>, &[to, ..]: &Arguments) -> Result<u64, Stop> {
    put(guest, to, held(guest))
}

fn balance_64(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    let held = held(guest);
    u64::try_from(held)
        .map_err(|_| guest.contract(format_args!("the balance of {held} doesn't fit 64 bits")))
}

fn burn(guest: &mut Guest<'_>, &[high, low, to, ..]: &Arguments) -> Result<u64, Stop> {
    let amount = (u128::from(high) << 64 | u128::from(low)).min(held(guest));
    put(guest, to, amount)?;
    let effects = &mut guest.state_mut().effects;
    effects.cycles_burned = effects.cycles_burned.saturating_add(amount);
    Ok(0)
}
