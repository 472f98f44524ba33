//! How a Lazaret worker is locked in.
//!
//! A worker is a process behind several independent layers ([`Layer`]), one
//! file each under [`layers`], each with a `probe` (does this host have it: a
//! real try, not a version check), an `apply` and a `verify` from outside. The
//! [`launcher`] starts workers; a [`Receipt`] says what was verified about one.
//!
//! # Order, from the host to guest code
//!
//! 1. The host clones the launcher into namespaces of its own: user, PID,
//!    mount, network, IPC, UTS, cgroup. The launcher is pid 1 of its PID
//!    namespace, so its end kills every worker; it ends when its socket to the
//!    host closes. (`PR_SET_PDEATHSIG` follows the *thread* that forked, so a
//!    host that starts the launcher from a short-lived thread would lose it;
//!    a socket follows the process.)
//! 2. The launcher swaps its root for a read-only tmpfs with nothing in it, or
//!    with the few shared libraries that its executables need, then waits for
//!    orders.
//! 3. For each worker: `clone3` into user, PID, mount, IPC, UTS and cgroup
//!    namespaces (the empty network namespace is inherited), limits, three
//!    descriptors, and `execveat` of the same executable with no environment.
//!    With version 1 of control groups it enters its group before exec, with
//!    version 2 it is cloned into it ([`cgroup`]).
//! 4. In the worker ([`worker`]): empty root, if the launcher's has anything in
//!    it, `no_new_privs`, no capabilities,
//!    not dumpable, and the *launch* filter. Then the set-up that loads code.
//! 5. Landlock, memory-deny-write-execute and the *running* filter, which
//!    allows only what the worker's kind and grants need ([`mod@policy`]).
//! 6. The host verifies from outside and writes the receipt ([`receipt`]).
//!    Only then does guest code run.
#![deny(missing_docs)]

pub mod address_layout;
pub mod advice;
pub mod architecture;
pub mod capacity;
pub mod cgroup;
pub mod executable;
pub mod grade;
pub mod grants;
pub mod launcher;
pub mod layer;
pub mod layers;
pub mod measures;
pub mod memory_pressure;
pub mod off;
pub mod policy;
pub mod posture;
pub mod probe;
pub mod process;
pub mod profile;
pub mod receipt;
pub mod sealing;
pub mod shortage;
pub mod supervisor;
pub mod worker;

pub use architecture::Architecture;
pub use grade::Grade;
pub use layer::{Layer, LayerError, Probe};
pub use measures::Measure;
pub use off::{NotRemovable, Off};
pub use policy::{Kind, Policy, policy};
pub use posture::Posture;
pub use profile::Profile;
pub use receipt::Receipt;
pub use shortage::{Resource, Shortage};
