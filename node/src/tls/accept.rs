//! The listening end: connections as they come, each with who is at the other side. With TLS a connection counts when
//! its handshake is done, so that a silent one holds up nobody.

use super::certificate::{Certificate, Who};
use super::{InForce, Tls};
use crate::identity::Identity;
use crate::security::now_s;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

/// A handshake is two round trips; whoever takes longer is not there, or holds a place on purpose.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at the same time; further connections wait in the listener's queue.
const HANDSHAKES: usize = 256;
/// Connections that wait to be served.
const QUEUE: usize = 16;
/// After the system refused a connection, for want of file descriptors as a rule.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Which port: they ask for different certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Between nodes: nobody else gets through the handshake.
    Internal,
    Clients,
    Http,
}

/// Who is at the other side.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// What a client's certificate says.
    pub(crate) certified: Option<Identity>,
}

impl Peer {
    pub(crate) fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// A connection.
pub(crate) struct Conn {
    io: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    pub(crate) peer: Peer,
}

pub(crate) type Incoming = ReceiverStream<io::Result<Conn>>;

/// Accepts until the receiving side is dropped.
pub(crate) fn incoming(listener: TcpListener, tls: Option<Tls>, port: Port) -> Incoming {
    let (out, connections) = mpsc::channel(QUEUE);
    tokio::spawn(accept(listener, tls, port, out));
    ReceiverStream::new(connections)
}

type Out = mpsc::Sender<io::Result<Conn>>;

async fn accept(listener: TcpListener, tls: Option<Tls>, port: Port, out: Out) {
    let (places, refusals) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::<Refusals>::default());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = out.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        // Without it every small answer would wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        match &tls {
            None => {
                let peer = Peer { address, certified: None };
                if out.send(Ok(Conn { io: Either::Left(stream), peer })).await.is_err() {
                    return;
                }
            }
            Some(tls) => {
                let (tls, out, refusals) = (tls.in_force(), out.clone(), refusals.clone());
                tokio::spawn(async move {
                    greet(stream, address, tls.config(port), out, refusals).await;
                    drop(place);
                });
            }
        }
    }
}

/// Strangers decide how often they are refused, but not how much is logged about it.
#[derive(Default)]
struct Refusals {
    told_s: AtomicI64,
    untold: AtomicU64,
}

impl Refusals {
    fn tell(&self, address: SocketAddr, why: &dyn std::fmt::Display) {
        let now_s = now_s();
        if self.told_s.swap(now_s, Ordering::Relaxed) == now_s {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let others = self.untold.swap(0, Ordering::Relaxed);
        tracing::info!(%address, %why, others, "a connection was refused");
    }
}

async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    out: Out,
    refusals: Arc<Refusals>,
) {
    let handshake = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
    match handshake {
        Ok(Ok(stream)) => {
            let peer = Peer { address, certified: certified(&stream) };
            let _ = out.send(Ok(Conn { io: Either::Right(Box::new(stream)), peer })).await;
        }
        Ok(Err(error)) => refusals.tell(address, &error),
        Err(_) => refusals.tell(address, &"no handshake within 5 s"),
    }
}

/// The handshake has verified the certificate; here it is only read.
fn certified(stream: &TlsStream<TcpStream>) -> Option<Identity> {
    let shown = stream.get_ref().1.peer_certificates()?.first()?;
    match Certificate::read(shown).ok()?.who? {
        Who::Client { identity, .. } => Some(identity),
        Who::Node { .. } => None,
    }
}

impl InForce {
    fn config(&self, port: Port) -> Arc<ServerConfig> {
        match port {
            Port::Internal => self.internal.clone(),
            Port::Clients => self.clients.clone(),
            Port::Http => self.http.clone(),
        }
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
