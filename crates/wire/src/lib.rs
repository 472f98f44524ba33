//! Everything that crosses between the Lazaret host and a worker.
//!
//! A worker is a locked process that runs code nobody trusts. Once it is
//! locked it shares exactly one thing with the host: a size-sealed memory file
//! ([`shared::Shared`]) with two bells, a request area, an answer area, a log
//! area, a bitmap of entered chunks and a page for last words. Before that,
//! while it is set up, descriptors are handed over on a socket
//! ([`socket::Channel`]) that is closed by the lock.
//!
//! [`table::TABLE`] lists every message and every shared byte with its
//! direction, its bound and what the host does when it is wrong. Nothing
//! crosses that is not in it.
//!
//! # Rules
//!
//! * The reader copies a message out of shared memory once and validates the
//!   copy; it never looks at the shared bytes twice.
//! * Decoding is bounded, allocates no more than the input is long, and never
//!   panics ([`codec`]).
//! * The crate depends on nothing of ours.
#![deny(missing_docs)]

pub mod bell;
pub mod codec;
pub mod layout;
pub mod message;
pub mod shared;
pub mod socket;
pub mod table;

pub use bell::{Rung, Spin};
pub use codec::{DecodeError, EncodeError};
pub use shared::{Shared, SharedError};
