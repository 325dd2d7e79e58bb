//! Columns of a table: filled value by value, read back value by value. What is never put into a
//! row is null there, and costs nothing until the table is finished.

use std::{net::IpAddr, sync::Arc};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, DictionaryArray, Int32Array,
    PrimitiveArray, StringArray,
    builder::{ArrayBuilder as _, BinaryBuilder, BooleanBuilder, PrimitiveBuilder},
    cast::AsArray as _,
    types::{
        Float64Type, Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use rustc_hash::FxHashMap;

/// A kind of column: how it is filled, and how it is read.
pub(super) trait Column: Default {
    /// Its values once read.
    type Read: Read;
    /// The type that readers of the file see.
    fn data_type() -> DataType;
    /// The values of `rows` rows; the column is empty afterwards.
    fn finish(&mut self, rows: usize) -> ArrayRef;
}

/// A column that was read; void where the file has none of that name, or of another type.
pub(super) trait Read: Sized {
    /// The values of `array`.
    fn new(array: Option<&ArrayRef>) -> Self;
}

/// Numbers.
#[derive(Debug)]
pub(super) struct Numbers<T: ArrowPrimitiveType>(PrimitiveBuilder<T>);

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Self {
        Self(PrimitiveBuilder::new())
    }
}

/// 0 to 255.
pub(super) type U8 = Numbers<UInt8Type>;
/// 0 to 65,535.
pub(super) type U16 = Numbers<UInt16Type>;
/// 32 bits.
pub(super) type U32 = Numbers<UInt32Type>;
/// 64 bits.
pub(super) type U64 = Numbers<UInt64Type>;
/// Microseconds and the like.
pub(super) type F64 = Numbers<Float64Type>;

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// Sets the value of `row`; rows come in order.
    pub(super) fn put(&mut self, row: usize, value: impl Into<Option<T::Native>>) {
        if let Some(value) = value.into() {
            self.0.append_nulls(row.saturating_sub(self.0.len()));
            self.0.append_value(value);
        }
    }

    fn array(&mut self, rows: usize) -> PrimitiveArray<T> {
        self.0.append_nulls(rows.saturating_sub(self.0.len()));
        self.0.finish()
    }
}

impl<T: ArrowPrimitiveType> Column for Numbers<T> {
    type Read = NumbersRead<T>;

    fn data_type() -> DataType {
        T::DATA_TYPE
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        Arc::new(self.array(rows))
    }
}

/// Numbers that were read.
#[derive(Debug)]
pub(super) struct NumbersRead<T: ArrowPrimitiveType>(Option<PrimitiveArray<T>>);

impl<T: ArrowPrimitiveType> NumbersRead<T> {
    /// The value of `row`.
    pub(super) fn at(&self, row: usize) -> Option<T::Native> {
        let array = self.0.as_ref()?;
        array.is_valid(row).then(|| array.value(row))
    }
}

impl<T: ArrowPrimitiveType> Read for NumbersRead<T> {
    fn new(array: Option<&ArrayRef>) -> Self {
        let array = array.and_then(|array| array.as_primitive_opt::<T>());
        Self(array.filter(|array| holds_any(*array)).cloned())
    }
}

fn holds_any(array: &dyn Array) -> bool {
    array.null_count() < array.len()
}

/// Moments: nanoseconds since 1970 in UTC.
#[derive(Debug, Default)]
pub(super) struct Time(Numbers<TimestampNanosecondType>);

impl Time {
    /// Sets the value of `row`.
    pub(super) fn put(&mut self, row: usize, nanos: i64) {
        self.0.put(row, nanos);
    }
}

impl Column for Time {
    type Read = NumbersRead<TimestampNanosecondType>;

    fn data_type() -> DataType {
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        Arc::new(self.0.array(rows).with_timezone("UTC"))
    }
}

/// Yes or no.
#[derive(Debug)]
pub(super) struct Flag(BooleanBuilder);

impl Default for Flag {
    fn default() -> Self {
        Self(BooleanBuilder::new())
    }
}

impl Flag {
    /// Sets the value of `row`.
    pub(super) fn put(&mut self, row: usize, value: bool) {
        self.0.append_nulls(row.saturating_sub(self.0.len()));
        self.0.append_value(value);
    }
}

impl Column for Flag {
    type Read = FlagRead;

    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.0.append_nulls(rows.saturating_sub(self.0.len()));
        Arc::new(self.0.finish())
    }
}

/// Flags that were read.
#[derive(Debug)]
pub(super) struct FlagRead(Option<BooleanArray>);

impl FlagRead {
    /// The value of `row`.
    pub(super) fn at(&self, row: usize) -> Option<bool> {
        let array = self.0.as_ref()?;
        array.is_valid(row).then(|| array.value(row))
    }
}

impl Read for FlagRead {
    fn new(array: Option<&ArrayRef>) -> Self {
        let array = array.and_then(|array| array.as_boolean_opt());
        Self(array.filter(|array| holds_any(*array)).cloned())
    }
}

/// Bytes as captured.
#[derive(Debug, Default)]
pub(super) struct Blob(BinaryBuilder);

impl Blob {
    /// Sets the value of `row`.
    pub(super) fn put(&mut self, row: usize, value: &[u8]) {
        self.0.append_nulls(row.saturating_sub(self.0.len()));
        self.0.append_value(value);
    }
}

impl Column for Blob {
    type Read = BlobRead;

    fn data_type() -> DataType {
        DataType::Binary
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.0.append_nulls(rows.saturating_sub(self.0.len()));
        Arc::new(self.0.finish())
    }
}

/// Bytes that were read; all values of a column share one piece of memory.
#[derive(Debug)]
pub(super) struct BlobRead(Option<(BinaryArray, Bytes)>);

impl BlobRead {
    /// The value of `row`.
    pub(super) fn at(&self, row: usize) -> Option<Bytes> {
        let (array, bytes) = self.0.as_ref()?;
        if array.is_null(row) {
            return None;
        }
        let offsets = array.value_offsets();
        let at = |row: usize| usize::try_from(*offsets.get(row)?).ok();
        let (from, to) = (at(row)?, at(row + 1)?);
        (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
    }
}

impl Read for BlobRead {
    fn new(array: Option<&ArrayRef>) -> Self {
        let array = array.and_then(|array| array.as_binary_opt::<i32>());
        let array = array.filter(|array| holds_any(*array));
        Self(array.map(|array| {
            let bytes = Bytes::from_owner(array.values().clone());
            (array.clone(), bytes)
        }))
    }
}

/// Words that come again and again; each is kept once.
#[derive(Debug, Default)]
pub(super) struct Word {
    keys: Numbers<Int32Type>,
    known: FxHashMap<Box<str>, i32>,
    words: Vec<Box<str>>,
}

impl Word {
    /// Sets the value of `row`.
    pub(super) fn put(&mut self, row: usize, word: &str) {
        let key = match self.known.get(word) {
            Some(key) => *key,
            None => {
                let key = i32::try_from(self.words.len()).unwrap_or(i32::MAX);
                self.known.insert(word.into(), key);
                self.words.push(word.into());
                key
            }
        };
        self.keys.put(row, key);
    }

    /// The same, where there is a word.
    pub(super) fn put_any(&mut self, row: usize, word: Option<&str>) {
        if let Some(word) = word {
            self.put(row, word);
        }
    }
}

fn dictionary(keys: Int32Array, words: StringArray) -> ArrayRef {
    let array = DictionaryArray::try_new(keys, Arc::new(words));
    Arc::new(array.expect("each key is the index of a word"))
}

fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

impl Column for Word {
    type Read = WordRead<Arc<str>>;

    fn data_type() -> DataType {
        dictionary_type()
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.known.clear();
        let words = std::mem::take(&mut self.words);
        let words = StringArray::from_iter_values(words.iter().map(AsRef::as_ref));
        dictionary(self.keys.array(rows), words)
    }
}

/// IP addresses, in words.
#[derive(Debug, Default)]
pub(super) struct Ip {
    keys: Numbers<Int32Type>,
    known: FxHashMap<IpAddr, i32>,
    ips: Vec<IpAddr>,
}

impl Ip {
    /// Sets the value of `row`.
    pub(super) fn put(&mut self, row: usize, ip: IpAddr) {
        let Self { keys, known, ips } = self;
        let key = *known.entry(ip).or_insert_with(|| {
            ips.push(ip);
            i32::try_from(ips.len() - 1).unwrap_or(i32::MAX)
        });
        keys.put(row, key);
    }
}

impl Column for Ip {
    type Read = WordRead<IpAddr>;

    fn data_type() -> DataType {
        dictionary_type()
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.known.clear();
        let ips = std::mem::take(&mut self.ips);
        let words = StringArray::from_iter_values(ips.iter().map(IpAddr::to_string));
        dictionary(self.keys.array(rows), words)
    }
}

/// Words that were read, each made sense of once.
#[derive(Debug)]
pub(super) struct WordRead<T>(Option<(Int32Array, Vec<Option<T>>)>);

impl<T> WordRead<T> {
    /// The value of `row`; `None` also where the word makes no sense.
    pub(super) fn at(&self, row: usize) -> Option<&T> {
        let (keys, words) = self.0.as_ref()?;
        if keys.is_null(row) {
            return None;
        }
        let key = usize::try_from(keys.value(row)).ok()?;
        words.get(key)?.as_ref()
    }
}

/// What a word can mean.
pub(super) trait FromWord: Sized {
    /// What `word` means; `None` when it makes no sense.
    fn from_word(word: &str) -> Option<Self>;
}

impl FromWord for Arc<str> {
    fn from_word(word: &str) -> Option<Self> {
        Some(word.into())
    }
}

impl FromWord for IpAddr {
    fn from_word(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

impl<T: FromWord> Read for WordRead<T> {
    fn new(array: Option<&ArrayRef>) -> Self {
        let array = array.and_then(|array| array.as_dictionary_opt::<Int32Type>());
        let array = array.filter(|array| holds_any(*array));
        Self(array.and_then(|array| {
            let words = array.values().as_string_opt::<i32>()?;
            let words = words.iter().map(|word| T::from_word(word?)).collect();
            Some((array.keys().clone(), words))
        }))
    }
}

/// Declares a table: its columns in order, each with what it holds.
macro_rules! table {
    ($(#[doc = $about:literal])* $columns:ident, $read:ident {
        $(#[doc = $doc:literal] $name:ident: $kind:ty,)*
    }) => {
        table!($(#[doc = $about])* $columns { $(#[doc = $doc] $name: $kind,)* });
        table!(@read $read { $($name: $kind,)* });
    };
    ($(#[doc = $about:literal])* $columns:ident {
        $(#[doc = $doc:literal] $name:ident: $kind:ty,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Default)]
        pub(super) struct $columns {
            $(#[doc = $doc] pub(super) $name: $kind,)*
        }

        impl $columns {
            /// The columns, by name, with what they hold.
            pub(super) fn columns() -> Vec<(&'static str, arrow_schema::DataType, &'static str)> {
                vec![$((
                    stringify!($name),
                    <$kind as $crate::record::column::Column>::data_type(),
                    $doc.trim_ascii(),
                )),*]
            }

            /// What the file's schema says.
            pub(super) fn schema() -> arrow_schema::SchemaRef {
                let field = |(name, kind, _): (&str, arrow_schema::DataType, &str)| {
                    arrow_schema::Field::new(name, kind, true)
                };
                let fields: Vec<_> = Self::columns().into_iter().map(field).collect();
                std::sync::Arc::new(arrow_schema::Schema::new(fields))
            }

            /// What was put in since the last call, as `rows` rows.
            pub(super) fn finish(&mut self, rows: usize) -> arrow_array::RecordBatch {
                use $crate::record::column::Column as _;
                let columns = vec![$(self.$name.finish(rows)),*];
                arrow_array::RecordBatch::try_new(Self::schema(), columns)
                    .expect("each column was made by its own type, with as many rows")
            }
        }
    };
    (@read $read:ident { $($name:ident: $kind:ty,)* }) => {
        /// The same table, read.
        #[derive(Debug)]
        pub(super) struct $read {
            $(pub(super) $name: <$kind as $crate::record::column::Column>::Read,)*
        }

        impl $read {
            /// The columns of `batch`; one that is missing is void.
            pub(super) fn new(batch: &arrow_array::RecordBatch) -> Self {
                use $crate::record::column::Read as _;
                Self {
                    $($name: <$kind as $crate::record::column::Column>::Read::new(
                        batch.column_by_name(stringify!($name)),
                    ),)*
                }
            }
        }
    };
}
pub(super) use table;
