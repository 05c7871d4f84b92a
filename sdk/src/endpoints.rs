//! Where the cluster is: any node will do, so a list of them, tried in turn.

use crate::error::{Code, Error};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The port of clients and admins.
pub(crate) const DEFAULT_PORT: u16 = 7400;
/// A machine that is off answers nothing at all; the next one should be tried soon.
const CONNECT: Duration = Duration::from_secs(2);
/// A frozen process keeps its connections open; only an unanswered ping tells.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Endpoints {
    nodes: Vec<Node>,
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    address: String,
    endpoint: Endpoint,
    channel: OnceLock<Channel>,
}

impl Endpoints {
    /// Reads addresses like `host:7400`, `host`, or `http://host:7400`. Opens nothing.
    pub(crate) fn parse<S: AsRef<str>>(addresses: &[S]) -> Result<Endpoints, Error> {
        let given = addresses.iter().map(|a| a.as_ref().trim()).filter(|a| !a.is_empty());
        let nodes = given.map(parse_one).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(Error::local(
                Code::InvalidArgument,
                "NO_ENDPOINT",
                "no endpoint is given",
                "name at least one node, like 127.0.0.1:7400",
            ));
        }
        Ok(Endpoints { nodes, preferred: AtomicUsize::new(0) })
    }

    /// The node to ask now, with its channel. Must be called inside a tokio runtime.
    pub(crate) fn pick(&self) -> (usize, Channel) {
        let index = self.preferred.load(Ordering::Relaxed) % self.nodes.len();
        (index, self.channel(index))
    }

    /// The first node of the list, for the verbs that must not wander.
    pub(crate) fn first(&self) -> (usize, Channel) {
        (0, self.channel(0))
    }

    /// Moves on from a node that failed, unless another call has done so already.
    pub(crate) fn failed(&self, index: usize) {
        let next = (index + 1) % self.nodes.len();
        let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn address(&self, index: usize) -> &str {
        &self.nodes[index].address
    }

    /// All addresses, for messages.
    pub(crate) fn names(&self) -> String {
        self.nodes.iter().map(|n| n.address.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn channel(&self, index: usize) -> Channel {
        let node = &self.nodes[index];
        node.channel.get_or_init(|| node.endpoint.connect_lazy()).clone()
    }
}

fn parse_one(text: &str) -> Result<Node, Error> {
    let refuse = |why: &str| {
        let message = format!("the endpoint {text:?} {why}");
        Error::local(Code::InvalidArgument, "BAD_ENDPOINT", message, "write it like 127.0.0.1:7400")
    };
    if text.starts_with("https://") {
        return Err(refuse("asks for TLS, which this version does not speak"));
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let authority: http::uri::Authority = bare.parse().map_err(|_| refuse("is not host:port"))?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(refuse("is not host:port"));
    }
    let says_port = authority.as_str().len() > authority.host().len();
    if says_port && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(refuse("has no such port"));
    }
    let address = match authority.port_u16() {
        Some(_) => authority.to_string(),
        None => format!("{}:{DEFAULT_PORT}", authority.host()),
    };
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|_| refuse("is not host:port"))?;
    Ok(Node { address, endpoint: tuned(endpoint), channel: OnceLock::new() })
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_default_port() {
        let nodes = Endpoints::parse(&["a", " b:7500 ", "http://c:1/", "[::1]", ""]).unwrap();
        assert_eq!(nodes.names(), "a:7400, b:7500, c:1, [::1]:7400");
    }

    #[test]
    fn bad_addresses_are_refused_with_a_next_step() {
        for bad in ["https://a", "a b", "a:x", "a:99999", "a:0", "http://", "u@a:1", "a/b"] {
            let error = Endpoints::parse(&[bad]).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{bad}");
            assert!(error.message.contains(bad) && error.next.is_some(), "{error:?}");
        }
        assert_eq!(Endpoints::parse::<&str>(&[]).unwrap_err().reason, "NO_ENDPOINT");
    }

    #[test]
    fn a_failure_moves_on_once() {
        let nodes = Endpoints::parse(&["a", "b", "c"]).unwrap();
        nodes.failed(0);
        nodes.failed(0);
        assert_eq!(nodes.preferred.load(Ordering::Relaxed), 1);
    }
}
