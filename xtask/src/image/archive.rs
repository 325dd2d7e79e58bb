//! An OCI archive of one layer, written without an engine, as `ctr images import` takes it.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>. The same files give
//! the same bytes: no times, no owners.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What is in an image, and what runs in it.
pub(crate) struct Image<'a> {
    /// Whole name, such as `docker.io/bed/coredns:1`: containerd looks it up by no shorter one.
    pub(crate) name: &'a str,
    /// Programs as (path here, path in the image).
    pub(crate) programs: &'a [(PathBuf, &'a str)],
    /// Symbolic links as (path in the image, target).
    pub(crate) links: &'a [(String, &'a str)],
    /// What is started, with its first arguments.
    pub(crate) entrypoint: &'a [&'a str],
    /// Whom its programs are for, in Go's words.
    pub(crate) architecture: &'a str,
}

impl Image<'_> {
    /// Writes the archive to `path`.
    ///
    /// # Errors
    /// A program cannot be read, or the disk is full.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let layer = self
            .layer()
            .with_context(|| format!("image {}", self.name))?;
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string();
        let mut entry = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.as_bytes(),
        );
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        })
        .to_string();

        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut archive = Builder::new(BufWriter::new(file));
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        append(&mut archive, "oci-layout", layout, 0o644)?;
        append(&mut archive, "index.json", index.as_bytes(), 0o644)?;
        for blob in [&layer, config.as_bytes(), manifest.as_bytes()] {
            let name = format!("blobs/{}", digest(blob).replace(':', "/"));
            append(&mut archive, &name, blob, 0o644)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// The file system as an uncompressed tar; directories are made by whoever unpacks it.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        for (source, path) in self.programs {
            let bytes =
                std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
            append(&mut layer, path.trim_start_matches('/'), &bytes, 0o755)?;
        }
        for (path, target) in self.links {
            let mut header = header(0, 0o777);
            header.set_entry_type(EntryType::Symlink);
            layer.append_link(&mut header, path.trim_start_matches('/'), target)?;
        }
        Ok(layer.into_inner()?)
    }
}

fn append(
    archive: &mut Builder<impl Write>,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> std::io::Result<()> {
    archive.append_data(&mut header(bytes.len(), mode), path, bytes)
}

fn header(size: usize, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(blob)))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    /// Every file of the archive by name.
    fn files(archive: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(archive).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        });
        entries.collect()
    }

    #[test]
    fn every_digest_of_the_archive_leads_to_its_blob() {
        let path = std::env::temp_dir().join(format!("image-{}.tar", std::process::id()));
        let image = Image {
            name: "docker.io/bed/test:1",
            programs: &[(PathBuf::from("/bin/true"), "/bin/true")],
            links: &[("/bin/yes".to_owned(), "true")],
            entrypoint: &["/bin/true"],
            architecture: "arm64",
        };
        image.write(&path).unwrap();
        let files = files(&path);
        std::fs::remove_file(&path).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(super::digest(bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        let name = &entry["annotations"]["io.containerd.image.name"];
        assert_eq!(name, "docker.io/bed/test:1");
        let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
        let layer = blob(&manifest["layers"][0]);
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["architecture"], "arm64");
        assert_eq!(config["rootfs"]["diff_ids"][0], super::digest(&layer));
        let mut layer = tar::Archive::new(layer.as_slice());
        let paths = layer.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (
                entry.path().unwrap().into_owned(),
                entry.header().mode().unwrap(),
            )
        });
        let expected =
            [("bin/true", 0o755), ("bin/yes", 0o777)].map(|(path, mode)| (path.into(), mode));
        assert_eq!(paths.collect::<Vec<_>>(), expected);
    }
}
