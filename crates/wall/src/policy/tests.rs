use super::*;

fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Tenant, Kind::Compiler];
    for (directories, writable) in [(false, false), (true, false), (true, true)] {
        for uses in (0..32).map(|bit| 1 << bit).chain([0, u32::MAX]) {
            kinds.push(Kind::Program(ProgramRights {
                directories,
                writable,
                uses: Uses::from_bits(uses),
            }));
        }
    }
    kinds
}

#[test]
fn the_running_filter_only_narrows() {
    let launch = policy(Kind::Launch);
    for kind in kinds() {
        for allowed in policy(kind).allowed {
            let wider = launch.find(allowed.number).expect(allowed.name);
            assert!(wider.arguments.is_empty(), "{}", allowed.name);
        }
    }
}

#[test]
fn a_tenant_has_the_fewest_calls() {
    let names: Vec<&str> = policy(Kind::Tenant)
        .allowed
        .iter()
        .map(|allowed| allowed.name)
        .collect();
    assert_eq!(
        names,
        [
            "brk",
            "close",
            "exit_group",
            "futex",
            "madvise",
            "mmap",
            "mprotect",
            "munmap",
            "restart_syscall",
            "rt_sigreturn",
            "sendmsg"
        ]
    );
}

#[test]
fn nobody_may_start_or_reach_another_process() {
    let forbidden = [
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_kill,
        libc::SYS_tgkill,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_memfd_create,
    ];
    for kind in kinds().into_iter().chain([Kind::Launch]) {
        let policy = policy(kind);
        for number in forbidden {
            assert!(policy.find(number).is_none(), "{kind:?} allows {number}");
        }
    }
}

#[test]
fn without_directories_nothing_can_be_opened() {
    for kind in [
        Kind::Tenant,
        Kind::Compiler,
        Kind::Program(ProgramRights {
            uses: Uses::ALL,
            ..ProgramRights::default()
        }),
    ] {
        for number in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_open_by_handle_at,
        ] {
            assert!(policy(kind).find(number).is_none(), "{kind:?}");
        }
    }
}

#[test]
fn nobody_may_make_memory_executable() {
    for kind in kinds() {
        let policy = policy(kind);
        for name in ["mmap", "mprotect"] {
            let entry = policy
                .allowed
                .iter()
                .find(|allowed| allowed.name == name)
                .unwrap();
            assert!(!entry.arguments.is_empty());
            assert!(
                entry
                    .arguments
                    .iter()
                    .all(|checks| checks.contains(&Check::Masked(2, libc::PROT_EXEC as u32, 0)))
            );
        }
    }
}
