//! A key in the kernel (keyrings(7)) that everybody may read.

/// The key. It is in this process's own key ring, and goes with the process.
#[derive(Debug)]
pub struct Key {
    /// Its number, by which anybody can name it.
    pub serial: i32,
}

const KEYCTL_SETPERM: i32 = 5;
const KEY_SPEC_PROCESS_KEYRING: i32 = -2;
/// View, read, write, search, link and set attributes, for possessor, user, group
/// and others (kernel: include/linux/key.h).
const EVERYBODY: u32 = 0x3f3f_3f3f;

impl Key {
    /// Makes one that holds the secret; nothing if this kernel has none, or a
    /// container's filter refuses it.
    pub fn new(secret: &str) -> Option<Self> {
        // SAFETY: two NUL-terminated texts, and bytes with their length.
        let serial = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                c"lazaret-redteam".as_ptr(),
                secret.as_ptr(),
                secret.len(),
                KEY_SPEC_PROCESS_KEYRING,
            )
        };
        let serial = i32::try_from(serial).ok().filter(|serial| *serial > 0)?;
        // SAFETY: plain numbers.
        let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, EVERYBODY) };
        (done == 0).then_some(Self { serial })
    }
}
