//! Metadata values, typed. Lists of numbers stay bytes in the file; lists of texts become slices of it.

use super::{GgufError, invalid, reader::Reader};

/// How deep lists may nest; real files don't nest at all.
const NESTING_MAX: usize = 4;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Whole numbers of every width that are not negative.
    Unsigned(u64),
    /// Whole numbers stored as signed and negative.
    Negative(i64),
    Float(f64),
    Flag(bool),
    Text(&'a str),
    Array(Array<'a>),
}

/// A list of one kind of value.
#[derive(Debug, Clone, PartialEq)]
pub enum Array<'a> {
    /// Scalars, still encoded: the scalar's type number and its bytes.
    Scalars {
        kind: u32,
        bytes: &'a [u8],
    },
    Texts(Vec<&'a str>),
    Nested(Vec<Array<'a>>),
}

const KIND_TEXT: u32 = 8;
const KIND_ARRAY: u32 = 9;

/// Bytes of one scalar of that type number; None when it is not a scalar.
fn scalar_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

impl<'a> Value<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, key: &str) -> Result<Value<'a>, GgufError> {
        let at = reader.position();
        match reader.u32(key)? {
            KIND_TEXT => reader.text(key).map(Value::Text),
            KIND_ARRAY => Array::read(reader, key, 0).map(Value::Array),
            kind => match scalar_bytes(kind) {
                Some(len) => scalar(kind, reader.take(len, key)?, key, at),
                None => Err(invalid(key, at, &format!("unknown value type {kind}"))),
            },
        }
    }

    pub fn text(&self) -> Option<&'a str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    pub fn number(&self) -> Option<u64> {
        if let Value::Unsigned(number) = self { Some(*number) } else { None }
    }

    pub fn float(&self) -> Option<f64> {
        if let Value::Float(number) = self { Some(*number) } else { None }
    }

    pub fn flag(&self) -> Option<bool> {
        if let Value::Flag(flag) = self { Some(*flag) } else { None }
    }

    pub fn texts(&self) -> Option<&[&'a str]> {
        if let Value::Array(Array::Texts(texts)) = self { Some(texts) } else { None }
    }

    /// A list of scalars as whole numbers; None when it is no such list or holds others.
    pub fn numbers(&self) -> Option<Vec<u64>> {
        let Value::Array(Array::Scalars { kind, bytes }) = self else { return None };
        let len = scalar_bytes(*kind)?;
        bytes.chunks_exact(len).map(|bytes| scalar(*kind, bytes, "", 0).ok()?.number()).collect()
    }

    /// A list of yes and no, which some writers store as numbers; None when it is no such list.
    pub fn flags(&self) -> Option<Vec<bool>> {
        let Value::Array(Array::Scalars { kind, bytes }) = self else { return None };
        let len = scalar_bytes(*kind)?;
        let flag = |bytes| match scalar(*kind, bytes, "", 0).ok()? {
            Value::Flag(flag) => Some(flag),
            value => value.number().map(|number| number != 0),
        };
        bytes.chunks_exact(len).map(flag).collect()
    }

    /// What it is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Unsigned(_) => "a whole number",
            Value::Negative(_) => "a negative number",
            Value::Float(_) => "a floating-point number",
            Value::Flag(_) => "true or false",
            Value::Text(_) => "text",
            Value::Array(Array::Scalars { .. }) => "a list of numbers",
            Value::Array(Array::Texts(_)) => "a list of texts",
            Value::Array(Array::Nested(_)) => "a list of lists",
        }
    }
}

impl<'a> Array<'a> {
    fn read(reader: &mut Reader<'a>, key: &str, depth: usize) -> Result<Array<'a>, GgufError> {
        let at = reader.position();
        let kind = reader.u32(key)?;
        if let Some(each) = scalar_bytes(kind) {
            let count = reader.count(key, each)?;
            return Ok(Array::Scalars { kind, bytes: reader.take(count * each, key)? });
        }
        match kind {
            KIND_TEXT => Array::read_texts(reader, key),
            KIND_ARRAY if depth < NESTING_MAX => Array::read_nested(reader, key, depth),
            KIND_ARRAY => Err(invalid(key, at, "lists are nested too deeply")),
            _ => Err(invalid(key, at, &format!("unknown list type {kind}"))),
        }
    }

    fn read_texts(reader: &mut Reader<'a>, key: &str) -> Result<Array<'a>, GgufError> {
        let count = reader.count(key, 8)?;
        let texts = (0..count).map(|_| reader.text(key)).collect::<Result<_, _>>()?;
        Ok(Array::Texts(texts))
    }

    fn read_nested(reader: &mut Reader<'a>, key: &str, depth: usize) -> Result<Array<'a>, GgufError> {
        let count = reader.count(key, 12)?;
        let lists = (0..count).map(|_| Array::read(reader, key, depth + 1)).collect::<Result<_, _>>()?;
        Ok(Array::Nested(lists))
    }
}

fn scalar<'a>(kind: u32, bytes: &[u8], key: &str, at: usize) -> Result<Value<'a>, GgufError> {
    let mut wide = [0_u8; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    Ok(match kind {
        0 | 2 | 4 | 10 => Value::Unsigned(unsigned),
        1 => signed(i64::from(unsigned as u8 as i8)),
        3 => signed(i64::from(unsigned as u16 as i16)),
        5 => signed(i64::from(unsigned as u32 as i32)),
        11 => signed(unsigned as i64),
        6 => Value::Float(f64::from(f32::from_bits(unsigned as u32))),
        12 => Value::Float(f64::from_bits(unsigned)),
        7 if unsigned <= 1 => Value::Flag(unsigned == 1),
        7 => return Err(invalid(key, at, &format!("{unsigned} where 0 or 1 is allowed"))),
        _ => return Err(invalid(key, at, &format!("unknown value type {kind}"))),
    })
}

fn signed<'a>(number: i64) -> Value<'a> {
    u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned)
}
