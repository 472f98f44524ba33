//! What `/proc/PID/stat` says of a process (proc_pid_stat(5)).

/// Whether a process is ending, or has ended: `PF_EXITING` among the flags in
/// `/proc/PID/stat`, the seventh field after the name (kernel:
/// include/linux/sched.h; proc_pid_stat(5)).
pub fn is_exiting(pid: i32) -> bool {
    stat(pid).is_none_or(|stat| says_exiting(&stat))
}

/// The same by what the file says.
pub(crate) fn says_exiting(stat: &str) -> bool {
    const PF_EXITING: u64 = 4;
    field(stat, 6).is_some_and(|flags| flags & PF_EXITING != 0)
}

/// When a process was started, in ticks since the machine was: with its number
/// that is what no other process ever has.
pub fn start_time(pid: i32) -> Option<u64> {
    field(&stat(pid)?, 19)
}

fn stat(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// The field at this place after the name, which may hold anything, but ends
/// with the last parenthesis.
fn field(stat: &str, place: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags};

    #[test]
    fn a_process_has_the_same_start_whenever_it_is_asked_for() {
        let here = std::process::id() as i32;
        let start = start_time(here).unwrap();
        assert_eq!(start_time(here), Some(start));
        // Time since the machine was started.
        assert!(start > 0);
        assert_eq!(start_time(i32::MAX), None);
    }

    #[test]
    fn what_has_ended_is_told_from_what_runs() {
        assert!(!is_exiting(std::process::id() as i32));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        // Ended, but nobody has waited for it.
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert!(is_exiting(pid));
        child.wait().unwrap();
        assert!(is_exiting(pid), "it is gone");
    }
}
