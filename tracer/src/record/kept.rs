//! Names kept on disk for times without an API server: all that it said, as one file of JSON lines, replaced
//! as a whole. The first line tells version, when it was true, and how many objects follow.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::objects;
use crate::model::{
    Snapshot, WallNs,
    change::{Kind, Object},
};

/// Version of the file. One of another version is not read.
const VERSION: u32 = 1;

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself.
    #[error("read it")]
    File(#[from] io::Error),
    /// It is no such file, or one that was cut or changed.
    #[error("line {line} makes no sense: remove it, and it is written anew")]
    Broken {
        /// Which, from 1.
        line: usize,
    },
    /// Another version of the tracer's.
    #[error("it is of version {found}, and this tracer reads version {VERSION}")]
    Version {
        /// The file's.
        found: u32,
    },
    /// It ends before it should.
    #[error("it has {found} of {expected} objects: remove it, and it is written anew")]
    Cut {
        /// How many it has.
        found: usize,
        /// How many it says it has.
        expected: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    taken: i64,
    objects: usize,
}

/// Replaces what `file` has by `snapshot`; whoever reads meanwhile reads one or the other.
///
/// # Errors
/// Its directory cannot be written to.
pub fn write(file: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut options = OpenOptions::new();
    // Names of all pods are nobody else's business.
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut out = BufWriter::new(options.open(&new)?);
    let all = snapshot.objects().count();
    let head = Head {
        version: VERSION,
        taken: snapshot.taken.0,
        objects: all,
    };
    writeln!(out, "{}", objects::json(&head).unwrap_or_default())?;
    for object in snapshot.objects() {
        let words = objects::words(&object).unwrap_or_default();
        writeln!(out, "{} {words}", object.kind().name())?;
    }
    // Else a node that crashes now may have neither.
    out.into_inner()?.sync_data()?;
    fs::rename(new, file)
}

/// When it was true, and its objects, one after the other; `None` when there is no file.
///
/// # Errors
/// It cannot be read, is no such file, or of another version. `take` may have had objects before.
pub fn read(
    file: &Path,
    mut take: impl FnMut(WallNs, Object),
) -> Result<Option<(WallNs, usize)>, Error> {
    let file = match File::open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut lines = BufReader::new(file).lines();
    let head = lines.next().transpose()?;
    let head: Head = objects::read(head.as_deref()).ok_or(Error::Broken { line: 1 })?;
    let Head {
        version,
        taken,
        objects: expected,
    } = head;
    if version != VERSION {
        return Err(Error::Version { found: version });
    }
    let mut found = 0;
    for (index, line) in lines.enumerate() {
        let object = object(&line?).ok_or(Error::Broken { line: index + 2 })?;
        take(WallNs(taken), object);
        found += 1;
    }
    if found != expected {
        return Err(Error::Cut { found, expected });
    }
    Ok(Some((WallNs(taken), found)))
}

fn object(line: &str) -> Option<Object> {
    let (kind, words) = line.split_once(' ')?;
    let kind = Kind::ALL.into_iter().find(|of| of.name() == kind)?;
    objects::object(kind, Some(words))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::model::cluster::Node;

    /// A directory that goes with its test.
    fn scratch() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn snapshot() -> Snapshot {
        let node = |name: &str, address: [u8; 4]| {
            Arc::new(Node {
                name: name.into(),
                addresses: vec![address.into()],
                pod_cidrs: Vec::new(),
                zone: None,
                ready: true,
                annotations: Vec::new(),
            })
        };
        Snapshot {
            taken: WallNs(7),
            nodes: vec![node("n1", [192, 0, 2, 1]), node("n2", [192, 0, 2, 2])],
            ..Snapshot::default()
        }
    }

    type Said = Result<Option<(WallNs, usize)>, String>;

    /// What reading said, and the nodes that came.
    fn read_all(file: &Path) -> (Said, Vec<Arc<Node>>) {
        let mut nodes = Vec::new();
        let read = read(file, |at, object| {
            assert_eq!(at, WallNs(7));
            match object {
                Object::Node(node) => nodes.push(node),
                other => panic!("{other:?}"),
            }
        });
        (read.map_err(|error| error.to_string()), nodes)
    }

    #[test]
    fn what_is_written_is_read_and_replaces_what_was() {
        let scratch = scratch();
        let file = scratch.path().join("kept");
        assert_eq!(read_all(&file), (Ok(None), Vec::new()));
        write(&file, &Snapshot::default()).unwrap();
        write(&file, &snapshot()).unwrap();
        let (read, nodes) = read_all(&file);
        assert_eq!(read, Ok(Some((WallNs(7), 2))));
        assert_eq!(nodes, snapshot().nodes);
    }

    /// The file with `from` replaced by `to` says `expected`.
    fn check(test: &str, from: &str, to: &str, expected: &str) {
        let scratch = scratch();
        let file = scratch.path().join("kept");
        write(&file, &snapshot()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        assert_eq!(read_all(&file).0, Err(expected.to_owned()), "{test}");
    }

    #[test]
    fn a_file_that_is_another_versions_or_cut_or_broken_says_so() {
        let version = r#""version":1"#;
        let newer = "it is of version 2, and this tracer reads version 1";
        check("version", version, r#""version":2"#, newer);
        let again = "remove it, and it is written anew";
        check("head", "{", "", &format!("line 1 makes no sense: {again}"));
        let body = "nodes {\"name\":\"n2\"";
        check(
            "body",
            body,
            "nodes {",
            &format!("line 3 makes no sense: {again}"),
        );
        let more = r#""objects":2"#;
        let cut = format!("it has 2 of 3 objects: {again}");
        check("cut", more, r#""objects":3"#, &cut);
    }
}
