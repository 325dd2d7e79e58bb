//! The API objects from files instead of the API server: what `kubectl get -o json` writes.

use std::{fs, io, path::PathBuf, sync::Arc};

use serde_json::Value;
use thiserror::Error;

use super::{intern::Interner, nodes, owners::Owners, pods, services};
use crate::model::Snapshot;

/// Why a file is no list of objects.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON, or an object in it is not what its kind has.
    #[error("{} holds no objects as `kubectl get -o json` writes them", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Reads objects of all files; of kinds that are not known here nothing is taken.
///
/// # Errors
/// A file cannot be read, or is no JSON.
pub fn read(paths: &[PathBuf]) -> Result<Snapshot, FileError> {
    let mut snapshot = Snapshot {
        taken: super::now(),
        ..Snapshot::default()
    };
    let mut interner = Interner::default();
    for path in paths {
        let text = fs::read(path).map_err(|source| FileError::Read {
            path: path.clone(),
            source,
        })?;
        let json = |source| FileError::Json {
            path: path.clone(),
            source,
        };
        let value: Value = serde_json::from_slice(&text).map_err(json)?;
        take(value, "", &mut snapshot, &mut interner).map_err(json)?;
    }
    Ok(snapshot)
}

/// Takes an object, or those of a list. The API server's own lists name the kind of their items
/// once.
fn take(
    mut value: Value,
    of_list: &str,
    snapshot: &mut Snapshot,
    interner: &mut Interner,
) -> Result<(), serde_json::Error> {
    let kind = value["kind"].as_str().unwrap_or(of_list).to_owned();
    if let Some(items) = kind.strip_suffix("List") {
        if let Value::Array(all) = value["items"].take() {
            for item in all {
                take(item, items, snapshot, interner)?;
            }
        }
        return Ok(());
    }
    match &*kind {
        "Service" => {
            let raw = serde_json::from_value(value)?;
            snapshot
                .services
                .extend(services::trim(&raw, interner).map(Arc::new));
        }
        "EndpointSlice" => {
            let raw = serde_json::from_value(value)?;
            let slice = services::trim_slice(&raw, interner);
            snapshot.slices.extend(slice.map(Arc::new));
        }
        "Node" => {
            let raw = serde_json::from_value(value)?;
            snapshot
                .nodes
                .extend(nodes::trim(&raw, interner).map(Arc::new));
        }
        "Pod" => {
            let raw = serde_json::from_value(value)?;
            let pod = pods::trim(&raw, interner, &Owners::default());
            snapshot.pods.extend(pod.map(|(pod, _)| Arc::new(pod)));
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Snapshot, serde_json::Error> {
        let mut snapshot = Snapshot::default();
        let value = serde_json::from_str(text)?;
        take(value, "", &mut snapshot, &mut Interner::default())?;
        Ok(snapshot)
    }

    #[test]
    fn lists_of_kubectl_and_of_the_api_server_are_read() {
        let item = r#"{"metadata":{"name":"n1"},"spec":{},"status":{}}"#;
        let of_api = format!(r#"{{"kind":"NodeList","items":[{item}]}}"#);
        assert_eq!(read_text(&of_api).unwrap().nodes.len(), 1);
        let with_kind = item.replacen('{', r#"{"kind":"Node","#, 1);
        let of_kubectl =
            format!(r#"{{"kind":"List","items":[{with_kind},{{"kind":"ConfigMap"}}]}}"#);
        assert_eq!(read_text(&of_kubectl).unwrap().nodes.len(), 1);
        assert_eq!(read_text(&with_kind).unwrap().nodes.len(), 1);
        assert!(read_text(r#"{"kind":"Node","metadata":7}"#).is_err());
    }
}
