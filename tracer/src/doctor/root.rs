//! `Root`: the node's files, below `/` or below a directory that stands for it. Links are followed
//! within that directory.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Most links followed to find one file.
const LINKS: usize = 8;

/// Where the node's files are.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The node whose root directory is `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether it is this machine itself, so that kernel and ports can be asked too.
    pub fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Whether all of the node's files are there; a pod has a few directories of them.
    pub fn is_whole(&self) -> bool {
        !self.is_live() || env::var_os("KUBERNETES_SERVICE_HOST").is_none()
    }

    /// Where `path`, absolute or not, lies.
    pub fn path(&self, path: &str) -> PathBuf {
        let mut at = self.0.join(path.trim_start_matches('/'));
        for _ in 0..LINKS {
            match fs::read_link(&at) {
                Ok(target) if target.is_absolute() => {
                    at = self.0.join(target.strip_prefix("/").unwrap_or(&target));
                }
                _ => break,
            }
        }
        at
    }

    /// The text of a file.
    pub fn read(&self, path: &str) -> io::Result<String> {
        let bytes = fs::read(self.path(path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The whole number that a file holds; `None` when it holds none.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.read(path).ok()?.trim().parse().ok()
    }

    /// Whether there is such a file or directory.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names in a directory, in the order of their bytes; empty when it cannot be read.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// What a link says; `None` when it is no link.
    pub fn link(&self, path: &str) -> Option<String> {
        let at = self.0.join(path.trim_start_matches('/'));
        Some(fs::read_link(at).ok()?.to_string_lossy().into_owned())
    }

    /// A YAML file as plain values.
    pub fn yaml(&self, path: &str) -> Result<serde_json::Value, String> {
        let text = self
            .read(path)
            .map_err(|error| format!("{path}: {error}"))?;
        yaml(&text).map_err(|error| format!("{path}: {error}"))
    }
}

/// YAML text as plain values; the first line of what is wrong with it.
pub(super) fn yaml(text: &str) -> Result<serde_json::Value, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let said = error.to_string();
        said.lines().next().unwrap_or_default().to_owned()
    })
}
