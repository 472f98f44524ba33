//! What is thrown away when a cache directory holds more than it may.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::entry::Entry;
use crate::aside::is_aside;

/// Of the limit, what is left after something had to go: nine tenths, so that not every
/// new entry looks through the directory.
const LEFT: (u64, u64) = (9, 10);
/// A file that nobody refers to, or that was never finished, is left alone for so long:
/// somebody may be about to.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Something that may go.
#[derive(Debug, Clone, Copy)]
struct Item {
    bytes: u64,
    used: SystemTime,
}

/// Which items have to go, those first that were used least lately.
fn surplus(items: &[Item], limit: u64) -> Vec<usize> {
    let mut total = items
        .iter()
        .fold(0u64, |sum, item| sum.saturating_add(item.bytes));
    let mut gone = Vec::new();
    if total <= limit {
        return gone;
    }
    let target = (u128::from(limit) * u128::from(LEFT.0) / u128::from(LEFT.1)) as u64;
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|at| items[*at].used);
    for at in order {
        if total <= target {
            break;
        }
        total -= items[at].bytes;
        gone.push(at);
    }
    gone
}

/// Throws away what is too much, and what nobody has use for. How many bytes are left.
pub(super) fn prune(directory: &Path, limit: u64) -> io::Result<u64> {
    let now = SystemTime::now();
    let abandoned = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age > ABANDONED);
    // By the name of their contents, files with how long they are.
    let mut contents = HashMap::<String, (PathBuf, u64, SystemTime)>::new();
    for (path, metadata) in files(&directory.join("contents"))? {
        let modified = metadata.modified()?;
        if is_aside(&path) {
            if abandoned(modified) {
                remove(&path);
            }
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            contents.insert(name.to_owned(), (path.clone(), metadata.len(), modified));
        }
    }
    let mut entries = Vec::<(PathBuf, Option<String>, Item)>::new();
    for (path, metadata) in files(&directory.join("entries"))? {
        let used = metadata.modified()?;
        if is_aside(&path) {
            if abandoned(used) {
                remove(&path);
            }
            continue;
        }
        let name = Entry::names(&path).map(|hash| hash.to_hex().to_string());
        // Of contents that several have, each is told the whole: they go a little early.
        let of_contents = name.as_ref().and_then(|name| contents.get(name));
        let bytes = metadata
            .len()
            .saturating_add(of_contents.map_or(0, |(_, bytes, _)| *bytes));
        entries.push((path, name, Item { bytes, used }));
    }
    let items: Vec<Item> = entries.iter().map(|(_, _, item)| *item).collect();
    let mut gone = vec![false; items.len()];
    for at in surplus(&items, limit) {
        remove(&entries[at].0);
        gone[at] = true;
    }
    let mut used = 0u64;
    let mut held = HashSet::<&str>::new();
    for ((_, name, item), gone) in entries.iter().zip(&gone) {
        if !gone {
            used = used.saturating_add(item.bytes);
            held.extend(name.as_deref());
        }
    }
    let before: HashSet<&str> = entries
        .iter()
        .filter_map(|(_, name, _)| name.as_deref())
        .collect();
    for (name, (path, _, modified)) in &contents {
        let is_held = held.contains(name.as_str());
        // Whoever has just written it is about to write its entry.
        if !is_held && (before.contains(name.as_str()) || abandoned(*modified)) {
            remove(path);
        }
    }
    Ok(used)
}

fn files(directory: &Path) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => found.push((entry.path(), metadata)),
            Ok(_) => {}
            // Another host was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a cache file can't be thrown away");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_lately_goes_until_nine_tenths_are_left() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let item = |bytes, used| Item {
            bytes,
            used: at(used),
        };
        for (items, limit, gone) in [
            (vec![], 0, vec![]),
            (vec![item(50, 1), item(50, 2)], 100, vec![]),
            (vec![item(50, 2), item(51, 1)], 100, vec![1]),
            (
                vec![item(40, 3), item(10, 1), item(30, 2), item(30, 4)],
                100,
                vec![1, 2],
            ),
            (vec![item(200, 9)], 100, vec![0]),
            (vec![item(1, 1), item(1, 2)], 0, vec![0, 1]),
            (vec![item(u64::MAX, 1), item(5, 2)], 100, vec![0]),
        ] {
            assert_eq!(surplus(&items, limit), gone, "{items:?} of {limit}");
        }
    }
}
