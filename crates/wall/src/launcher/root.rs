//! The launcher's root: a read-only tmpfs with the shared libraries that its
//! executables need, and an empty directory that becomes the workers' root.
//!
//! A dynamic executable needs its loader and libraries when it is executed, so
//! workers can't be born into nothing; and copying the host's mounts into
//! every worker would cost time in proportion to them. The libraries are those
//! that a process of the same executable has mapped: this one, or the host.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::protocol::Directory;
use crate::layer::{Layer, LayerError};

/// The workers' root, in the launcher's.
pub const EMPTY: &str = "/empty";

fn fail(step: &'static str) -> impl Fn(Errno) -> LayerError {
    LayerError::new(Layer::EmptyRoot, step)
}

/// What a dynamic executable needs besides itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Libraries {
    /// Its loader and libraries, by the paths that they are mapped from.
    pub files: Vec<PathBuf>,
    /// The loader's path as the executable names it, and what it leads to, if that
    /// is a link in its directory (`/lib64/ld-linux-x86-64.so.2`).
    pub loader: Option<(PathBuf, PathBuf)>,
}

impl Libraries {
    /// Those of the executable that this process runs.
    pub fn own() -> Self {
        Self {
            files: mapped(),
            loader: loader_link(),
        }
    }
}

/// The files that this process has mapped as code, besides the executable.
fn mapped() -> Vec<PathBuf> {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    let exe = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let paths: BTreeSet<PathBuf> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut words = line.splitn(6, |byte| *byte == b' ').map(<[u8]>::trim_ascii);
            let (_, protection) = (words.next()?, words.next()?);
            let path = words.nth(3)?;
            (protection.get(2) == Some(&b'x') && path.starts_with(b"/"))
                .then(|| PathBuf::from(OsStr::from_bytes(path)))
        })
        .filter(|path| *path != exe && !path.as_os_str().as_bytes().starts_with(b"/memfd:"))
        .collect();
    paths.into_iter().collect()
}

/// A mount of its own of what is at `path`, not attached anywhere.
fn detached(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )
}

/// `struct mount_attr` (kernel: `include/uapi/linux/mount.h`).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_IDMAP`.
const IDMAP: u64 = 0x0010_0000;

/// Sets attributes (`MOUNT_ATTR_*`) of a detached tree; with a user namespace,
/// maps its ids.
pub(crate) fn set_attributes(
    tree: &OwnedFd,
    attr_set: u64,
    map: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let attributes = MountAttr {
        attr_set: attr_set | if map.is_some() { IDMAP } else { 0 },
        userns_fd: map.map_or(0, |map| std::os::fd::AsRawFd::as_raw_fd(map) as u64),
        ..MountAttr::default()
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: an empty path, and an attribute struct of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            std::os::fd::AsRawFd::as_raw_fd(tree),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;

/// Opens the directories that workers will be given, each as a detached mount
/// of its own: from it, `..` leads nowhere. Where the kernel refuses to clone
/// the mount (or the host is root and sees the path otherwise), the error says
/// so; Landlock would still hold, but two layers are promised. Without a mount
/// namespace (`detached` is false) they are opened where they are.
pub fn open_directories(directories: &[Directory], detached: bool) -> Result<Vec<OwnedFd>, String> {
    directories
        .iter()
        .map(|directory| {
            let path = Path::new(OsStr::from_bytes(&directory.path));
            let say =
                |step: &str, errno: Errno| format!("directory {}: {step}: {errno}", path.display());
            let tree = match detached {
                true => self::detached(path).map_err(|errno| say("open_tree", errno))?,
                false => rustix::fs::open(
                    path,
                    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map_err(|errno| say("open", errno))?,
            };
            let stat = rustix::fs::fstat(&tree).map_err(|errno| say("stat", errno))?;
            if stat.st_dev != directory.device || stat.st_ino != directory.inode {
                return Err(format!(
                    "directory {}: it was replaced while it was being granted",
                    path.display()
                ));
            }
            let flags = NOSUID | NODEV | if directory.writable { 0 } else { RDONLY };
            if detached {
                set_attributes(&tree, flags, None).map_err(|errno| say("mount_setattr", errno))?;
            }
            rustix::fs::openat(
                &tree,
                ".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| say("open", errno))
        })
        .collect()
}

/// Swaps this process's root for a read-only tmpfs with its libraries and `others`.
pub fn enter(others: Libraries) -> Result<(), LayerError> {
    make_private()?;
    // Everything is opened before the tmpfs covers anything.
    let mut files = Vec::new();
    let own = Libraries::own();
    let loaders = [own.loader, others.loader];
    let libraries: BTreeSet<PathBuf> = own.files.into_iter().chain(others.files).collect();
    for path in libraries {
        let tree = detached(&path).map_err(fail("open_tree of a library"))?;
        // Not all kernels let a user namespace change attributes of file
        // mounts; the tmpfs around them is read-only and nosuid anyway.
        let _ = set_attributes(&tree, RDONLY | NOSUID | NODEV, None);
        files.push((path, tree));
    }
    if let Ok(tree) = detached(Path::new("/etc/ld.so.cache")) {
        let _ = set_attributes(&tree, RDONLY | NOSUID | NODEV, None);
        files.push((PathBuf::from("/etc/ld.so.cache"), tree));
    }
    // Links at the top (`/lib64 -> usr/lib64`): the loader's path goes through
    // them.
    let links: Vec<(PathBuf, PathBuf)> = std::fs::read_dir("/")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), std::fs::read_link(entry.path()).ok()?)))
        .collect();

    enter_tmpfs(WITH_LIBRARIES)?;
    rustix::fs::mkdir("empty", Mode::from_raw_mode(0o555))
        .map_err(fail("make the empty directory"))?;
    for (path, target) in links {
        if let Some(name) = path.file_name() {
            rustix::fs::symlinkat(target, CWD, name).map_err(fail("link"))?;
        }
    }
    for (path, tree) in files {
        let inside = path.strip_prefix("/").unwrap_or(&path);
        make_parents(inside)?;
        rustix::fs::openat(
            CWD,
            inside,
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o555),
        )
        .map_err(fail("place a library"))?;
        rustix::mount::move_mount(
            tree.as_fd(),
            "",
            CWD,
            inside,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(fail("mount a library"))?;
    }
    for (link, target) in loaders.into_iter().flatten() {
        let inside = link.strip_prefix("/").unwrap_or(&link);
        make_parents(inside)?;
        match rustix::fs::symlinkat(&target, CWD, inside) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail("link the loader")(errno)),
        }
    }
    leave_old_root(WITH_LIBRARIES)
}

/// Swaps this process's root for a read-only tmpfs with nothing in it.
pub fn enter_nothing() -> Result<(), LayerError> {
    make_private()?;
    enter_tmpfs(WITH_NOTHING)?;
    leave_old_root(WITH_NOTHING)
}

/// Options of a tmpfs.
const WITH_LIBRARIES: &CStr = c"mode=0755,size=1m,nr_inodes=4k";
/// Its root is its only inode.
const WITH_NOTHING: &CStr = c"mode=0555,size=4k,nr_inodes=1";

fn make_private() -> Result<(), LayerError> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(fail("make mounts private"))
}

/// Mounts a tmpfs over a directory that there is, and enters it.
fn enter_tmpfs(options: &CStr) -> Result<(), LayerError> {
    let cover = ["/tmp", "/run", "/var", "/usr"]
        .into_iter()
        .find(|path| Path::new(path).is_dir())
        .unwrap_or("/");
    rustix::mount::mount(
        "tmpfs",
        cover,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options,
    )
    .map_err(fail("mount tmpfs"))?;
    rustix::process::chdir(cover).map_err(fail("enter tmpfs"))
}

/// Makes the working directory the root, lets go of the old one, and makes the new
/// one read-only.
fn leave_old_root(options: &CStr) -> Result<(), LayerError> {
    swap_roots()?;
    rustix::mount::mount_remount(
        "/",
        MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
        options,
    )
    .map_err(fail("make the root read-only"))
}

fn swap_roots() -> Result<(), LayerError> {
    rustix::process::pivot_root(".", ".").map_err(fail("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(fail("unmount the old root"))?;
    rustix::process::chdir("/").map_err(fail("enter the new root"))
}

fn loader_link() -> Option<(PathBuf, PathBuf)> {
    let path = interpreter()?;
    let parent = path.parent()?.canonicalize().ok()?;
    let target = std::fs::read_link(&path).ok()?;
    Some((parent.join(path.file_name()?), target))
}

/// `PT_INTERP` of this executable.
fn interpreter() -> Option<PathBuf> {
    // SAFETY: getauxval only reads what the kernel put on the stack.
    let (headers, size, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR),
            libc::getauxval(libc::AT_PHENT),
            libc::getauxval(libc::AT_PHNUM),
        )
    };
    if headers == 0 || size as usize != size_of::<libc::Elf64_Phdr>() {
        return None;
    }
    // SAFETY: the kernel mapped the program headers there, `count` of them,
    // and they stay for the life of the process.
    let headers =
        unsafe { std::slice::from_raw_parts(headers as *const libc::Elf64_Phdr, count as usize) };
    let base = headers
        .iter()
        .find(|h| h.p_type == libc::PT_PHDR)
        .map(|h| headers.as_ptr() as u64 - h.p_vaddr)?;
    let found = headers.iter().find(|h| h.p_type == libc::PT_INTERP)?;
    // SAFETY: PT_INTERP is a NUL-terminated string inside a loaded segment.
    let text = unsafe { std::ffi::CStr::from_ptr((base + found.p_vaddr) as *const libc::c_char) };
    Some(PathBuf::from(OsStr::from_bytes(text.to_bytes())))
}

fn make_parents(inside: &Path) -> Result<(), LayerError> {
    let parents: Vec<&Path> = inside
        .ancestors()
        .skip(1)
        .filter(|p| !p.as_os_str().is_empty())
        .collect();
    for parent in parents.into_iter().rev() {
        match rustix::fs::mkdir(parent, Mode::from_raw_mode(0o555 | 0o200)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail("make a directory")(errno)),
        }
    }
    Ok(())
}

/// In a worker: makes the empty directory the root, and lets go of the rest, unless
/// its launcher has nothing in its root either. To swap roots makes the kernel look
/// at every task of the machine (`chroot_fs_refs`, kernel: fs/fs_struct.c), and to
/// unmount waits for all processors (`namespace_unlock`, fs/namespace.c).
pub fn enter_empty() -> Result<(), LayerError> {
    if is_empty("/").map_err(fail("list the root"))? {
        return Ok(());
    }
    let tree = rustix::mount::open_tree(
        CWD,
        EMPTY,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .map_err(fail("open_tree of the empty directory"))?;
    rustix::mount::move_mount(
        tree.as_fd(),
        "",
        CWD,
        EMPTY,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(fail("mount the empty directory"))?;
    rustix::process::chdir(EMPTY).map_err(fail("enter the empty directory"))?;
    swap_roots()
}

fn is_empty(directory: &str) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::new(opened)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
