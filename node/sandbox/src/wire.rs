//! What the caller and the stages say to each other: frames of CBOR over a stream socket.
//!
//! Both ends are the same program, so the form has no versions. What comes from inside is still read as a
//! stranger's: a frame has a size limit, and `files` checks paths and amounts.

use crate::cgroup::OWN_PIDS;
use crate::report::Layer;
use crate::spec::{Limits, Spec};
use minicbor::{Decode, Encode};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

/// A piece of a file with its path, and the longest command with its environment, fit well.
const FRAME_BYTES: usize = 1 << 20;
/// One piece of a file or of stdin.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// To the stages.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Order {
    #[n(0)]
    Plan(#[n(0)] Plan),
    /// Something of the folder.
    #[n(1)]
    Entry(#[n(0)] Entry),
    #[n(2)]
    FolderEnd,
    #[n(3)]
    Stdin(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(4)]
    StdinEnd,
    /// Run it now.
    #[n(5)]
    Start,
    /// Ask everything inside to end.
    #[n(6)]
    Terminate,
}

/// From the stages.
#[derive(Debug, Encode, Decode)]
pub(crate) enum News {
    /// A name, whether it holds, how or why not.
    #[n(0)]
    Layer(#[n(0)] String, #[n(1)] bool, #[n(2)] String),
    /// All layers are named; waiting for `Start`.
    #[n(1)]
    Guarded,
    #[n(2)]
    Started,
    /// No command was run, and why.
    #[n(3)]
    Failed(#[n(0)] String),
    #[n(4)]
    Ended(#[n(0)] Summary),
    #[n(5)]
    Changed(#[n(0)] Entry),
    #[n(6)]
    Gone(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(7)]
    Refused(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>, #[n(1)] String),
    #[n(8)]
    Done,
}

/// How the command ended, seen by process 1 inside.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub(crate) struct Summary {
    #[n(0)]
    pub(crate) code: Option<i32>,
    #[n(1)]
    pub(crate) signal: Option<i32>,
    #[n(2)]
    pub(crate) cpu_ms: u64,
    #[n(3)]
    pub(crate) disk_bytes: u64,
    /// Set where no cgroup holds memory: the most that was seen, and whether it was over the limit.
    #[n(4)]
    pub(crate) seen_memory_bytes: Option<u64>,
    #[n(5)]
    pub(crate) over_memory: bool,
}

#[derive(Debug, Encode, Decode)]
pub(crate) enum Entry {
    #[n(0)]
    Folder {
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        #[n(1)]
        mode: u32,
    },
    #[n(1)]
    Piece(#[n(0)] Piece),
    #[n(2)]
    Link {
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        #[cbor(n(1), with = "minicbor::bytes")]
        target: Vec<u8>,
    },
}

/// A part of a file; the one at offset 0 makes it, and comes for an empty file, too.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Piece {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) path: Vec<u8>,
    #[n(1)]
    pub(crate) mode: u32,
    #[n(2)]
    pub(crate) offset: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) bytes: Vec<u8>,
    /// When the file was changed last: programs that build look at it.
    #[n(4)]
    pub(crate) modified_s: i64,
    #[n(5)]
    pub(crate) modified_ns: i64,
}

/// What the stages need of a spec.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Plan {
    #[n(0)]
    pub(crate) command: Vec<String>,
    #[n(1)]
    pub(crate) env: Vec<(String, String)>,
    /// Raw paths.
    #[n(2)]
    pub(crate) readable: Vec<Vec<u8>>,
    #[n(3)]
    pub(crate) memory_bytes: u64,
    /// With the stages.
    #[n(4)]
    pub(crate) pids: u32,
    #[n(5)]
    pub(crate) disk_bytes: u64,
    #[n(6)]
    pub(crate) cpu_seconds: u64,
    #[n(7)]
    pub(crate) grace_ms: u64,
    /// No cgroup counts memory: process 1 has to look.
    #[n(8)]
    pub(crate) watch_memory: bool,
}

impl Plan {
    pub(crate) fn of(spec: &Spec, counts_memory: bool, counts_pids: bool) -> Self {
        let Limits { wall_ms, grace_ms, cpu_milli, memory_bytes, pids, disk_bytes, output_bytes: _ } =
            spec.limits;
        Plan {
            command: spec.command.clone(),
            env: spec.env.clone(),
            readable: spec.readable.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
            memory_bytes,
            // Where a cgroup counts, too, it must be the first to refuse: it says that it did.
            pids: pids.saturating_add(if counts_pids { 2 * OWN_PIDS } else { OWN_PIDS }),
            disk_bytes,
            // One process can't use more than its whole share over the whole time.
            cpu_seconds: (wall_ms + grace_ms).saturating_mul(u64::from(cpu_milli)).div_ceil(1_000_000) + 1,
            grace_ms,
            watch_memory: !counts_memory,
        }
    }
}

impl From<Layer> for News {
    fn from(layer: Layer) -> Self {
        News::Layer(layer.name, layer.enforced, layer.note)
    }
}

/// Writes one frame.
pub(crate) fn send<T: Encode<()>>(mut to: impl Write, message: &T) -> io::Result<()> {
    let body = minicbor::to_vec(message).map_err(io::Error::other)?;
    let mut frame = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    frame.extend(body);
    to.write_all(&frame)
}

/// Reads one frame, and not a byte more: what follows may be another stage's.
pub(crate) fn receive<T: for<'b> Decode<'b, ()>>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES {
        return Err(io::Error::other(format!("a frame of {length} bytes, more than {FRAME_BYTES}")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    minicbor::decode(&body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_one_by_one() {
        let mut bytes = Vec::new();
        send(&mut bytes, &News::Failed("no".into())).expect("send");
        send(&mut bytes, &News::Done).expect("send");
        let mut from = bytes.as_slice();
        assert!(matches!(receive(&mut from), Ok(News::Failed(why)) if why == "no"));
        assert!(matches!(receive(&mut from), Ok(News::Done)));
        assert!(receive::<News>(&mut from).is_err());
    }

    #[test]
    fn a_length_is_not_believed() {
        let error = receive::<News>(&[0xff; 16][..]).expect_err("too long");
        assert!(error.to_string().contains("more than"), "{error}");
    }
}
