//! Rotation: what is too old, or too much, goes; the oldest first.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use tracing::warn;

use super::segment::{Table, partition};
use crate::model::WallNs;

/// How much of a recording is kept; `None` is all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Bytes of all its files.
    pub bytes: Option<u64>,
    /// Time since a file was written.
    pub age: Option<Duration>,
}

/// A file of a recording.
struct Kept {
    /// Partition and name, which sort by time whatever the table.
    when: String,
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    written: i128,
}

/// Removes of the recording of `node` in `dir` what is not to be kept at `now`.
pub(super) fn apply(dir: &Path, node: &str, keep: Keep, now: WallNs) {
    if keep.bytes.is_none() && keep.age.is_none() {
        return;
    }
    let mut files = Vec::new();
    for table in Table::ALL {
        let any_hour = partition(dir, table, node, now);
        if let Some(root) = any_hour.ancestors().nth(2) {
            list(root, root, &mut files);
        }
    }
    files.sort_by(|a, b| a.when.cmp(&b.when));
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    for file in files {
        let age = i128::from(now.0) - file.written;
        let old = keep
            .age
            .is_some_and(|most| i128::try_from(most.as_nanos()).is_ok_and(|most| age > most));
        let much = keep.bytes.is_some_and(|most| bytes > most);
        if !old && !much {
            continue;
        }
        match fs::remove_file(&file.path) {
            Ok(()) => bytes -= file.bytes,
            Err(error) => warn!(file = %file.path.display(), %error, "cannot be removed"),
        }
        // A folder that is not empty stays.
        for parent in file.path.ancestors().skip(1).take(2) {
            drop(fs::remove_dir(parent));
        }
    }
}

fn list(root: &Path, dir: &Path, files: &mut Vec<Kept>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(root, &path, files);
            continue;
        }
        let (Ok(found), Ok(when)) = (entry.metadata(), path.strip_prefix(root)) else {
            continue;
        };
        let written = found.modified().ok();
        let written = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        files.push(Kept {
            when: when.to_string_lossy().into_owned(),
            bytes: found.len(),
            written: written.map_or(0, |time| i128::try_from(time.as_nanos()).unwrap_or(0)),
            path,
        });
    }
}
