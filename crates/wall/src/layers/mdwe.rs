//! Memory-deny-write-execute: from now on no mapping becomes executable that
//! wasn't, and none is made both writable and executable (prctl(2),
//! `PR_SET_MDWE`, Linux 6.3, kernel commit b507808ebce2).

use crate::layer::{Layer, LayerError};

const PR_SET_MDWE: i32 = 65;
const PR_GET_MDWE: i32 = 66;
const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;

/// Turns it on, for good.
pub fn apply() -> Result<(), LayerError> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(LayerError::last(Layer::Mdwe, "prctl(PR_SET_MDWE)")),
    }
}

/// Whether it is on in this process.
pub fn is_on() -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) == 1 }
}

/// From outside: no mapping is both writable and executable. (The flag itself
/// is shown nowhere in `/proc`; the red team's test tries it from inside.)
pub fn verify(maps: &[u8]) -> Result<String, String> {
    let mut count = 0;
    for line in maps
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        count += 1;
        let protection = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if protection.get(1) == Some(&b'w') && protection.get(2) == Some(&b'x') {
            return Err(format!(
                "writable and executable: {}",
                String::from_utf8_lossy(line)
            ));
        }
    }
    Ok(format!("{count} mappings, none writable and executable"))
}
