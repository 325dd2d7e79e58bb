//! A sign of life in a file, for the probes of a pod: written each second by the loop itself, so that one
//! that hangs is seen to hang. Its time is the kernel's since boot; the wall clock may be set.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Exit, tell};
use crate::{cli::AliveArgs, kernel::clock, model::KtimeNs};

/// Where it is written.
#[derive(Debug)]
pub(super) struct Alive {
    file: PathBuf,
}

impl Alive {
    /// Writes the first one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn start(file: &Path) -> Result<Self> {
        let alive = Self {
            file: file.to_owned(),
        };
        write(file).with_context(|| format!("write {}", file.display()))?;
        Ok(alive)
    }

    /// Writes that it goes on. Where it cannot, the probe will tell.
    pub(super) fn tell(&self) {
        drop(write(&self.file));
    }
}

/// Replaces it as a whole: a probe never reads half of it.
fn write(file: &Path) -> std::io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{}\n", clock::ktime().0))?;
    fs::rename(new, file)
}

/// Whether the trace that writes the file goes on.
///
/// # Errors
/// There is no such file, or it is another's.
pub fn alive(args: &AliveArgs) -> Result<Exit> {
    let path = args.file.display();
    let text = fs::read_to_string(&args.file).with_context(|| format!("read {path}"))?;
    let then = text.trim().parse().map(KtimeNs);
    let then = then.with_context(|| format!("{path} was not written by tracer"))?;
    Ok(judge(clock::ktime() - then, args.within))
}

fn judge(age: Duration, within: Duration) -> Exit {
    if age <= within {
        return Exit::Done;
    }
    tell(&format!(
        "the trace has not moved for {:.0} s",
        age.as_secs_f32()
    ));
    Exit::Problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_stopped_writing_is_a_problem() {
        let within = Duration::from_secs(10);
        assert_eq!(judge(Duration::from_secs(1), within), Exit::Done);
        assert_eq!(judge(Duration::from_secs(11), within), Exit::Problem);
    }

    #[test]
    fn what_is_written_is_read_as_just_now() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("alive");
        let alive = Alive::start(&file).unwrap();
        alive.tell();
        let within = Duration::from_secs(5);
        let judged = super::alive(&AliveArgs { file, within });
        assert_eq!(judged.unwrap(), Exit::Done);
    }
}
