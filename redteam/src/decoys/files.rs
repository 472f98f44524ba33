//! Files that are there to be attacked, in a directory that everybody may use.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{CWD, RenameFlags};

use super::DecoyError;
use super::program::PROGRAM;

/// What the decoys hold that nobody reads for its secret.
const PLAIN: &[u8] = b"as it was";

/// The decoy files.
#[derive(Debug)]
pub struct Files {
    /// Has all of them.
    root: tempfile::TempDir,
    secret: String,
    /// The worker's user, where that is another than this process's.
    user: Option<u32>,
}

impl Files {
    /// Makes all of them.
    ///
    /// # Errors
    /// If the file system refuses any.
    pub fn new(secret: &str, user: Option<u32>) -> Result<Self, DecoyError> {
        let fail = DecoyError::at("the decoy files");
        let root = tempfile::Builder::new()
            .prefix("lazaret-redteam-")
            .tempdir()
            .map_err(&fail)?;
        if root.path().to_string_lossy().contains(char::is_whitespace) {
            return Err(fail(std::io::Error::other(format!(
                "the directory for temporary files, {:?}, has a space in its name; set TMPDIR to another",
                root.path()
            ))));
        }
        let files = Self {
            root,
            secret: secret.to_owned(),
            user,
        };
        files.make().map_err(&fail)?;
        Ok(files)
    }

    fn make(&self) -> std::io::Result<()> {
        mode(self.root.path(), 0o755)?;
        fs::create_dir(self.directory())?;
        mode(&self.directory(), 0o777)?;
        self.renew()?;
        let program = self.path("program");
        fs::write(&program, PROGRAM)?;
        mode(&program, 0o755)?;
        if let Some(path) = self.setuid() {
            fs::write(&path, PROGRAM)?;
            mode(&path, 0o4755)?;
        }
        let grants = self.grants();
        fs::create_dir_all(grants.join("granted/swap"))?;
        fs::write(grants.join("outside"), &self.secret)?;
        symlink("../outside", grants.join("granted/relative"))?;
        symlink("..", grants.join("granted/swap-link"))?;
        mode(&grants.join("granted"), 0o777)?;
        mode(&grants.join("granted/swap"), 0o755)?;
        mode(&grants.join("outside"), 0o644)
    }

    /// Puts back whatever a drill may have changed.
    ///
    /// # Errors
    /// The file system's.
    pub fn renew(&self) -> std::io::Result<()> {
        for name in ["created", "link", "pipe", "device", "moved"] {
            let _ = fs::remove_file(self.path(name));
        }
        let put = |name: &str, bytes: &[u8], bits: u32| -> std::io::Result<()> {
            // A new file, whatever is there.
            let path = self.path(name);
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes)?;
            mode(&path, bits)
        };
        put("file", self.secret.as_bytes(), 0o666)?;
        put("removable", PLAIN, 0o666)?;
        put("own", PLAIN, 0o600)?;
        if let Some(user) = self.user {
            chown(self.path("own"), Some(user), Some(user))?;
        }
        let inside = self.grants().join("granted/inside");
        if !fs::read(&inside).is_ok_and(|bytes| bytes == PLAIN) {
            fs::create_dir_all(self.grants().join("granted"))?;
            fs::write(&inside, PLAIN)?;
            mode(&inside, 0o666)?;
        }
        let _ = fs::remove_file(self.grants().join("granted/made"));
        Ok(())
    }

    /// Where tenants and everything else of the range are kept.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The directory that everybody may use.
    pub fn directory(&self) -> PathBuf {
        self.root.path().join("decoys")
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    fn grants(&self) -> PathBuf {
        self.root.path().join("grants")
    }

    /// The directory that is granted to programs.
    pub fn granted(&self) -> PathBuf {
        self.grants().join("granted")
    }

    /// A program that runs as root whoever executes it, which only root can make.
    pub fn setuid(&self) -> Option<PathBuf> {
        rustix::process::geteuid()
            .is_root()
            .then(|| self.path("setuid"))
    }

    /// Whether the file holds something else.
    pub fn file_changed(&self) -> bool {
        !fs::read(self.path("file")).is_ok_and(|bytes| bytes == self.secret.as_bytes())
    }

    /// Whether the granted file holds something else.
    pub fn granted_changed(&self) -> bool {
        !fs::read(self.granted().join("inside")).is_ok_and(|bytes| bytes == PLAIN)
    }

    /// The permissions of the worker's own user's file, if they have changed.
    pub fn new_mode(&self) -> Option<String> {
        let bits = fs::metadata(self.path("own")).ok()?.permissions().mode() & 0o7777;
        (bits != 0o600).then(|| format!("{bits:o}"))
    }

    /// Whether there is an entry of this name.
    pub fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// Lets a link to the outside take turns with a directory, at the same path,
    /// as long as what is returned is kept.
    pub fn take_turns(&self) -> Turns {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, at) = (stop.clone(), self.granted());
        let thread = std::thread::spawn(move || {
            let (one, other) = (at.join("swap"), at.join("swap-link"));
            while !told.load(Relaxed) {
                let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
            }
        });
        Turns {
            stop,
            thread: Some(thread),
        }
    }

    /// A file's handle, as `struct file_handle` in hexadecimal
    /// (name_to_handle_at(2)).
    pub fn handle(&self) -> Option<String> {
        const MOST: u32 = 128;
        let path =
            std::ffi::CString::new(self.path("file").into_os_string().into_encoded_bytes()).ok()?;
        let mut handle = [0u32; 2 + MOST as usize / 4];
        handle[0] = MOST;
        let mut mount = 0i32;
        // SAFETY: a path, room for a handle of the size that it says, and a number.
        let done = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                handle.as_mut_ptr(),
                &raw mut mount,
                0,
            )
        };
        let length = usize::try_from(handle[0]).ok()?;
        let bytes: Vec<u8> = handle.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let bytes = bytes.get(..8 + length)?;
        (done == 0).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn mode(path: &Path, bits: u32) -> std::io::Result<()> {
    fs::set_permissions(path, PermissionsExt::from_mode(bits))
}

/// A link and a directory that take turns.
#[derive(Debug)]
pub struct Turns {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
