//! Files as Parquet. What is corrupt is an error, also where the library that reads it panics.

use std::{
    any::Any,
    cell::Cell,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Once,
};

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::segment::Error;

/// A file whose metadata were read.
pub(super) type Opened = ParquetRecordBatchReaderBuilder<File>;

/// Opens a file and reads its metadata.
///
/// # Errors
/// It cannot be opened, or is no whole Parquet.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    let file = File::open(path)?;
    guarded(|| ParquetRecordBatchReaderBuilder::try_new(file))
}

/// The rows of a file, some at a time; after an error there are no more.
#[derive(Debug)]
pub(super) struct Batches(Option<ParquetRecordBatchReader>);

impl Batches {
    /// # Errors
    /// The metadata contradict themselves.
    pub(super) fn of(file: Opened) -> Result<Self, Error> {
        Ok(Self(Some(guarded(|| file.build())?)))
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.0.as_mut()?;
        let batch = guarded(|| reader.next().transpose()).transpose();
        if let Some(Err(_)) = batch {
            self.0 = None;
        }
        batch
    }
}

/// What `read` gives; where it panics, the error that says so, and nothing is printed of it.
fn guarded<T, E>(read: impl FnOnce() -> Result<T, E>) -> Result<T, Error>
where
    Error: From<E>,
{
    static HOOK: Once = Once::new();
    thread_local! {
        static READS: Cell<bool> = const { Cell::new(false) };
    }
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !READS.get() {
                before(panic);
            }
        }));
    });
    READS.set(true);
    // What was being read is not read on.
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    READS.set(false);
    Ok(result.map_err(|panic| Error::Corrupt(words(&*panic)))??)
}

/// The first line of what a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().copied();
    let said = literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let line = said.and_then(|said| said.lines().next());
    line.unwrap_or("no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_reader_is_an_error_of_one_line() {
        let told = |read: fn() -> u8| {
            guarded(|| Ok::<_, Error>(read())).map_err(|error| error.to_string())
        };
        let values = [1, 2];
        assert_eq!(told(|| 7), Ok(7));
        assert_eq!(
            told(|| panic!("out of bounds")),
            Err("out of bounds".to_owned())
        );
        let unequal = || -> Result<(), Error> {
            assert_eq!(values[0], values[1], "must be equal");
            Ok(())
        };
        let asserted = guarded(unequal).unwrap_err();
        assert_eq!(
            asserted.to_string(),
            "assertion `left == right` failed: must be equal"
        );
    }
}
