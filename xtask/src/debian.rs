//! Packages of any Debian suite, fetched without touching the machine's own `/etc/apt`.
//!
//! Each suite has a private apt configuration under `target/debian`. The mirror is the one the
//! machine is set up with; no registry is named here. Nothing is installed: a package is a file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::sh;

const LISTS_LAST: Duration = Duration::from_hours(1);

/// Fetches `package` of `suite`, which may be `name=version*`, and returns the `.deb`.
///
/// # Errors
/// The mirror has no such suite any more, or the suite no such package.
pub(crate) fn download(suite: &str, package: &str) -> Result<PathBuf> {
    let dir = private(suite)?;
    let into = dir.join("packages").join(file_name(package));
    fs::create_dir_all(&into)?;
    if deb_in(&into).is_none() {
        sh::run(
            apt("apt-get", &dir)
                .current_dir(&into)
                .args(["-qq", "download", package]),
        )
        .with_context(|| format!("suite {suite} has no package {package}"))?;
    }
    deb_in(&into).context("apt-get download left no package")
}

/// Names of the packages `package` of `suite` depends on, alternatives and versions left out.
///
/// # Errors
/// As [`download`].
pub(crate) fn depends(suite: &str, package: &str) -> Result<Vec<String>> {
    let dir = private(suite)?;
    let text = sh::output(apt("apt-cache", &dir).args(["depends", package]))
        .with_context(|| format!("suite {suite} has no package {package}"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .collect())
}

/// Unpacks `package` into `into`, which need not exist.
///
/// # Errors
/// The package is damaged or the disk is full.
pub(crate) fn unpack(package: &Path, into: &Path) -> Result<()> {
    sh::run(Command::new("dpkg").arg("-x").arg(package).arg(into))
}

/// The suite's private apt directory, its package lists at most an hour old: the archive drops
/// a package as soon as it has a newer one.
fn private(suite: &str) -> Result<PathBuf> {
    let dir = sh::target().join("debian").join(suite);
    let read = dir.join("lists-read");
    let age = fs::metadata(&read).and_then(|stamp| stamp.modified());
    if age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < LISTS_LAST)) {
        return Ok(dir);
    }
    let mirror = mirror()?;
    for part in ["sources", "lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(part))?;
    }
    fs::write(
        dir.join("sources/suite.sources"),
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        ),
    )?;
    sh::run(apt("apt-get", &dir).args(["-qq", "--error-on=any", "update"])).with_context(|| {
        format!("the machine's Debian mirror does not serve suite {suite}; it may have moved to Debian's archive of old suites")
    })?;
    fs::write(read, "")?;
    Ok(dir)
}

fn apt(program: &str, dir: &Path) -> Command {
    let dir = dir.display();
    let mut command = Command::new("timeout");
    command.args(["300", program]);
    for option in [
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        format!("Dir::Etc::sourceparts={dir}/sources"),
        format!("Dir::State::lists={dir}/lists"),
        format!("Dir::Cache={dir}/cache"),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
}

/// The first Debian mirror the machine itself is set up with.
fn mirror() -> Result<String> {
    let mut files: Vec<_> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.push(PathBuf::from("/etc/apt/sources.list"));
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if let Some(mirror) = mirror_in(&text) {
            return Ok(mirror.to_owned());
        }
    }
    bail!("no Debian mirror in /etc/apt/sources.list or sources.list.d")
}

fn mirror_in(sources: &str) -> Option<&str> {
    sources
        .lines()
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
}

fn file_name(package: &str) -> String {
    package.replace(['=', '*'], "_")
}

fn deb_in(dir: &Path) -> Option<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
}

/// Fails unless `path` is there, naming the package it should have come with.
///
/// # Errors
/// `path` does not exist.
pub(crate) fn expect(path: &Path, package: &str) -> Result<()> {
    ensure!(
        path.exists(),
        "package {package} holds no {}",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sources: &str, expected: Option<&str>) {
        assert_eq!(mirror_in(sources), expected);
    }

    #[test]
    fn mirror_is_read_from_either_form_of_sources() {
        check(
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
            Some("http://mirror.example/debian"),
        );
        check(
            "deb http://mirror.example/debian/ bookworm main\n",
            Some("http://mirror.example/debian/"),
        );
    }

    #[test]
    fn security_and_third_party_sources_are_no_mirror() {
        check(
            "deb http://mirror.example/debian-security bookworm main\n",
            None,
        );
        check("# deb http://mirror.example/debian bookworm main\n", None);
    }
}
