//! Which user and group ids the launcher and the workers have on the host.
//!
//! An ordinary user can map only its own id: the workers then run as that
//! user. Root gives every worker an id of its own that nobody else has, and
//! never host uid 0: with it, a mistake in any other layer would be a host
//! root's mistake.

use std::fs;

use thiserror::Error;

/// The first host id that is used where all ids are there to choose from: a
/// range above those that distributions hand out (shadow's `SUB_UID_MAX` is
/// 600,100,000; systemd's containers end at 1,879,048,191).
const PREFERRED_BASE: u32 = 1_900_000_000;
/// How many ids are used there: one for each worker that lives.
const PREFERRED_COUNT: u32 = 65_536;

/// A plan for user and group ids: lines of `uid_map` and `gid_map` of the
/// launcher's user namespace, and what workers may have inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIds {
    /// Lines of `/proc/PID/uid_map`.
    pub uid_map: String,
    /// Lines of `/proc/PID/gid_map`.
    pub gid_map: String,
    /// Whether `setgroups` must be denied first (an ordinary user's only way
    /// to write a gid map, user_namespaces(7)).
    pub deny_setgroups: bool,
    /// The first id for workers, inside the namespace.
    pub first_id: u32,
    /// How many.
    pub ids: u32,
}

/// Why no ids can be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdsError {
    /// Root without spare ids.
    #[error(
        "this process is uid 0 but its user namespace maps no other id that a worker could have ({map}); map more ids into it, or run as an ordinary user"
    )]
    NoSpareIds {
        /// The map found.
        map: String,
    },
    /// Only root may choose.
    #[error("--as-user {uid} needs root: an ordinary user's workers run as that user")]
    NotRoot {
        /// The id asked for.
        uid: u32,
    },
    /// Never uid 0.
    #[error(
        "--as-user 0 is refused: a worker never runs as host uid 0; choose another id, or leave the option out"
    )]
    Zero,
    /// `/proc` could not be read.
    #[error("/proc/self/uid_map: {0}")]
    Proc(#[from] std::io::Error),
}

/// One line of a map: ids `inside..inside + count` of this namespace.
fn extents(map: &str) -> Vec<(u32, u32, u32)> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>());
            Some((
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
            ))
        })
        .collect()
}

impl HostIds {
    /// The host id of an id inside the launcher's namespace.
    pub fn host_uid(&self, inside: u32) -> u32 {
        extents(&self.uid_map)
            .into_iter()
            .find(|(first, _, count)| inside >= *first && inside - first < *count)
            .map_or(u32::MAX, |(first, outside, _)| outside + (inside - first))
    }

    /// The plan for this process; with `as_user`, workers have that host id.
    pub fn choose(as_user: Option<u32>) -> Result<Self, IdsError> {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        if uid != 0 {
            return match as_user {
                Some(wanted) if wanted != uid => Err(IdsError::NotRoot { uid: wanted }),
                _ => Ok(Self {
                    uid_map: format!("0 {uid} 1\n"),
                    gid_map: format!("0 {gid} 1\n"),
                    deny_setgroups: true,
                    first_id: 0,
                    ids: 1,
                }),
            };
        }
        let map = fs::read_to_string("/proc/self/uid_map")?;
        Self::for_root(&map, as_user)
    }

    fn for_root(map: &str, as_user: Option<u32>) -> Result<Self, IdsError> {
        if as_user == Some(0) {
            return Err(IdsError::Zero);
        }
        // Everything is seen as (first id usable here, count), without 0.
        let spare: Vec<(u32, u32)> = extents(map)
            .into_iter()
            .map(|(inside, _, count)| {
                if inside == 0 {
                    (1, count.saturating_sub(1))
                } else {
                    (inside, count)
                }
            })
            .filter(|(_, count)| *count >= 2)
            .collect();
        let covers = |first: u32, count: u32| {
            spare.iter().any(|(start, n)| {
                first >= *start
                    && u64::from(first) + u64::from(count) <= u64::from(*start) + u64::from(*n)
            })
        };
        let (base, count) = if covers(PREFERRED_BASE, PREFERRED_COUNT) {
            (PREFERRED_BASE, PREFERRED_COUNT)
        } else {
            match spare.iter().max_by_key(|(_, count)| *count) {
                Some((first, count)) => {
                    let used = (*count).min(PREFERRED_COUNT);
                    // The end of the extent: its beginning is where services live.
                    (first + (count - used), used)
                }
                None => {
                    return Err(IdsError::NoSpareIds {
                        map: map.split_whitespace().collect::<Vec<_>>().join(" "),
                    });
                }
            }
        };
        // Id 0 inside is the launcher, the rest are workers.
        let mut maps = format!("0 {base} {count}\n");
        let (mut first_id, mut ids) = (1, count - 1);
        if let Some(uid) = as_user {
            if uid >= base && uid < base + count {
                (first_id, ids) = (uid - base, 1);
            } else {
                maps.push_str(&format!("{count} {uid} 1\n"));
                (first_id, ids) = (count, 1);
            }
        }
        Ok(Self {
            uid_map: maps.clone(),
            gid_map: maps,
            deny_setgroups: false,
            first_id,
            ids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    #[test]
    fn root_gives_workers_ids_that_nobody_has() {
        let ids = HostIds::for_root(WHOLE, None).unwrap();
        assert_eq!(ids.uid_map, "0 1900000000 65536\n");
        assert_eq!((ids.first_id, ids.ids), (1, 65_535));
    }

    #[test]
    fn a_chosen_user_is_the_only_id() {
        let ids = HostIds::for_root(WHOLE, Some(1000)).unwrap();
        assert_eq!(ids.uid_map, "0 1900000000 65536\n65536 1000 1\n");
        assert_eq!((ids.first_id, ids.ids), (65_536, 1));
        let ids = HostIds::for_root(WHOLE, Some(1_900_000_005)).unwrap();
        assert_eq!((ids.first_id, ids.ids), (5, 1));
    }

    #[test]
    fn a_container_s_range_is_used_from_its_end() {
        let ids = HostIds::for_root("0 100000 65536\n", None).unwrap();
        assert_eq!(ids.uid_map, "0 1 65535\n");
        assert!(matches!(
            HostIds::for_root("0 1000 1\n", None),
            Err(IdsError::NoSpareIds { .. })
        ));
    }

    #[test]
    fn uid_0_is_refused() {
        assert!(matches!(
            HostIds::for_root(WHOLE, Some(0)),
            Err(IdsError::Zero)
        ));
    }
}
