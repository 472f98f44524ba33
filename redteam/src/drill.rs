//! What a drill is: an attack that has an effect as soon as nothing stops it,
//! on a decoy that the host side has put up, so that the effect can be looked
//! for where the attacker has no say.
//!
//! An [`Attack`](crate::attack::Attack) shows that a door is shut; a drill shows
//! which locks are on it, as each can be taken off.

use lazaret_wall::Layer;

use crate::inside::Inside;
use crate::system_call::system_call;

/// Something that can be taken away to see what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Barrier {
    /// A layer of the wall.
    Wall(Layer),
    /// The worker's control group.
    ControlGroup,
}

impl Barrier {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wall(layer) => layer.name(),
            Self::ControlGroup => "control-group",
        }
    }

    /// All that can be taken away.
    pub fn all() -> impl Iterator<Item = Self> {
        lazaret_wall::Off::removable()
            .map(Self::Wall)
            .chain([Self::ControlGroup])
    }
}

impl std::fmt::Display for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is nothing that can be taken away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no layer that can be taken off; those are {known}",
    known = Barrier::all().map(Barrier::name).collect::<Vec<_>>().join(", ")
)]
pub struct UnknownBarrier {
    /// The name.
    pub name: String,
}

impl std::str::FromStr for Barrier {
    type Err = UnknownBarrier;

    fn from_str(name: &str) -> Result<Self, UnknownBarrier> {
        Self::all()
            .find(|barrier| barrier.name() == name)
            .ok_or_else(|| UnknownBarrier {
                name: name.to_owned(),
            })
    }
}

/// The worker that a drill is run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stand {
    /// A tenant's.
    Tenant,
    /// A program's that has a directory to read.
    Reader,
    /// A program's that has a directory to read and write.
    Writer,
}

/// The effect that a drill is after, as the host side looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The answer holds the secret of a decoy.
    Secret,
    /// The answer holds what the host reads in this file.
    Text(&'static str),
    /// The answer holds the name of one of the host's network interfaces that no
    /// new network namespace has.
    Interface,
    /// The decoy file holds something else.
    FileChanged,
    /// The decoy file has other permissions.
    ModeChanged,
    /// There is a new entry of this name in the decoy directory.
    Entry(&'static str),
    /// The entry of this name in the decoy directory is gone.
    Gone(&'static str),
    /// The file in the directory that was granted to be read holds something else.
    GrantedChanged,
    /// Somebody came to the decoy's listener or queue.
    Arrived(Arrival),
    /// The decoy process has ended.
    Killed,
    /// So many signals wait for the decoy process.
    SignalsPending(u64),
    /// The decoy process is traced.
    Traced,
    /// The decoy process's memory holds something else.
    MemoryChanged,
    /// The decoy segment of shared memory holds something else.
    SegmentChanged,
    /// The worker holds a descriptor to what begins so (`/proc/PID/fd`).
    Holds(&'static str),
    /// The worker holds a descriptor, open for writing, to what begins so.
    HoldsToWrite(&'static str),
    /// The worker is in another namespace of this kind.
    Namespace(&'static str),
    /// The worker sees other mounts.
    Mounts,
    /// The worker has another root directory.
    Root,
    /// The worker runs another program.
    Program,
    /// The worker runs another program as root.
    ProgramAsRoot,
    /// The worker has executable memory with the attacker's code in it, at the address
    /// that the answer says.
    Code,
    /// The worker's personality has this bit.
    Personality(u32),
    /// The worker and its descendants are at least so many processes.
    Processes(usize),
    /// The worker has more than one thread.
    Threads,
    /// The worker has more than so many bytes resident.
    Resident(u64),
    /// The worker has more than so many descriptors.
    Descriptors(usize),
    /// More than so many descriptors wait in the worker's sockets.
    InFlight(u64),
    /// The worker's limit of descriptors is higher.
    Limit,
    /// The worker has a mapping whose name begins so.
    Mapping(&'static str),
    /// The answer begins so. For the little that shows nowhere else.
    Reply(&'static str),
}

/// Where somebody can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// TCP on the host's loopback interface.
    Tcp,
    /// UDP there.
    Udp,
    /// A socket with an abstract name.
    Abstract,
    /// A socket in the decoy directory.
    Path,
    /// A queue of System V.
    Queue,
    /// A queue of POSIX.
    PosixQueue,
}

/// Why an attacker got no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// At which step.
    pub step: &'static str,
    /// The kernel's error.
    pub errno: i32,
}

/// What comes of a drill inside: what it got hold of, or where it was stopped.
pub type Tried = Result<String, Refusal>;

/// One drill.
#[derive(Debug, Clone, Copy)]
pub struct Drill {
    /// Its name.
    pub name: &'static str,
    /// What it tries, in a sentence without its full stop.
    pub tries: &'static str,
    /// Where.
    pub stand: Stand,
    /// The effect that counts.
    pub aim: Aim,
    /// What is said to stop it, each alone, in the order in which they would.
    pub barriers: &'static [Barrier],
    /// How many of them must at least be seen to hold, on any host that has them
    /// all, be it root's or an ordinary user's.
    pub at_least: usize,
    /// What it does.
    pub run: fn(&mut Inside<'_>) -> Tried,
}

/// What stands before a drill's name, as attacks have names of their own.
pub const DRILL: &str = "drill";
/// What an answer that got there begins with.
pub const DONE: &str = "done: ";
/// What an answer that was stopped begins with: `refused: STEP: ERRNO`.
pub const REFUSED: &str = "refused: ";

/// A drill's answer, as it goes over the wire.
pub fn answer(tried: Tried) -> String {
    match tried {
        Ok(text) => format!("{DONE}{text}"),
        Err(Refusal { step, errno }) => format!("{REFUSED}{step}: {errno}"),
    }
}

/// Makes a system call that is a step of a drill.
///
/// # Errors
/// What the kernel says.
pub fn step(step: &'static str, number: i64, arguments: &[u64]) -> Result<u64, Refusal> {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = *argument;
    }
    // SAFETY: none is wanted: whatever it does is this process's harm.
    let result = unsafe { system_call(number, all) };
    u64::try_from(result).map_err(|_| Refusal {
        step,
        errno: -result as i32,
    })
}

/// A refusal that no system call gave: something that an attacker needs isn't
/// there.
pub fn lacks(step: &'static str) -> Refusal {
    Refusal {
        step,
        errno: libc::ENOENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_barriers_go_both_ways() {
        for barrier in Barrier::all() {
            assert_eq!(barrier.name().parse(), Ok(barrier));
        }
        let error = "descriptors".parse::<Barrier>().unwrap_err().to_string();
        assert!(
            error.contains("seccomp") && error.contains("control-group"),
            "{error}"
        );
    }

    #[test]
    fn a_step_says_what_the_kernel_said() {
        assert_eq!(
            step("close", libc::SYS_close, &[u64::MAX]),
            Err(Refusal {
                step: "close",
                errno: libc::EBADF
            })
        );
        assert_eq!(
            answer(step("close", libc::SYS_close, &[u64::MAX]).map(|_| String::new())),
            "refused: close: 9"
        );
    }
}
