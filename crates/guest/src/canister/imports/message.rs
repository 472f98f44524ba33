//! The message: argument, caller, reply, reject.

use lazaret_wire::message::setup::MAX_TEXT;

use super::super::context::{Context, Contexts};
use super::super::state::{Answer, Guest};
use super::super::stop::Stop;
use super::Type::{I, I32, I64};
use super::{Arguments, Import};

use Context::{CompositeQuery, Init, Query, ReplicatedQuery, Update};

/// `I U RQ NRQ CQ`
const ARGUMENT: Contexts = Contexts::of(&[Init, Update, ReplicatedQuery, Query, CompositeQuery]);
/// `U RQ NRQ CQ`
const ANSWER: Contexts = Contexts::of(&[Update, ReplicatedQuery, Query, CompositeQuery]);

pub(super) const TABLE: &[Import] = &[
    Import {
        name: "msg_arg_data_size",
        parameters: &[],
        result: Some(I),
        allowed: ARGUMENT,
        run: |guest, _| Ok(guest.state().call.argument.len() as u64),
    },
    Import {
        name: "msg_arg_data_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: ARGUMENT,
        run: argument,
    },
    Import {
        name: "msg_caller_size",
        parameters: &[],
        result: Some(I),
        allowed: Contexts::NOT_START,
        run: |guest, _| Ok(guest.state().call.caller.len() as u64),
    },
    Import {
        name: "msg_caller_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: Contexts::NOT_START,
        run: caller,
    },
    Import {
        name: "msg_reply_data_append",
        parameters: &[I, I],
        result: None,
        allowed: ANSWER,
        run: append,
    },
    Import {
        name: "msg_reply",
        parameters: &[],
        result: None,
        allowed: ANSWER,
        run: reply,
    },
    Import {
        name: "msg_reject",
        parameters: &[I, I],
        result: None,
        allowed: ANSWER,
        run: reject,
    },
    Import {
        name: "msg_deadline",
        parameters: &[],
        result: Some(I64),
        allowed: ANSWER,
        run: |_, _| Ok(0),
    },
    // Only in the callbacks of outgoing calls.
    Import {
        name: "msg_reject_code",
        parameters: &[],
        result: Some(I32),
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    Import {
        name: "msg_reject_msg_size",
        parameters: &[],
        result: Some(I),
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    Import {
        name: "msg_reject_msg_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    // Only in canister_inspect_message, which isn't called.
    Import {
        name: "msg_method_name_size",
        parameters: &[],
        result: Some(I),
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    Import {
        name: "msg_method_name_copy",
        parameters: &[I, I, I],
        result: None,
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
    Import {
        name: "accept_message",
        parameters: &[],
        result: None,
        allowed: Contexts::NONE,
        run: |_, _| Ok(0),
    },
];

fn argument(guest: &mut Guest<'_>, &[to, offset, length, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy_field([to, offset, length], |state| &state.call.argument)?;
    Ok(0)
}

fn caller(guest: &mut Guest<'_>, &[to, offset, length, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy_field([to, offset, length], |state| &state.call.caller)?;
    Ok(0)
}

fn unanswered(guest: &Guest<'_>) -> Result<(), Stop> {
    match guest.state().answer {
        Answer::None => Ok(()),
        Answer::Reply => Err(guest.contract("the call has been replied to already")),
        Answer::Reject(_) => Err(guest.contract("the call has been rejected already")),
    }
}

fn append(guest: &mut Guest<'_>, &[at, length, ..]: &Arguments) -> Result<u64, Stop> {
    unanswered(guest)?;
    guest.append_reply(at, length)?;
    Ok(0)
}

fn reply(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    unanswered(guest)?;
    guest.state_mut().answer = Answer::Reply;
    Ok(0)
}

fn reject(guest: &mut Guest<'_>, &[at, length, ..]: &Arguments) -> Result<u64, Stop> {
    unanswered(guest)?;
    let text = guest.read(at, length, MAX_TEXT)?;
    let text = String::from_utf8(text).map_err(|_| guest.contract("the message is not UTF-8"))?;
    guest.state_mut().answer = Answer::Reject(text);
    Ok(0)
}
