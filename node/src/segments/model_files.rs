//! Model files over the wire. Files are read and written on blocking threads, a few chunks ahead.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use proto::internal::v1::ModelChunk;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;
use types::{Hash, limits::CHUNK_BYTES};

use super::status;
use crate::models::{ModelError, ModelFile, ModelStore};

const CHUNKS_AHEAD: usize = 4;

type Chunks = mpsc::Receiver<Result<ModelChunk, Status>>;

/// Streams the model of a digest.
pub(super) async fn read(
    models: ModelStore,
    digest: Hash,
    place: OwnedSemaphorePermit,
) -> Result<Chunks, Status> {
    let found = tokio::task::spawn_blocking(move || models.find(digest)).await;
    let found = found.map_err(|e| Status::internal(e.to_string()))?.map_err(status::from_model)?;
    let Some(model) = found else {
        return Err(Status::not_found(format!("no model with digest {digest} is on this node")));
    };
    let (out, chunks) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        if let Err(error) = send(&model, &out) {
            let what = format!("cannot read {}: {error}", model.path.display());
            let _receiver_gone = out.blocking_send(Err(Status::unavailable(what)));
        }
    });
    Ok(chunks)
}

fn send(model: &ModelFile, out: &mpsc::Sender<Result<ModelChunk, Status>>) -> io::Result<()> {
    let mut file = File::open(&model.path)?;
    let mut offset = 0;
    while offset < model.bytes {
        let length = CHUNK_BYTES.min(usize::try_from(model.bytes - offset).unwrap_or(CHUNK_BYTES));
        let mut data = vec![0; length];
        file.read_exact(&mut data)?;
        let chunk = ModelChunk { offset, total: model.bytes, data: Bytes::from(data) };
        if out.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
        offset += length as u64;
    }
    Ok(())
}

/// Writes a model from pieces that are handed over in order; the file is checked when the sender closes.
pub(super) struct Receiving {
    pieces: mpsc::Sender<Bytes>,
    done: tokio::task::JoinHandle<Result<ModelFile, ModelError>>,
}

impl Receiving {
    pub(super) fn start(models: ModelStore, name: &str, digest: Hash) -> Receiving {
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
        let name = name.to_string();
        let done = tokio::task::spawn_blocking(move || {
            let mut incoming = models.incoming(&name)?;
            while let Some(piece) = waiting.blocking_recv() {
                incoming.write(&piece)?;
            }
            incoming.finish(digest)
        });
        Receiving { pieces, done }
    }

    /// Hands over the next piece. False when writing has failed: [`Receiving::finish`] says why.
    pub(super) async fn write(&self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    pub(super) async fn finish(self) -> Result<ModelFile, String> {
        drop(self.pieces);
        match self.done.await {
            Ok(finished) => finished.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }
}
