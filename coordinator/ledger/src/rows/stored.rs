//! A task's row as it is stored: an array with each field at its number, as if it had no rare part.

use super::{Seldom, TaskRow};
use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

/// [`Seldom`], without room for it where every field is empty.
#[derive(Clone, Default)]
pub struct Rare(Option<Box<Seldom>>);

static NOTHING: LazyLock<Seldom> = LazyLock::new(Seldom::default);

impl Rare {
    /// Gives the room back when nothing is left in it.
    pub(crate) fn tidy(&mut self) {
        self.0.take_if(|seldom| **seldom == *NOTHING);
    }
}

impl From<Seldom> for Rare {
    fn from(seldom: Seldom) -> Rare {
        Rare((seldom != *NOTHING).then(|| Box::new(seldom)))
    }
}

impl Deref for Rare {
    type Target = Seldom;

    fn deref(&self) -> &Seldom {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Rare {
    fn deref_mut(&mut self) -> &mut Seldom {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Rare {
    fn eq(&self, other: &Rare) -> bool {
        **self == **other
    }
}

impl Eq for Rare {}

impl std::fmt::Debug for Rare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl Deref for TaskRow {
    type Target = Seldom;

    fn deref(&self) -> &Seldom {
        &self.rare
    }
}

impl DerefMut for TaskRow {
    fn deref_mut(&mut self) -> &mut Seldom {
        &mut self.rare
    }
}

/// Calls `$each!` with the fields in the order of their numbers, which begin at 0 and have no gap. A new field comes
/// last.
macro_rules! in_order {
    ($each:ident, $($given:tt)*) => {
        $each!($($given)*;
            uid project task_id agent kind model revision definition background inputs
            labels class priority author created_ms ended_ms deadline_ms state reason node
            epoch home step head sequence spent reserved_tokens wanted_tokens result result_bytes
            error origin depth children children_open request_id body queued_ms last_epoch keepers
            settled_tokens unaware held settled want needs charged yield_by_ms not_before_ms after
            lease_units talk aside fork together route)
    };
}

/// How many fields to write: empty ones at the end are left out.
macro_rules! count {
    ($row:expr, $c:ty; $($field:ident)*) => {{
        let (mut number, mut used) = (0, 0);
        $(
            number += 1;
            if !Encode::<$c>::is_nil(&$row.$field) {
                used = number;
            }
        )*
        used
    }};
}

macro_rules! write_all {
    ($row:expr, $used:expr, $out:expr, $c:expr; $($field:ident)*) => {{
        let mut left = $used;
        $(
            if left > 0 {
                $out.encode_with(&$row.$field, $c)?;
                left -= 1;
            }
        )*
        let _: u64 = left;
    }};
}

macro_rules! read_all {
    ($row:expr, $from:expr; $($field:ident)*) => {
        $($row.$field = $from.field(stringify!($field))?;)*
    };
}

impl<C> Encode<C> for TaskRow {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        let used: u64 = in_order!(count, self, C);
        e.array(used)?;
        in_order!(write_all, self, used, e, c);
        Ok(())
    }
}

/// The fields of a stored row, one after the other.
struct Fields<'f, 'b, C> {
    from: &'f mut Decoder<'b>,
    context: &'f mut C,
    left: u64,
}

impl<'b, C> Fields<'_, 'b, C> {
    /// The next field; past the last one those are empty that may be.
    fn field<T: Decode<'b, C>>(&mut self, name: &str) -> Result<T, Error> {
        if self.left > 0 {
            self.left -= 1;
            return self.from.decode_with(self.context);
        }
        T::nil().ok_or_else(|| Error::message(format!("a task without {name}")))
    }
}

impl<'b, C> Decode<'b, C> for TaskRow {
    fn decode(from: &mut Decoder<'b>, context: &mut C) -> Result<Self, Error> {
        let left = from.array()?.ok_or_else(|| Error::message("a task has a known number of fields"))?;
        let mut fields = Fields { from, context, left };
        let mut row = TaskRow::empty();
        in_order!(read_all, row, fields);
        // Fields of a later version that a reader of this one may miss.
        (0..fields.left).try_for_each(|_| fields.from.skip())?;
        row.rare.tidy();
        Ok(row)
    }
}
