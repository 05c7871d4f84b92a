//! Opening the stream: tonic in production, a channel in tests.

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use proto::internal::v1::link_client::LinkClient;
use proto::internal::v1::{LeaderMessage, NodeMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use types::limits;

/// Messages of the leader; an error, or the end, is the end of the stream.
pub type Inbound = BoxStream<'static, Result<LeaderMessage, String>>;

/// Opens the stream to a leader.
pub trait Dial: Send + Sync + 'static {
    /// `address` is `host:port` of the internal plane. What is in `outbound` already is sent first.
    fn attach(
        &self,
        address: &str,
        outbound: mpsc::Receiver<NodeMessage>,
    ) -> BoxFuture<'static, Result<Inbound, String>>;
}

/// Over gRPC, on whatever channel the given function makes for an address.
pub struct GrpcDial<F>(pub F);

impl<F> Dial for GrpcDial<F>
where
    F: Fn(&str) -> Result<Channel, String> + Send + Sync + 'static,
{
    fn attach(
        &self,
        address: &str,
        outbound: mpsc::Receiver<NodeMessage>,
    ) -> BoxFuture<'static, Result<Inbound, String>> {
        let channel = (self.0)(address);
        Box::pin(async move {
            // A full set of a big node is larger than one chunk; nothing else is.
            let mut client = LinkClient::new(channel?).max_decoding_message_size(16 * limits::CHUNK_BYTES);
            let stream =
                client.attach(ReceiverStream::new(outbound)).await.map_err(|status| status.to_string())?;
            Ok(stream.into_inner().map(|message| message.map_err(|status| status.to_string())).boxed())
        })
    }
}
