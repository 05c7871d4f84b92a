//! CBOR for ids and hashes: numbers stay numbers, hashes are byte strings of 32.

use crate::{ClusterId, Epoch, Hash, NodeId, ProjectName, TaskUid};
use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder, Write};

impl<C> minicbor::Encode<C> for Hash {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Hash {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        let bytes = d.bytes()?;
        Ok(Hash(bytes.try_into().map_err(|_| Error::message("a hash has 32 bytes"))?))
    }
}

macro_rules! number {
    ($name:ident, $int:ty) => {
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
                self.0.encode(e, c)
            }
        }
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, Error> {
                Ok($name(<$int>::decode(d, c)?))
            }
        }
    };
}
number!(NodeId, u64);

impl<C> minicbor::Encode<C> for ClusterId {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for ClusterId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        Ok(ClusterId(d.bytes()?.try_into().map_err(|_| Error::message("a cluster id has 16 bytes"))?))
    }
}

impl<C> minicbor::Encode<C> for ProjectName {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for ProjectName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        ProjectName::parse(d.str()?).map_err(Error::message)
    }
}

impl<C> minicbor::Encode<C> for Epoch {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(3)?.u32(self.incarnation)?.u64(self.index)?.u32(self.position)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Epoch {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        expect_array(d, 3)?;
        Ok(Epoch { incarnation: d.u32()?, index: d.u64()?, position: d.u32()? })
    }
}

impl<C> minicbor::Encode<C> for TaskUid {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.u64(self.index)?.u32(self.position)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for TaskUid {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        expect_array(d, 2)?;
        Ok(TaskUid { index: d.u64()?, position: d.u32()? })
    }
}

fn expect_array(d: &mut Decoder<'_>, length: u64) -> Result<(), Error> {
    match d.array()? {
        Some(n) if n == length => Ok(()),
        _ => Err(Error::message("array of the wrong length")),
    }
}
