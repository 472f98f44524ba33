//! A worker's registers.

use std::io;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// The general registers of a stopped worker (`NT_PRSTATUS`, ptrace(2)).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registers(pub Vec<Register>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its name, as in an assembler.
    pub name: String,
    /// What it held.
    pub value: u64,
}

macro_rules! named {
    ($($name:literal = $value:expr),* $(,)?) => {
        Registers(vec![$(Register { name: $name.to_owned(), value: $value },)*])
    };
}

impl Registers {
    /// The value of one.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0
            .iter()
            .find(|register| register.name == name)
            .map(|register| register.value)
    }

    /// Program counter, stack pointer and frame pointer: where to begin to
    /// unwind.
    pub fn frame(&self) -> Option<[u64; 3]> {
        let names = if cfg!(target_arch = "x86_64") {
            ["rip", "rsp", "rbp"]
        } else {
            ["pc", "sp", "x29"]
        };
        let [Some(pc), Some(sp), Some(fp)] = names.map(|name| self.get(name)) else {
            return None;
        };
        Some([pc, sp, fp])
    }

    /// Reads those of a process that this thread traces and that is stopped.
    pub(super) fn read(pid: Pid) -> io::Result<Self> {
        // SAFETY: all-zero is a valid value of these plain numbers.
        let mut raw = unsafe { std::mem::zeroed::<libc::user_regs_struct>() };
        let mut part = libc::iovec {
            iov_base: (&raw mut raw).cast(),
            iov_len: size_of_val(&raw),
        };
        const NT_PRSTATUS: usize = 1;
        // SAFETY: the iovec names `raw` and its size, which the kernel keeps to.
        let done = unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGSET,
                pid.as_raw_nonzero().get(),
                NT_PRSTATUS,
                &raw mut part,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::name(&raw))
    }

    #[cfg(target_arch = "x86_64")]
    fn name(raw: &libc::user_regs_struct) -> Self {
        named! {
            "rip" = raw.rip, "rsp" = raw.rsp, "rbp" = raw.rbp, "rax" = raw.rax,
            "orig_rax" = raw.orig_rax, "rbx" = raw.rbx, "rcx" = raw.rcx, "rdx" = raw.rdx,
            "rsi" = raw.rsi, "rdi" = raw.rdi, "r8" = raw.r8, "r9" = raw.r9, "r10" = raw.r10,
            "r11" = raw.r11, "r12" = raw.r12, "r13" = raw.r13, "r14" = raw.r14, "r15" = raw.r15,
            "eflags" = raw.eflags, "cs" = raw.cs, "ss" = raw.ss, "fs_base" = raw.fs_base,
            "gs_base" = raw.gs_base,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn name(raw: &libc::user_regs_struct) -> Self {
        let mut all = named! { "pc" = raw.pc, "sp" = raw.sp, "pstate" = raw.pstate };
        for (number, value) in raw.regs.iter().enumerate() {
            all.0.push(Register {
                name: format!("x{number}"),
                value: *value,
            });
        }
        all
    }
}
