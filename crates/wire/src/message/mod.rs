//! The messages.
//!
//! [`ToWorker`] goes through the request area and is rung with the request
//! bell; [`FromWorker`] goes through the answer area and is rung with the
//! answer bell. One request is under way at a time. A host call turns the
//! direction round for a while: the worker answers [`FromWorker::HostCall`],
//! and the next request is [`ToWorker::HostReturn`]. So does a growth that the
//! host must grant: [`FromWorker::Grow`], [`ToWorker::Grown`].

pub mod call;
pub mod compile;
pub mod host_call;
pub mod outcome;
pub mod possible;
pub mod program;
pub mod setup;
pub mod snapshot;
pub mod transfer;

pub use call::{Call, Entry, Global, Prepare, Sizes};
pub use compile::{Artefact, Compile, CompileSettings, Compiled, Purpose, Refused};
pub use host_call::{HostCall, HostReturn};
pub use outcome::{Done, Effects, Outcome, Trap, TrapKind};
pub use possible::{Bounds, Impossible, same_types};
pub use program::{Exited, ProgramEnd};
pub use setup::{
    Assign, Assignment, Clock, Failed, Hello, MAX_RUNS, Preopen, ProgramSetup, ProvidedFunction,
    Ready, Region, Run, TenantSetup, Tracking, WorkerKind,
};
pub use snapshot::{Beginning, Initialised, Initialiser, PageRun, Snapshot};
pub use transfer::{Space, Transfer, TransferDirection, TransferRun};

use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};

/// The tag of [`ToWorker::Assign`].
const ASSIGN: u8 = 0;
/// The tag of [`ToWorker::Call`].
const CALL: u8 = 2;

/// What the host asks of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// What to become. Its descriptors come on the set-up socket.
    Assign(Assign),
    /// Run the program that was assigned.
    Start,
    /// Run one entry point of a tenant.
    Call(Box<Call>),
    /// Get ready for pages that the host will write.
    Prepare(Prepare),
    /// The answer to a host call.
    HostReturn(HostReturn),
    /// Compile the module in the input descriptor.
    Compile(Compile),
    /// The answer to a [`FromWorker::Grow`]: bytes by which the present call may
    /// grow its memories from now on, both together, at least those asked for;
    /// 0 if the node has too few.
    Grown(u64),
    /// Copy pages out of a tenant's memory, or into it.
    Transfer(Transfer),
}

impl ToWorker {
    /// Encodes a [`ToWorker::Assign`] from an assignment that is kept by its sender.
    pub fn assign_to_bytes(assignment: &Assignment, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        assignment.encode(Writer::new(out).u8(ASSIGN))
    }

    /// Encodes a [`ToWorker::Call`] from a call that is kept by its sender.
    pub fn call_to_bytes(call: &Call, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        call.encode(Writer::new(out).u8(CALL))
    }
}

impl Message for ToWorker {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Assign(message) => message.encode(to.u8(ASSIGN)),
            Self::Start => {
                to.u8(1);
                Ok(())
            }
            Self::Call(message) => message.encode(to.u8(CALL)),
            Self::HostReturn(message) => message.encode(to.u8(3)),
            Self::Compile(message) => message.encode(to.u8(4)),
            Self::Prepare(message) => message.encode(to.u8(5)),
            Self::Grown(bytes) => {
                to.u8(6).u64(*bytes);
                Ok(())
            }
            Self::Transfer(message) => message.encode(to.u8(7)),
        }
    }

    fn replace_decoded(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        match self {
            Self::Call(call) if from.peek() == Some(CALL) => {
                from.u8("request")?;
                call.replace_decoded(from)
            }
            other => {
                *other = Self::decode(from)?;
                Ok(())
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8("request")? {
            0 => Assign::decode(from).map(Self::Assign),
            1 => Ok(Self::Start),
            CALL => Call::decode(from).map(Box::new).map(Self::Call),
            3 => HostReturn::decode(from).map(Self::HostReturn),
            4 => Compile::decode(from).map(Self::Compile),
            5 => Prepare::decode(from).map(Self::Prepare),
            6 => from.u64("granted bytes").map(Self::Grown),
            7 => Transfer::decode(from).map(Self::Transfer),
            other => Err(DecodeError::Tag {
                field: "request",
                value: other.into(),
            }),
        }
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// Set up and locked.
    Ready(Ready),
    /// Could not be set up or locked.
    Failed(Failed),
    /// A call is done.
    Done(Done),
    /// The guest calls a host function.
    HostCall(HostCall),
    /// The program has ended.
    Exited(Exited),
    /// The compilation has ended.
    Compiled(Compiled),
    /// Ready for the pages of a [`Prepare`].
    Prepared,
    /// The call wants to grow its memories by so many bytes more than it was
    /// granted, which its own limits allow.
    Grow(u64),
    /// The pages of a [`Transfer`] are copied.
    Transferred,
    /// A blank worker is closed in, and waits for its assignment.
    Waiting,
}

impl Message for FromWorker {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Ready(message) => message.encode(to.u8(0)),
            Self::Failed(message) => message.encode(to.u8(1)),
            Self::Done(message) => message.encode(to.u8(2)),
            Self::HostCall(message) => message.encode(to.u8(3)),
            Self::Exited(message) => message.encode(to.u8(4)),
            Self::Compiled(message) => message.encode(to.u8(5)),
            Self::Prepared => {
                to.u8(6);
                Ok(())
            }
            Self::Grow(bytes) => {
                to.u8(7).u64(*bytes);
                Ok(())
            }
            Self::Transferred => {
                to.u8(8);
                Ok(())
            }
            Self::Waiting => {
                to.u8(9);
                Ok(())
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8("answer")? {
            0 => Ready::decode(from).map(Self::Ready),
            1 => Failed::decode(from).map(Self::Failed),
            2 => Done::decode(from).map(Self::Done),
            3 => HostCall::decode(from).map(Self::HostCall),
            4 => Exited::decode(from).map(Self::Exited),
            5 => Compiled::decode(from).map(Self::Compiled),
            6 => Ok(Self::Prepared),
            7 => from.u64("wanted bytes").map(Self::Grow),
            8 => Ok(Self::Transferred),
            9 => Ok(Self::Waiting),
            other => Err(DecodeError::Tag {
                field: "answer",
                value: other.into(),
            }),
        }
    }
}

/// A field-less enum that crosses as one byte.
macro_rules! byte_enum {
    ($(#[$meta:meta])* $name:ident, $field:literal { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$vmeta])* $variant = $value,)+
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        impl $crate::codec::Message for $name {
            fn encode(&self, to: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::EncodeError> {
                to.u8(*self as u8);
                Ok(())
            }

            fn decode(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match from.u8($field)? {
                    $($value => Ok(Self::$variant),)+
                    other => Err($crate::codec::DecodeError::Tag { field: $field, value: other.into() }),
                }
            }
        }
    };
}
pub(crate) use byte_enum;
