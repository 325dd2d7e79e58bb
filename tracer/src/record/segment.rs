//! Segments: files of a recording, each written under another name and renamed when whole. Where
//! they lie, how they are written, how several become one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::{
    arrow::{ArrowWriter, ProjectionMask},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData},
        properties::WriterProperties,
        statistics::Statistics,
    },
    schema::types::ColumnPath,
};

use super::{
    batches::{self, Batches, Opened},
    session::{SCHEMA, Session, Span, key},
};
use crate::model::WallNs;

/// Rows of one row group: what a reader holds in memory at once.
const GROUP_ROWS: usize = 256 << 10;

/// How a file's name ends while it is written.
pub(super) const UNFINISHED: &str = ".parquet.unfinished";

/// A table of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Table {
    /// The stream of events, from which all else follows.
    Events,
    /// DNS exchanges.
    Exchanges,
    /// Connections.
    Connections,
    /// Dropped packets.
    Drops,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [
        Self::Events,
        Self::Exchanges,
        Self::Connections,
        Self::Drops,
    ];

    /// Its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Exchanges => "exchanges",
            Self::Connections => "connections",
            Self::Drops => "drops",
        }
    }
}

/// The partition folder of `table` for what happens at `wall`, which is taken in UTC.
pub(super) fn partition(dir: &Path, table: Table, node: &str, wall: WallNs) -> PathBuf {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    let time = time.to_zoned(jiff::tz::TimeZone::UTC);
    dir.join(table.name())
        .join(format!("node={}", as_file_name(node)))
        .join(format!("date={}", time.date()))
        .join(format!("hour={:02}", time.hour()))
}

/// The name of a segment: those of one session sort by their place in the stream.
pub(super) fn file_name(session: &str, first: u64) -> String {
    format!("{session}-{first:015}")
}

/// Node names are DNS names; whatever else one holds is no path.
fn as_file_name(node: &str) -> String {
    let good = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_');
    node.chars()
        .map(|char| if good(char) { char } else { '_' })
        .collect()
}

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error("{0}")]
    Corrupt(String),
    #[error("metadata that make no sense")]
    Metadata(#[from] serde_json::Error),
    #[error("it is no segment")]
    NoSegment,
}

/// Writes `batches` as `dir/name.parquet`, which is there whole or not at all; returns its size.
pub(super) fn write(
    dir: &Path,
    name: &str,
    session: &Session,
    span: &Span,
    batches: impl IntoIterator<Item = Result<RecordBatch, Error>>,
) -> Result<u64, Error> {
    fs::create_dir_all(dir)?;
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let written = fill(&unfinished, session, span, batches).and_then(|size| {
        fs::rename(&unfinished, dir.join(format!("{name}.parquet")))?;
        Ok(size)
    });
    if written.is_err() {
        // On a full disk even this may fail; a reader passes it over.
        drop(fs::remove_file(&unfinished));
    }
    written
}

fn fill(
    path: &Path,
    session: &Session,
    span: &Span,
    batches: impl IntoIterator<Item = Result<RecordBatch, Error>>,
) -> Result<u64, Error> {
    let mut batches = batches.into_iter();
    let Some(first) = batches.next().transpose()? else {
        return Ok(0);
    };
    let file = File::create(path)?;
    let properties = properties(session, span)?;
    let mut writer = ArrowWriter::try_new(&file, first.schema(), Some(properties))?;
    writer.write(&first)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    // Else a power cut could leave the name without the content.
    file.sync_data()?;
    Ok(file.metadata()?.len())
}

fn properties(session: &Session, span: &Span) -> Result<WriterProperties, Error> {
    let metadata = vec![
        KeyValue::new(key::SCHEMA.to_owned(), SCHEMA.to_string()),
        KeyValue::new(key::SESSION.to_owned(), serde_json::to_string(session)?),
        KeyValue::new(key::SPAN.to_owned(), serde_json::to_string(span)?),
    ];
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_created_by(format!("tracer {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(metadata));
    // Numbers that mostly grow.
    for column in ["seq", "ktime_ns", "time", "serial"] {
        let column = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    // Hardly any two are alike.
    for column in ["payload", "headers"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    Ok(properties.build())
}

/// What the metadata of a file say.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) schema: u32,
    pub(super) session: Session,
    pub(super) span: Span,
}

/// A file that was opened, and what its metadata say; `None` where they say nothing, for it is no
/// segment.
pub(super) fn open(path: &Path) -> Result<Option<(Footer, Opened)>, Error> {
    let reader = batches::open(path)?;
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let value = |key: &str| {
        let found = metadata?.iter().find(|value| value.key == key)?;
        found.value.as_deref()
    };
    let Some(schema) = value(key::SCHEMA).and_then(|schema| schema.parse().ok()) else {
        return Ok(None);
    };
    let footer = if schema > SCHEMA {
        // A newer tracer may say more than this one understands.
        Footer {
            schema,
            session: Session::default(),
            span: Span::default(),
        }
    } else {
        Footer {
            schema,
            session: serde_json::from_str(value(key::SESSION).unwrap_or_default())?,
            span: serde_json::from_str(value(key::SPAN).unwrap_or_default())?,
        }
    };
    Ok(Some((footer, reader)))
}

/// The columns that hold anything: most of what happens has nothing to say in most columns, and a void one takes
/// as long to read as others.
pub(super) fn filled(metadata: &ParquetMetaData) -> ProjectionMask {
    let schema = metadata.file_metadata().schema_descr();
    let is_filled = |column: &usize| {
        metadata.row_groups().iter().any(|group| {
            let statistics = group.column(*column).statistics();
            let void = statistics.and_then(Statistics::null_count_opt);
            void.is_none_or(|void| i64::try_from(void) != Ok(group.num_rows()))
        })
    };
    ProjectionMask::leaves(schema, (0..schema.num_columns()).filter(is_filled))
}

/// Makes one file of several that follow one another, and removes them. A crash between the two
/// leaves both: readers go by what they hold.
pub(super) fn merge(dir: &Path, session: &Session, files: &[PathBuf]) -> Result<(), Error> {
    let mut span: Option<Span> = None;
    let mut readers = Vec::new();
    for file in files {
        let Some((footer, reader)) = open(file)? else {
            continue;
        };
        let whole = span.get_or_insert(footer.span);
        whole.next = footer.span.next;
        whole.ends = footer.span.ends;
        whole.last = footer.span.last;
        readers.push(Batches::of(reader)?);
    }
    let Some(span) = span else { return Ok(()) };
    let batches = readers.into_iter().flatten();
    // Not the name of the first one: it is to be there until all are removed.
    let name = format!(
        "{}-to-{:015}",
        file_name(&session.id, span.first),
        span.next
    );
    write(dir, &name, session, &span, batches)?;
    File::open(dir)?.sync_all()?;
    for file in files {
        fs::remove_file(file)?;
    }
    Ok(())
}
