//! All of it works as an ordinary user: as root, this file gives up root first
//! and runs the tests of other files again. (As an ordinary user those files
//! have done so themselves.)

#![expect(
    clippy::duplicate_mod,
    reason = "each of the files runs alone too, with the harness"
)]

#[path = "cgroups.rs"]
mod cgroups;
#[path = "program_snapshots.rs"]
mod program_snapshots;
#[path = "programs.rs"]
mod programs;
#[path = "tenants.rs"]
mod tenants;
#[path = "upgrades.rs"]
mod upgrades;

use std::os::unix::fs::PermissionsExt;

/// `nobody`: a user that exists everywhere and owns nothing.
const NOBODY: u32 = 65_534;

fn main() {
    // A worker is past this already: it is not root on the host.
    if rustix::process::geteuid().is_root()
        && std::env::args_os()
            .next()
            .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"lazaret:"))
    {
        let cache =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("code-{NOBODY}"));
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&cache, Some(NOBODY), Some(NOBODY)).unwrap();
        // SAFETY: this process has one thread yet; the raw calls change it.
        let dropped = unsafe {
            libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()) == 0
                && libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
                && libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0
        };
        assert!(dropped, "{}", std::io::Error::last_os_error());
        let tests: Vec<programs::Test> = [
            cgroups::TESTS,
            programs::TESTS,
            program_snapshots::TESTS,
            tenants::TESTS,
            upgrades::TESTS,
        ]
        .concat();
        return programs::main_of(&tests);
    }
    programs::main_of(&[]);
}
