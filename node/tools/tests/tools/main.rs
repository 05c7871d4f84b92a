//! The toolbox from outside: servers that misbehave, real servers, requests, files.

mod bad_servers;
mod common;
mod files;
mod http;
mod real_servers;
