//! Names to addresses, as an argument, so that tests can lie.

use futures::future::{BoxFuture, FutureExt};
use std::io;
use std::net::IpAddr;

/// Asked once for each request and each redirect; the connection then goes to what was answered.
pub trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// What the machine says.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) }
            .boxed()
    }
}
