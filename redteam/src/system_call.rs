//! System calls by number, past the C library.

use std::arch::asm;

/// What is added to a number to reach the x32 table
/// (`__X32_SYSCALL_BIT`, kernel: `arch/x86/include/uapi/asm/unistd.h`).
pub const X32: i64 = 0x4000_0000;

/// Makes a system call. Errors come back as the kernel gives them, -4095 to -1.
///
/// # Safety
/// Whatever the call does to this process's memory must be what the caller
/// wants. Attackers don't care.
pub unsafe fn system_call(number: i64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the x86-64 calling convention of the kernel (syscall(2)); the
    // effect of the call is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// Makes a system call through the 32-bit entry, with `ebx` to `ebp` as they
/// happen to be.
///
/// # Safety
/// As for [`system_call`].
pub unsafe fn compat_entry(number: u32) -> i32 {
    let result;
    // SAFETY: the 32-bit convention (int80_emulation, kernel:
    // `arch/x86/entry/common.c`), which preserves all registers but the result
    // and, on old kernels, r8 to r11.
    unsafe {
        asm!(
            "int 0x80",
            inlateout("eax") number => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack)
        );
    }
    result
}
