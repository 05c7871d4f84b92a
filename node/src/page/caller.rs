//! Who asks, and from which site. A key in the `Authorization` header is sent by nobody but the page's own script. Without
//! keys a browser of this machine is the local admin whatever it shows, so two more things are looked at: that the request
//! comes from this very page, and that the page was not opened under somebody else's name for this address.

use super::answer::Failed;
use crate::door::{Access, Identity, Role, status};
use crate::http::Remote;
use crate::tls::accept::Peer;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use std::net::{IpAddr, SocketAddr};
use tonic::{Code, Request, Status};

/// Someone who asks the page, or another face at the HTTP port.
pub(crate) struct Caller {
    access: Access,
    pub(crate) headers: HeaderMap,
    peer: Peer,
}

impl<S: AsRef<Access> + Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Caller, Failed> {
        let ConnectInfo(Remote(peer)) = ConnectInfo::from_request_parts(parts, state)
            .await
            .map_err(|_| Status::internal("a connection without an address"))?;
        same_site(&parts.method, &parts.headers)?;
        Ok(Caller { access: state.as_ref().clone(), headers: parts.headers.clone(), peer })
    }
}

impl Caller {
    /// Who it is, if they may call the method.
    pub(crate) fn identity(&self, method: &str) -> Result<Identity, Status> {
        let identity = self.access.check(method, &self.headers, Some(&self.peer))?;
        let shown = self.headers.contains_key(AUTHORIZATION) || self.peer.certified.is_some();
        if shown || host(&self.headers).is_some_and(is_plain) {
            return Ok(identity);
        }
        Err(status::error(
            Code::PermissionDenied,
            "HOST_NOT_ALLOWED",
            "without a key this page answers under an address or `localhost` only, because any name may lead here",
            "open it by the node's address, or set `keys` in its config and sign in",
        ))
    }

    /// The message as the door's handlers take it.
    pub(crate) fn request<T>(&self, method: &str, message: T) -> Result<Request<T>, Status> {
        Ok(with(self.identity(method)?, message))
    }

    /// Resolves when the caller's key is taken away.
    pub(crate) fn revoked(&self, identity: &Identity) -> Option<impl Future<Output = ()> + use<>> {
        self.access.revoked(&self.headers, identity)
    }
}

pub(crate) fn with<T>(identity: Identity, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(identity);
    request
}

/// The page's verbs are for operators: what a submitter's program does by mistake it can undo, a click can't.
pub(crate) fn may_act(identity: &Identity) -> bool {
    identity.role >= Role::Operator
}

/// Browsers say from where a request comes; what is no browser says nothing, and has no page of someone else open.
fn same_site(method: &Method, headers: &HeaderMap) -> Result<(), Status> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let from_here = match text("sec-fetch-site") {
        None | Some("same-origin") => true,
        // Typed into the address bar, which is no way to make a change.
        Some("none") => method == Method::GET,
        Some(_) => false,
    };
    let origin = text(ORIGIN.as_str());
    let own_origin = origin.is_none_or(|origin| {
        let bare = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        bare.is_some() && bare == host(headers)
    });
    if from_here && own_origin {
        return Ok(());
    }
    Err(status::error(
        Code::PermissionDenied,
        "OTHER_SITE",
        "the request comes from another site's page",
        "open this node's own page",
    ))
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

/// An address or `localhost`: nobody else's name server decides where they lead.
fn is_plain(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.parse::<u16>() {
        Ok(_) => name,
        Err(_) => host,
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<IpAddr>().is_ok() || host.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn names_that_anyone_may_point_here_are_not_plain() {
        for good in ["localhost", "localhost:7480", "127.0.0.1:7480", "10.0.0.1", "[::1]:7480", "[::1]"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in
            ["evil.example", "evil.example:7480", "localhost.evil.example", "127.0.0.1.nip.io:7480", ""]
        {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        let host = ("host", "127.0.0.1:7480");
        let allowed =
            |method, more: &[(&str, &str)]| same_site(&method, &headers(&[&[host], more].concat())).is_ok();
        assert!(allowed(Method::GET, &[]) && allowed(Method::POST, &[]));
        assert!(allowed(
            Method::POST,
            &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:7480")]
        ));
        assert!(allowed(Method::GET, &[("sec-fetch-site", "none")]));
        assert!(!allowed(Method::POST, &[("sec-fetch-site", "none")]));
        assert!(!allowed(Method::GET, &[("sec-fetch-site", "cross-site")]));
        assert!(!allowed(Method::GET, &[("sec-fetch-site", "same-site")]));
        assert!(!allowed(Method::POST, &[("origin", "http://127.0.0.1:7481")]));
        assert!(!allowed(Method::POST, &[("origin", "null")]));
    }

    #[test]
    fn a_key_is_good_under_any_name_and_none_only_under_an_address() {
        let caller = |pairs: &[(&str, &str)]| Caller {
            access: Access::default(),
            headers: headers(pairs),
            peer: Peer { address: "127.0.0.1:1".parse().unwrap(), certified: None },
        };
        let list = "/quorate.v1.TaskService/ListTasks";
        assert!(caller(&[("host", "127.0.0.1:7480")]).identity(list).is_ok());
        let refused = caller(&[("host", "evil.example")]).identity(list).unwrap_err();
        assert!(refused.code() == Code::PermissionDenied && refused.message().contains("localhost"));
        let certified = Caller {
            peer: Peer {
                certified: Some(Identity::new("ci", "*", Role::Viewer).unwrap()),
                ..caller(&[]).peer
            },
            ..caller(&[("host", "node.example")])
        };
        assert!(certified.identity(list).is_ok_and(|it| !may_act(&it)));
    }
}
