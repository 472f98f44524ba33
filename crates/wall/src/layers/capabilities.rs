//! No capability in any of the five sets, and no way to get one back.

use super::status_field;
use crate::layer::{Layer, LayerError};

/// The last capability that any kernel has numbered so far is 40; the kernel
/// answers EINVAL beyond its own last one.
const HIGHEST: u32 = 63;

/// `struct __user_cap_header_struct` (capget(2)).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Version 3: two words of 32 capabilities in each set.
const VERSION: u32 = 0x2008_0522;

/// Empties the bounding set, for which it takes a capability. It makes system calls
/// only.
///
/// # Errors
/// The kernel's.
pub fn empty_bounding_set() -> Result<(), LayerError> {
    for capability in 0..=HIGHEST {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINVAL) => break,
                _ => {
                    return Err(LayerError::last(
                        Layer::Capabilities,
                        "prctl(PR_CAPBSET_DROP)",
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Empties the bounding, ambient, inheritable, permitted and effective sets.
///
/// In a user namespace of its own a worker begins with all capabilities. Without
/// one (`namespaced` is false) it has none from its first instruction on, and so
/// none to empty the bounding set with; what is in there is out of reach by
/// `no_new_privs`.
pub fn apply(namespaced: bool) -> Result<(), LayerError> {
    let fail = |step| LayerError::last(Layer::Capabilities, step);
    if namespaced {
        empty_bounding_set()?;
    }
    // SAFETY: plain numbers.
    if unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    } != 0
    {
        return Err(fail("prctl(PR_CAP_AMBIENT_CLEAR_ALL)"));
    }
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let nothing = [0u32; 6];
    // SAFETY: a version-3 header and its two zeroed data structs of three words.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, nothing.as_ptr()) } != 0 {
        return Err(fail("capset"));
    }
    Ok(())
}

/// From outside: all five sets are zero; without a user namespace all but the
/// bounding set, which counts for nothing where nothing executed gains privileges.
pub fn verify(status: &str, namespaced: bool) -> Result<String, String> {
    let bounding = status_field(status, "CapBnd")?;
    let stays = !namespaced && bounding.bytes().any(|digit| digit != b'0');
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        if stays && set == "CapBnd" {
            continue;
        }
        let value = status_field(status, set)?;
        if value.bytes().any(|digit| digit != b'0') {
            return Err(format!("{set} is {value}, not zero"));
        }
    }
    let closed = status_field(status, "NoNewPrivs")? == "1";
    Ok(match (stays, closed) {
        (false, _) => "all five sets are empty".into(),
        (true, true) => format!("empty but for the bounding set {bounding}, out of reach"),
        (true, false) => format!("empty but for the bounding set {bounding}"),
    })
}
