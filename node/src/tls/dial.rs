//! The asking end: connections to other nodes, each with what is in force when it begins.

use super::Tls;
use crate::segments;
use coordinator::raft;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// Dials nodes: with TLS where this node has it, else in clear.
#[derive(Clone)]
pub(crate) struct NodeDialer {
    tls: Option<Tls>,
}

impl NodeDialer {
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        NodeDialer { tls }
    }

    fn connect(&self, endpoint: &Endpoint) -> Channel {
        let Some(tls) = self.tls.clone() else { return endpoint.connect_lazy() };
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| reach(tls.clone(), uri)))
    }
}

impl raft::Dialer for NodeDialer {
    fn channel(&self, address: &str) -> Result<Channel, String> {
        raft::endpoint(address).map(|endpoint| self.connect(&endpoint))
    }
}

impl segments::Dial for NodeDialer {
    fn dial(&self, address: &str) -> Result<Channel, String> {
        segments::endpoint(address).map(|endpoint| self.connect(&endpoint))
    }
}

async fn reach(tls: Tls, uri: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
    let host = host.trim_matches(['[', ']']).to_string();
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connector = TlsConnector::from(tls.in_force().dial.clone());
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}
