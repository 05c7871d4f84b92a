//! The GGUF file format (versions 2 and 3, little-endian), read over mapped bytes without copying tensors.
//!
//! A model file is hostile input: every count and length is checked against the bytes that are left before
//! anything is allocated, every tensor's extent against the file. Nothing here knows what a llama is.

mod reader;
mod types;
mod value;

use std::collections::BTreeMap;

use reader::Reader;
pub use types::TypeId;
pub use value::{Array, Value};

const MAGIC: &[u8] = b"GGUF";
/// The format's own default when `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u32 = 32;
/// A tensor of a known model has at most four dimensions; so does the format.
const DIMENSIONS_MAX: u32 = 4;
/// Metadata keys are below 64 bytes in practice; the format allows 65,535.
const NAME_BYTES_MAX: usize = 65_535;
/// A key-value pair takes at least 8 (length) + 1 (name) + 4 (type) + 1 (value) bytes.
const PAIR_BYTES_MIN: usize = 14;
/// A tensor entry takes at least 8 (length) + 1 (name) + 4 (count) + 8 (one dimension) + 4 (type) + 8 (offset).
const TENSOR_BYTES_MIN: usize = 33;

/// Why a file is not a usable GGUF file: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GgufError {
    #[error("not a GGUF file: it begins with {found:02x?}; give a model in GGUF format")]
    Magic { found: Vec<u8> },
    #[error("GGUF version {0} is not supported; convert the model to version 3")]
    Version(u32),
    #[error("the file is big-endian; convert the model to a little-endian GGUF file")]
    BigEndian,
    #[error("the file ends inside {what} at byte {at}; it is truncated, copy or download it again")]
    Truncated { what: String, at: usize },
    #[error(
        "{what} at byte {at} is {found}, more than the {most} that fit; the file is damaged, download it again"
    )]
    TooMany { what: String, at: usize, found: u64, most: u64 },
    #[error("{what} at byte {at}: {why}; the file is damaged or not made for this reader, download it again")]
    Invalid { what: String, at: usize, why: String },
    #[error(
        "tensor {name} takes bytes {start} to {end} of the data but the file has {have}; it is truncated, copy or download it again"
    )]
    Extent { name: String, start: u64, end: u64, have: u64 },
    #[error("the model file lacks {0}; use a complete model")]
    Missing(String),
    #[error("{key} in the model file is {found}, expected {expected}; use another conversion of the model")]
    Kind { key: String, found: &'static str, expected: &'static str },
}

/// A parsed header. Borrowed from the mapped file; tensors are slices of it.
#[derive(Debug)]
pub struct Gguf<'a> {
    pub version: u32,
    metadata: BTreeMap<&'a str, Value<'a>>,
    tensors: BTreeMap<&'a str, Tensor<'a>>,
}

/// One tensor: its shape as stored (fastest dimension first) and its bytes.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    pub type_id: TypeId,
    pub dimensions: Vec<u64>,
    /// Empty when the type is unknown to us, because then its size is unknown too.
    pub bytes: &'a [u8],
}

struct Entry<'a> {
    name: &'a str,
    type_id: TypeId,
    dimensions: Vec<u64>,
    offset: u64,
}

impl<'a> Gguf<'a> {
    /// Reads and checks the header and all extents.
    pub fn parse(file: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let mut reader = Reader::new(file);
        let version = read_version(&mut reader)?;
        let tensor_count = reader.count("the number of tensors", TENSOR_BYTES_MIN)?;
        let pair_count = reader.count("the number of metadata entries", PAIR_BYTES_MIN)?;
        let metadata = read_metadata(&mut reader, pair_count)?;
        let entries = read_entries(&mut reader, tensor_count)?;
        let alignment = alignment(&metadata)?;
        let start = reader.position().next_multiple_of(alignment).min(file.len());
        let tensors = place(entries, &file[start..], alignment)?;
        Ok(Gguf { version, metadata, tensors })
    }

    /// The value under `key`, if any.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key)
    }

    /// All metadata, ordered by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &Value<'a>)> {
        self.metadata.iter().map(|(key, value)| (*key, value))
    }

    /// All tensors, ordered by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&'a str, &Tensor<'a>)> {
        self.tensors.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// The tensor of that name, if any.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.get(name)
    }

    /// A text that must be there.
    pub fn text(&self, key: &str) -> Result<&'a str, GgufError> {
        self.required(key)?.text().ok_or_else(|| self.wrong_kind(key, "text"))
    }

    /// A whole number that must be there and fit.
    pub fn number(&self, key: &str) -> Result<u64, GgufError> {
        self.required(key)?.number().ok_or_else(|| self.wrong_kind(key, "a whole number"))
    }

    /// A whole number that may be absent.
    pub fn number_or(&self, key: &str, default: u64) -> Result<u64, GgufError> {
        if self.metadata.contains_key(key) { self.number(key) } else { Ok(default) }
    }

    /// A floating-point number that must be there.
    pub fn float(&self, key: &str) -> Result<f64, GgufError> {
        self.required(key)?.float().ok_or_else(|| self.wrong_kind(key, "a floating-point number"))
    }

    /// A floating-point number that may be absent.
    pub fn float_or(&self, key: &str, default: f64) -> Result<f64, GgufError> {
        if self.metadata.contains_key(key) { self.float(key) } else { Ok(default) }
    }

    /// A yes or no that may be absent.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, GgufError> {
        match self.metadata.get(key) {
            None => Ok(default),
            Some(value) => value.flag().ok_or_else(|| self.wrong_kind(key, "true or false")),
        }
    }

    /// A list of texts that must be there.
    pub fn texts(&self, key: &str) -> Result<&[&'a str], GgufError> {
        self.required(key)?.texts().ok_or_else(|| self.wrong_kind(key, "a list of texts"))
    }

    fn required(&self, key: &str) -> Result<&Value<'a>, GgufError> {
        self.metadata.get(key).ok_or_else(|| GgufError::Missing(key.to_owned()))
    }

    fn wrong_kind(&self, key: &str, expected: &'static str) -> GgufError {
        let found = self.metadata.get(key).map_or("absent", Value::kind);
        GgufError::Kind { key: key.to_owned(), found, expected }
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<u32, GgufError> {
    let magic = reader.take(MAGIC.len(), "the magic number")?;
    if magic != MAGIC {
        return Err(GgufError::Magic { found: magic.to_vec() });
    }
    match reader.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        swapped if matches!(swapped.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        other => Err(GgufError::Version(other)),
    }
}

fn read_metadata<'a>(
    reader: &mut Reader<'a>,
    count: usize,
) -> Result<BTreeMap<&'a str, Value<'a>>, GgufError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let at = reader.position();
        let key = reader.name("a metadata key", NAME_BYTES_MAX)?;
        let value = Value::read(reader, key)?;
        if metadata.insert(key, value).is_some() {
            return Err(invalid(key, at, "the key appears twice"));
        }
    }
    Ok(metadata)
}

fn read_entries<'a>(reader: &mut Reader<'a>, count: usize) -> Result<Vec<Entry<'a>>, GgufError> {
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(read_entry(reader)?);
    }
    Ok(entries)
}

fn read_entry<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, GgufError> {
    let name = reader.name("a tensor name", NAME_BYTES_MAX)?;
    let at = reader.position();
    let count = reader.u32("a tensor's number of dimensions")?;
    if !(1..=DIMENSIONS_MAX).contains(&count) {
        return Err(invalid(name, at, &format!("{count} dimensions, expected 1 to {DIMENSIONS_MAX}")));
    }
    let mut dimensions = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let dimension = reader.u64("a tensor's dimension")?;
        if dimension == 0 {
            return Err(invalid(name, at, "a dimension of 0"));
        }
        dimensions.push(dimension);
    }
    let type_id = TypeId(reader.u32("a tensor's type")?);
    let offset = reader.u64("a tensor's offset")?;
    Ok(Entry { name, type_id, dimensions, offset })
}

fn alignment(metadata: &BTreeMap<&str, Value<'_>>) -> Result<usize, GgufError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT as usize) };
    match value.number() {
        Some(bytes) if bytes.is_power_of_two() && bytes <= 1 << 20 => Ok(bytes as usize),
        _ => Err(invalid("general.alignment", 0, "expected a power of two up to 1 MiB")),
    }
}

fn place<'a>(
    entries: Vec<Entry<'a>>,
    data: &'a [u8],
    alignment: usize,
) -> Result<BTreeMap<&'a str, Tensor<'a>>, GgufError> {
    let mut tensors = BTreeMap::new();
    for entry in entries {
        if !entry.offset.is_multiple_of(alignment as u64) {
            let why = format!("offset {} is not a multiple of {alignment}", entry.offset);
            return Err(invalid(entry.name, 0, &why));
        }
        let bytes = extent(&entry, data)?;
        let name = entry.name;
        let tensor = Tensor { type_id: entry.type_id, dimensions: entry.dimensions, bytes };
        if tensors.insert(name, tensor).is_some() {
            return Err(invalid(name, 0, "the tensor appears twice"));
        }
    }
    Ok(tensors)
}

/// The bytes of one tensor, checked against its rows, the arithmetic and the file.
fn extent<'a>(entry: &Entry<'_>, data: &'a [u8]) -> Result<&'a [u8], GgufError> {
    let Some(layout) = entry.type_id.layout() else { return Ok(&[]) };
    let row = entry.dimensions[0];
    if !row.is_multiple_of(layout.block_len) {
        let why = format!("rows of {row} values, not a multiple of {}'s {}", entry.type_id, layout.block_len);
        return Err(invalid(entry.name, 0, &why));
    }
    let rows =
        entry.dimensions[1..].iter().try_fold(1_u64, |product, &dimension| product.checked_mul(dimension));
    let size = rows
        .and_then(|rows| rows.checked_mul(row / layout.block_len))
        .and_then(|blocks| blocks.checked_mul(layout.block_bytes));
    let end = size.and_then(|size| entry.offset.checked_add(size));
    match end {
        None => Err(invalid(entry.name, 0, "its size is beyond 64 bits")),
        Some(end) if end > data.len() as u64 => Err(GgufError::Extent {
            name: entry.name.to_owned(),
            start: entry.offset,
            end,
            have: data.len() as u64,
        }),
        Some(end) => Ok(&data[entry.offset as usize..end as usize]),
    }
}

fn invalid(what: &str, at: usize, why: &str) -> GgufError {
    GgufError::Invalid { what: what.to_owned(), at, why: why.to_owned() }
}

#[cfg(test)]
#[path = "gguf/gguf_test.rs"]
pub(crate) mod gguf_test;
