//! A program that waits for ever: what drills execute, and what they must not.

/// An executable for x86-64 of one segment, whose code is a loop around
/// pause(2) (the ELF specification, chapter 2 of the gABI and of the psABI).
pub const PROGRAM: &[u8] = &{
    let mut file = [0u8; HEADERS + CODE.len()];
    // Magic, 64 bits, little endian, version 1.
    copy(&mut file, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    // An executable, for x86-64, version 1.
    copy(&mut file, 16, &[2, 0, 62, 0, 1]);
    copy(&mut file, 24, &(BASE + HEADERS as u64).to_le_bytes());
    // One program header, right behind this one.
    copy(&mut file, 32, &64u64.to_le_bytes());
    copy(&mut file, 52, &64u16.to_le_bytes());
    copy(&mut file, 54, &56u16.to_le_bytes());
    copy(&mut file, 56, &1u16.to_le_bytes());
    // Loaded, readable and executable: all of the file.
    copy(&mut file, 64, &1u32.to_le_bytes());
    copy(&mut file, 68, &5u32.to_le_bytes());
    copy(&mut file, 80, &BASE.to_le_bytes());
    copy(&mut file, 96, &LENGTH.to_le_bytes());
    copy(&mut file, 104, &LENGTH.to_le_bytes());
    copy(&mut file, 112, &4096u64.to_le_bytes());
    copy(&mut file, HEADERS, &CODE);
    file
};

const BASE: u64 = 0x40_0000;
const HEADERS: usize = 64 + 56;
const LENGTH: u64 = (HEADERS + CODE.len()) as u64;
/// `mov eax, 34; syscall; jmp` back.
const CODE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

const fn copy<const N: usize>(file: &mut [u8; HEADERS + CODE.len()], at: usize, bytes: &[u8; N]) {
    let mut i = 0;
    while i < N {
        file[at + i] = bytes[i];
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_runs_and_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, super::PROGRAM).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        let exe = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        assert_eq!(exe, path);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
