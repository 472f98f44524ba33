//! Runs a command as a container's default profile would: without the system
//! calls that Docker's and Kubernetes' refuse to whoever has no CAP_SYS_ADMIN
//! (moby/profiles, seccomp/default.json), and as an ordinary user.
//!
//!     as_in_a_container COMMAND [ARGUMENTS]
//!
//! As root it becomes user and group 65534 first, as an image with a `USER` line
//! does, at home in the directory for temporary files. It is a stand-in for a container in tests; it protects from nothing.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Refused with EPERM.
const REFUSED: &[i64] = &[
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// The flags of clone(2) that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

const NOBODY: u32 = 65_534;

fn filter() -> Result<[BpfProgram; 2], Box<dyn std::error::Error>> {
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let namespaces: Vec<SeccompRule> = (0..64)
        .map(|bit| 1u64 << bit)
        .filter(|bit| NAMESPACES & bit != 0)
        .map(|bit| {
            let set = SeccompCmpOp::MaskedEq(bit);
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, set, bit)?;
            SeccompRule::new(vec![condition])
        })
        .collect::<Result<_, _>>()?;
    refused.insert(libc::SYS_clone, namespaces);
    let eperm = SeccompAction::Errno(libc::EPERM as u32);
    // A filter can't see what clone3 is asked for, so that whoever calls it is
    // sent to clone (moby commit 9f6b562dd12e).
    let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        SeccompFilter::new(refused, SeccompAction::Allow, eperm, target)?.try_into()?,
        SeccompFilter::new(clone3, SeccompAction::Allow, enosys, target)?.try_into()?,
    ])
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: as_in_a_container COMMAND [ARGUMENTS]");
        return ExitCode::from(2);
    };
    if rustix::process::geteuid().is_root() {
        // SAFETY: this process has one thread; the raw calls change it.
        let dropped = unsafe {
            libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()) == 0
                && libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
                && libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0
        };
        if !dropped {
            eprintln!("as_in_a_container: {}", std::io::Error::last_os_error());
            return ExitCode::FAILURE;
        }
    }
    let loaded = filter().and_then(|programs| {
        for program in &programs {
            seccompiler::apply_filter(program)?;
        }
        Ok(())
    });
    if let Err(error) = loaded {
        eprintln!("as_in_a_container: the filter: {error}");
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(&program)
        .args(arguments)
        // The home of whoever it was is not this user's.
        .env("HOME", std::env::temp_dir())
        .exec();
    eprintln!("as_in_a_container: {}: {error}", program.display());
    ExitCode::FAILURE
}
