//! Where the cluster is: any node will do, so a list of them, tried in turn.

use crate::credentials::{Bearer, Credentials};
use crate::error::{Code, Error};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// A connection that carries the caller's key.
pub(crate) type Way = InterceptedService<Channel, Bearer>;

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
    bearer: Bearer,
    pub(crate) tls: bool,
}

#[derive(Debug)]
struct Node {
    address: String,
    endpoint: Endpoint,
    channel: OnceLock<Channel>,
}

impl Endpoints {
    /// Reads addresses like `host:7400`, `host`, `https://host:7400` or `http://host:7400`. Opens nothing.
    pub(crate) fn parse<S: AsRef<str>>(
        addresses: &[S],
        credentials: &Credentials,
    ) -> Result<Endpoints, Error> {
        let given = addresses.iter().map(|a| a.as_ref().trim()).filter(|a| !a.is_empty());
        let nodes = given.map(|text| parse_one(text, credentials)).collect::<Result<Vec<_>, _>>()?;
        credentials.check()?;
        if nodes.is_empty() {
            return Err(Error::local(
                Code::InvalidArgument,
                "NO_ENDPOINT",
                "no endpoint is given",
                "name at least one node, like 127.0.0.1:7400",
            ));
        }
        Ok(Endpoints {
            nodes,
            preferred: AtomicUsize::new(0),
            bearer: credentials.bearer()?,
            tls: credentials.tls().is_some(),
        })
    }

    /// The node to ask now, with its channel. Must be called inside a tokio runtime.
    pub(crate) fn pick(&self) -> (usize, Way) {
        let index = self.preferred.load(Ordering::Relaxed) % self.nodes.len();
        (index, self.channel(index))
    }

    /// The first node of the list, for the verbs that must not wander.
    pub(crate) fn first(&self) -> (usize, Way) {
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

    fn channel(&self, index: usize) -> Way {
        let node = &self.nodes[index];
        let channel = node.channel.get_or_init(|| node.endpoint.connect_lazy()).clone();
        InterceptedService::new(channel, self.bearer.clone())
    }
}

fn parse_one(text: &str, credentials: &Credentials) -> Result<Node, Error> {
    let refuse = |why: &str| {
        let message = format!("the endpoint {text:?} {why}");
        Error::local(Code::InvalidArgument, "BAD_ENDPOINT", message, "write it like 127.0.0.1:7400")
    };
    let (tls, plain) = (credentials.tls(), text.starts_with("http://"));
    if plain && (tls.is_some() || credentials.needs_tls()) {
        return Err(refuse("asks for a connection in clear, and a CA or a certificate is given"));
    }
    if tls.is_none() && (text.starts_with("https://") || credentials.needs_tls()) {
        return Err(refuse("needs the cluster's CA: give --ca or QUORATE_CA"));
    }
    let bare = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let bare = bare.trim_end_matches('/');
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
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint =
        Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|_| refuse("is not host:port"))?;
    let endpoint = match tls {
        Some(tls) => tuned(endpoint).tls_config(tls).map_err(|why| unusable(&why))?,
        None => tuned(endpoint),
    };
    Ok(Node { address, endpoint, channel: OnceLock::new() })
}

fn unusable(why: &tonic::transport::Error) -> Error {
    let cause = std::error::Error::source(why).map_or_else(|| why.to_string(), ToString::to_string);
    let message = "the CA, or the certificate with its key, cannot be used";
    let next = "give files in PEM form, as `quorate cert` makes them";
    Error::local(Code::InvalidArgument, "BAD_CREDENTIALS", message, next).with_cause(cause)
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

    fn parse(addresses: &[&str]) -> Result<Endpoints, Error> {
        Endpoints::parse(addresses, &Credentials::default())
    }

    #[test]
    fn a_scheme_that_contradicts_the_credentials_is_refused() {
        let certificate = Credentials::default().with_certificate_pem(b"x", b"y");
        let error = Endpoints::parse(&["a"], &certificate).unwrap_err();
        assert!(error.message.contains("--ca"), "{error:?}");
        let with_ca = Credentials::default().with_ca_pem(b"x");
        let error = Endpoints::parse(&["http://a"], &with_ca).unwrap_err();
        assert!(error.message.contains("in clear"), "{error:?}");
        assert!(Endpoints::parse(&["a"], &with_ca).unwrap_err().reason == "BAD_CREDENTIALS");
    }

    #[test]
    fn addresses_get_the_default_port() {
        let nodes = parse(&["a", " b:7500 ", "http://c:1/", "[::1]", ""]).unwrap();
        assert_eq!(nodes.names(), "a:7400, b:7500, c:1, [::1]:7400");
    }

    #[test]
    fn bad_addresses_are_refused_with_a_next_step() {
        for bad in ["https://a", "a b", "a:x", "a:99999", "a:0", "http://", "u@a:1", "a/b"] {
            let error = parse(&[bad]).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{bad}");
            assert!(error.message.contains(bad) && error.next.is_some(), "{error:?}");
        }
        assert_eq!(parse(&[]).unwrap_err().reason, "NO_ENDPOINT");
    }

    #[test]
    fn a_failure_moves_on_once() {
        let nodes = parse(&["a", "b", "c"]).unwrap();
        nodes.failed(0);
        nodes.failed(0);
        assert_eq!(nodes.preferred.load(Ordering::Relaxed), 1);
    }
}
