//! The channels, one by one.

use super::{Channel, M, Standing, call, n, with_memory};

const FILTER: &str = "filter: no such call";

/// Every channel.
pub const CHANNELS: &[Channel] = &[
    Channel {
        object: "files, their contents and names",
        standing: Standing::Closed(
            "filter: a tenant has no open; empty root, Landlock; all that a worker maps is never written again",
        ),
        calls: &[
            with_memory("creat", libc::SYS_creat, [M, n(0o600)]),
            with_memory("open", libc::SYS_open, [M, n(0)]),
            with_memory("memfd_create", libc::SYS_memfd_create, [M, n(0)]),
        ],
        shown_by: "redteam/tests/system_calls.rs, neighbour.rs (granted directories)",
    },
    Channel {
        object: "locks and leases on files and inodes (flock, fcntl)",
        standing: Standing::Closed("filter: no flock, and of fcntl only F_GETFL"),
        calls: &[
            call("flock", libc::SYS_flock, [0, 2]),
            with_memory("fcntl F_SETLK", libc::SYS_fcntl, [n(0), n(6), M]),
            with_memory("fcntl F_GETLK", libc::SYS_fcntl, [n(0), n(5), M]),
            with_memory("fcntl F_OFD_SETLK", libc::SYS_fcntl, [n(0), n(37), M]),
            call("fcntl F_SETLEASE", libc::SYS_fcntl, [0, 1024, 1]),
            call("fcntl F_NOTIFY", libc::SYS_fcntl, [0, 1026, 1]),
            call("fcntl F_SETPIPE_SZ", libc::SYS_fcntl, [0, 1031, 1 << 20]),
        ],
        shown_by: "",
    },
    Channel {
        object: "System V shared memory, semaphores, message queues",
        standing: Standing::Closed("filter, and an IPC namespace of its own"),
        calls: &[
            call("shmget", libc::SYS_shmget, [0x1a2a, 4096, 0o1600]),
            call("shmat", libc::SYS_shmat, [0, 0, 0]),
            call("semget", libc::SYS_semget, [0x1a2a, 1, 0o1600]),
            call("msgget", libc::SYS_msgget, [0x1a2a, 0o1600]),
        ],
        shown_by: "",
    },
    Channel {
        object: "POSIX message queues and shared memory",
        standing: Standing::Closed("filter, an IPC namespace of its own, no mount of /dev/shm"),
        calls: &[with_memory("mq_open", libc::SYS_mq_open, [M, n(0o102)])],
        shown_by: "",
    },
    Channel {
        object: "sockets, also abstract, netlink and vsock",
        standing: Standing::Closed("filter, and a network namespace that has nothing up"),
        calls: &[
            call("socket AF_UNIX", libc::SYS_socket, [1, 1, 0]),
            call("socket AF_INET", libc::SYS_socket, [2, 1, 0]),
            call("socket AF_NETLINK", libc::SYS_socket, [16, 3, 0]),
            call("socket AF_VSOCK", libc::SYS_socket, [40, 1, 0]),
            with_memory("socketpair", libc::SYS_socketpair, [n(1), n(1), n(0), M]),
        ],
        shown_by: "redteam/src/attacks/network.rs",
    },
    Channel {
        object: "numbers of processes (who gets which, how fast they go)",
        standing: Standing::Closed("filter, and a PID namespace of its own"),
        calls: &[
            call("getpid", libc::SYS_getpid, []),
            call("getppid", libc::SYS_getppid, []),
            call("gettid", libc::SYS_gettid, []),
            call("fork", libc::SYS_fork, []),
            call("clone", libc::SYS_clone, [17]),
        ],
        shown_by: "",
    },
    Channel {
        object: "signals, and whether a process is there",
        standing: Standing::Closed("filter, and a PID namespace of its own"),
        calls: &[
            call("kill", libc::SYS_kill, [1, 0]),
            call("tgkill", libc::SYS_tgkill, [1, 1, 0]),
            call("pidfd_open", libc::SYS_pidfd_open, [1, 0]),
            with_memory(
                "rt_sigqueueinfo",
                libc::SYS_rt_sigqueueinfo,
                [n(1), n(10), M],
            ),
        ],
        shown_by: "redteam/src/attacks/processes.rs",
    },
    Channel {
        object: "counts for each user: processes, pending signals and timers, message queues, locked memory, pipe buffers, inotify and epoll watches",
        standing: Standing::Closed(
            "filter: nothing that is counted can be made; as root also a user id for each worker",
        ),
        calls: &[
            with_memory("timer_create", libc::SYS_timer_create, [n(1), n(0), M]),
            call("timerfd_create", libc::SYS_timerfd_create, [1, 0]),
            with_memory("mlock", libc::SYS_mlock, [M, n(4096)]),
            with_memory("pipe2", libc::SYS_pipe2, [M, n(0)]),
            call("eventfd2", libc::SYS_eventfd2, [0, 0]),
            call("epoll_create1", libc::SYS_epoll_create1, [0]),
            call("inotify_init1", libc::SYS_inotify_init1, [0]),
            call("fanotify_init", libc::SYS_fanotify_init, [0, 0]),
            with_memory("prlimit64", libc::SYS_prlimit64, [n(0), n(6), n(0), M]),
        ],
        shown_by: "",
    },
    Channel {
        object: "keys and keyrings, and their quota",
        standing: Standing::Closed("filter, and a user namespace of its own"),
        calls: &[
            call("keyctl", libc::SYS_keyctl, [0, -3i64 as u64, 1]),
            with_memory(
                "add_key",
                libc::SYS_add_key,
                [M, M, M, n(1), n(-3i64 as u64)],
            ),
            with_memory(
                "request_key",
                libc::SYS_request_key,
                [M, M, M, n(-3i64 as u64)],
            ),
        ],
        shown_by: "redteam/src/attacks/privileges.rs",
    },
    Channel {
        object: "priorities of processor and disk",
        standing: Standing::Closed(FILTER),
        calls: &[
            call("ioprio_get", libc::SYS_ioprio_get, [1, 0]),
            call("ioprio_set", libc::SYS_ioprio_set, [1, 0, 0x6000]),
            call("getpriority", libc::SYS_getpriority, [0, 0]),
            call("setpriority", libc::SYS_setpriority, [0, 0, 19]),
            call("sched_getscheduler", libc::SYS_sched_getscheduler, [0]),
            with_memory(
                "sched_setscheduler",
                libc::SYS_sched_setscheduler,
                [n(0), n(3), M],
            ),
        ],
        shown_by: "",
    },
    Channel {
        object: "which processors a process may use, and which one it is on",
        standing: Standing::Closed(
            "filter; but x86's rdpid instruction tells the processor, which no kernel can refuse",
        ),
        calls: &[
            with_memory(
                "sched_getaffinity",
                libc::SYS_sched_getaffinity,
                [n(0), n(8), M],
            ),
            with_memory(
                "sched_setaffinity",
                libc::SYS_sched_setaffinity,
                [n(0), n(8), M],
            ),
            with_memory("getcpu", libc::SYS_getcpu, [M, n(0), n(0)]),
            call("sched_yield", libc::SYS_sched_yield, []),
        ],
        shown_by: "",
    },
    Channel {
        object: "memory policy, and where pages lie",
        standing: Standing::Closed(FILTER),
        calls: &[
            with_memory(
                "get_mempolicy",
                libc::SYS_get_mempolicy,
                [M, n(0), n(0), n(0), n(0)],
            ),
            with_memory(
                "move_pages",
                libc::SYS_move_pages,
                [n(0), n(1), M, n(0), M, n(0)],
            ),
        ],
        shown_by: "",
    },
    Channel {
        object: "counters of control groups, files of /proc and /sys, pressure (PSI)",
        standing: Standing::Closed(
            "filter for tenants; empty root and Landlock for programs with directories",
        ),
        calls: &[],
        shown_by: "redteam/tests/channels.rs (opening them), outside.rs (the empty root)",
    },
    Channel {
        object: "uptime, load, free memory, number of processes (sysinfo)",
        standing: Standing::Closed(FILTER),
        calls: &[with_memory("sysinfo", libc::SYS_sysinfo, [M])],
        shown_by: "",
    },
    Channel {
        object: "the machine's name and kernel (uname)",
        standing: Standing::Closed("filter, and a UTS namespace whose name is `worker`"),
        calls: &[with_memory("uname", libc::SYS_uname, [M])],
        shown_by: "",
    },
    Channel {
        object: "time used by processes, and switches between them",
        standing: Standing::Closed(FILTER),
        calls: &[
            with_memory("getrusage", libc::SYS_getrusage, [n(0), M]),
            with_memory("times", libc::SYS_times, [M]),
        ],
        shown_by: "",
    },
    Channel {
        object: "timer slack, speculation control, page merging and the like (prctl)",
        standing: Standing::Closed(FILTER),
        calls: &[
            call("prctl PR_SET_TIMERSLACK", libc::SYS_prctl, [29, 1]),
            call("prctl PR_GET_SPECULATION_CTRL", libc::SYS_prctl, [52, 0]),
            call("prctl PR_SET_MEMORY_MERGE", libc::SYS_prctl, [67, 1]),
            call("prctl PR_SET_TSC", libc::SYS_prctl, [26, 1]),
            call("prctl PR_SCHED_CORE", libc::SYS_prctl, [62, 3, 1, 0]),
            call("prctl PR_SET_DUMPABLE", libc::SYS_prctl, [4, 1]),
        ],
        shown_by: "",
    },
    Channel {
        object: "merged pages of the same content (KSM)",
        standing: Standing::Closed("filter: no MADV_MERGEABLE; measure `no-page-merging`"),
        calls: &[with_memory(
            "madvise MADV_MERGEABLE",
            libc::SYS_madvise,
            [M, n(4096), n(12)],
        )],
        shown_by: "crates/wall/src/measures/merging.rs, the receipt",
    },
    Channel {
        object: "which pages of files are in the page cache (mincore, RWF_NOWAIT, cachestat)",
        standing: Standing::Closed(
            "filter; what remains is timing the first read of a page that two workers map: the executable's, and those of a module or snapshot that both have",
        ),
        calls: &[
            with_memory("mincore", libc::SYS_mincore, [M, n(4096), M]),
            with_memory(
                "preadv2 RWF_NOWAIT",
                libc::SYS_preadv2,
                [n(3), M, n(1), n(0), n(0), n(8)],
            ),
            with_memory("cachestat", 451, [n(3), M, M, n(0)]),
            call("readahead", libc::SYS_readahead, [3, 0, 4096]),
            with_memory("madvise MADV_COLD", libc::SYS_madvise, [M, n(4096), n(20)]),
            with_memory(
                "madvise MADV_PAGEOUT",
                libc::SYS_madvise,
                [M, n(4096), n(21)],
            ),
        ],
        shown_by: "",
    },
    Channel {
        object: "futexes on shared pages",
        standing: Standing::Closed(
            "no two workers share a writable page; of futex only waiting and waking",
        ),
        calls: &[
            with_memory(
                "futex FUTEX_REQUEUE",
                libc::SYS_futex,
                [M, n(3), n(1), n(1), M, n(0)],
            ),
            with_memory(
                "futex FUTEX_LOCK_PI",
                libc::SYS_futex,
                [M, n(6), n(0), n(0), n(0), n(0)],
            ),
            with_memory("futex_waitv", 449, [M, n(1), n(0), n(0), n(0)]),
            call("membarrier", libc::SYS_membarrier, [1, 0]),
        ],
        shown_by: "redteam/tests/channels.rs (mappings of two workers), shared_memory.rs",
    },
    Channel {
        object: "faults that another process answers (userfaultfd), io_uring, bpf, performance counters",
        standing: Standing::Closed(FILTER),
        calls: &[
            call("userfaultfd", libc::SYS_userfaultfd, [1]),
            with_memory("io_uring_setup", libc::SYS_io_uring_setup, [n(1), M]),
            with_memory("bpf", libc::SYS_bpf, [n(0), M, n(64)]),
            with_memory(
                "perf_event_open",
                libc::SYS_perf_event_open,
                [M, n(0), n(u64::MAX), n(u64::MAX), n(0)],
            ),
        ],
        shown_by: "",
    },
    Channel {
        object: "random numbers",
        standing: Standing::Closed(
            "a tenant has no getrandom; the kernel's generator can't be drained (since Linux 5.6)",
        ),
        calls: &[],
        shown_by: "redteam/tests/system_calls.rs",
    },
    Channel {
        object: "free space, quotas, file systems",
        standing: Standing::Open(
            "no statfs or quotactl; but a program with a writable directory sees when the disk is full, and a tenant when its quota or the node's memory budget is",
        ),
        calls: &[
            with_memory("statfs", libc::SYS_statfs, [M, M]),
            with_memory("fstatfs", libc::SYS_fstatfs, [n(0), M]),
            with_memory("quotactl", libc::SYS_quotactl, [n(0), M, n(0), M]),
        ],
        shown_by: "",
    },
    Channel {
        object: "a directory that two programs were granted",
        standing: Standing::Open("it is what was granted: grant it to one, or for reading"),
        calls: &[],
        shown_by: "",
    },
    Channel {
        object: "the cycle counter and clocks",
        standing: Standing::Closed(
            "measure `cycle-counter`; tenants are told the time once for each call, programs every 1 to 10 ms, unless they were given exact clocks",
        ),
        calls: &[
            with_memory("clock_adjtime", libc::SYS_clock_adjtime, [n(0), M]),
            with_memory(
                "clock_nanosleep",
                libc::SYS_clock_nanosleep,
                [n(1), n(0), M, M],
            ),
            with_memory("nanosleep", libc::SYS_nanosleep, [M, M]),
        ],
        shown_by: "redteam/tests/channels.rs (rdtsc, rdtscp, rdpmc), crates/guest/src/program/clocks.rs",
    },
    Channel {
        object: "time by counting: a loop, or how long the host takes to answer",
        standing: Standing::Open(
            "coarse clocks make it slow, not impossible; a worker has one thread, so nobody counts beside it",
        ),
        calls: &[],
        shown_by: "",
    },
    Channel {
        object: "threads of a core: ports, first-level caches, predictors",
        standing: Standing::Open(
            "closed where the kernel has core scheduling or cores have one thread (measure `core-scheduling`); open elsewhere, which the receipt says",
        ),
        calls: &[],
        shown_by: "the receipt",
    },
    Channel {
        object: "speculation past stores and indirect branches",
        standing: Standing::Open(
            "closed where the kernel lets a process turn it off (measures `store-bypass`, `indirect-branch`); elsewhere open, which the receipt says",
        ),
        calls: &[],
        shown_by: "the receipt",
    },
    Channel {
        object: "caches of all cores, memory bandwidth, the load of processors and disks",
        standing: Standing::Open(
            "shares and ceilings of control groups bound it; nothing closes it",
        ),
        calls: &[],
        shown_by: "lazaret bench --filter hog",
    },
];
