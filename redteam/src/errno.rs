//! The names of the kernel's errors, as errno(3) has them.

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

/// Those that stop attackers.
const NAMES: &[(i32, &str)] = names!(
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC
    ESPIPE EROFS EMLINK ENAMETOOLONG ENOSYS ELOOP ENODATA EPROTONOSUPPORT ESOCKTNOSUPPORT
    EOPNOTSUPP EAFNOSUPPORT EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNREFUSED EHOSTUNREACH
    ETOOMANYREFS ESTALE EDQUOT ENOKEY
);

/// An error's name, or its number.
pub fn name(errno: i32) -> String {
    NAMES
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("error {errno}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_the_kernel_s() {
        assert_eq!(super::name(13), "EACCES");
        assert_eq!(super::name(26), "ETXTBSY");
        assert_eq!(super::name(4095), "error 4095");
    }
}
