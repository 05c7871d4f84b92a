//! The whole matrix: every method of the table × every kind of caller × own, other and every project, called over the
//! wire, compared with the table's own rules; and `docs/permissions.md`, which is made of the same rules.
//!
//! The node belongs to no cluster, so that whoever is let in gets an error of the handler, never of the door.

use super::closed::descriptors;
use super::*;
use crate::door::Door;
use crate::keys::{Keys, new_key};
use crate::tls::accept::{Port, incoming};
use prost_types::DescriptorProto;
use std::collections::BTreeMap;
use std::fmt::Write;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// Which project a caller is bound to, as seen from the request, which is always about `own`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Own,
    Other,
    Every,
}

impl Bound {
    const ALL: [Bound; 3] = [Bound::Own, Bound::Other, Bound::Every];

    fn project(self) -> &'static str {
        match self {
            Bound::Own => "own",
            Bound::Other => "other",
            Bound::Every => "*",
        }
    }
}

/// What the rules say of one caller and one method; the reason of a refusal.
fn expected(least: Role, scope: Scope, role: Role, bound: Bound) -> Option<&'static str> {
    match (scope, bound) {
        _ if role < least => Some("ROLE_TOO_LOW"),
        (Scope::Cluster, Bound::Own | Bound::Other) | (Scope::Project, Bound::Other) => {
            Some("PROJECT_DENIED")
        }
        _ => None,
    }
}

#[tokio::test]
async fn the_whole_matrix_is_as_the_table_says() {
    let server = Server::start().await;
    let requests = requests();
    let mut calls = 0;
    for (method, least, scope) in TABLE {
        let request = &requests[*method];
        assert_eq!(
            server.call(method, request, None).await,
            Some("UNAUTHENTICATED".into()),
            "{method} without a key"
        );
        assert_eq!(
            server.call(method, request, Some("qk_x")).await,
            Some("UNAUTHENTICATED".into()),
            "{method}, bad key"
        );
        for ((role, bound), key) in &server.keys {
            let refused = server.call(method, request, Some(key)).await;
            let rule = expected(*least, *scope, *role, *bound).map(String::from);
            assert_eq!(refused, rule, "{method} as {role:?} of {bound:?}");
            calls += 1;
        }
    }
    assert_eq!(calls, TABLE.len() * 4 * 3);
}

/// A request that names a project is about it, and nothing else is: a new method can't be given the wrong scope.
#[test]
fn scopes_follow_from_the_requests() {
    let by_path = input_types();
    for (method, _, scope) in TABLE {
        let input = &by_path[*method];
        let names_one =
            input.field.iter().any(|field| field.name() == "project" || is_quota_path(method, field.name()));
        assert_eq!(names_one, *scope == Scope::Project, "{method}: {scope:?}");
    }
}

#[test]
fn cluster_limits_are_for_operators_of_every_project() {
    for role in Role::ALL {
        for bound in Bound::ALL {
            let identity = Identity::new("ci", bound.project(), role).unwrap();
            let may = crate::door::quota_path(&identity, "cluster").is_ok();
            assert_eq!(may, bound == Bound::Every && role >= Role::Operator, "{role:?} {bound:?}");
        }
    }
}

#[test]
fn the_page_of_permissions_is_up_to_date() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/permissions.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == page,
        "docs/permissions.md is not what the table in node/src/door/access.rs says; \
         write it anew with: UPDATE=1 cargo nextest run -p node permissions"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# Permissions\n\n\
         Made from the table in `node/src/door/access.rs`; do not edit. `UPDATE=1 cargo nextest run -p node permissions`\n\
         writes it anew. A test calls every method as every caller and compares.\n\n\
         A key or a client certificate has one role and one project, or every project (`*`). A project includes those nested\n\
         in it: `a` covers `a/x`. A method that is not here is denied to everyone, and a node with such a method does not start.\n\n\
         - `all`: every caller with that role, whatever its project.\n\
         - `own`: in the caller's own project; with `*` in every project.\n\
         - `*`: only callers of every project.\n\
         - `–`: denied.\n\n\
         | method | viewer | submitter | operator | admin |\n|---|---|---|---|---|\n",
    );
    for (method, least, scope) in TABLE {
        let cell = |role: Role| match expected(*least, *scope, role, Bound::Every) {
            Some(_) => "–",
            None if expected(*least, *scope, role, Bound::Other).is_none() => "all",
            None if expected(*least, *scope, role, Bound::Own).is_none() => "own",
            None => "`*`",
        };
        let cells = Role::ALL.map(cell).join(" | ");
        let _ = writeln!(page, "| `{}` | {cells} |", method.trim_start_matches('/'));
    }
    page + "\nQuotas: `projects/NAME` belongs to the project; `cluster` is for operators and admins of every project. `ListQuotas`\n\
            answers with those that the caller may read. HTTP: `/metrics` needs a caller of every project; `/healthz` and `/readyz`\n\
            are open.\n\n\
            Without a file of API keys, callers of the node's own machine are the admin of every project.\n"
}

/// A door with a key for every kind of caller.
struct Server {
    channel: Channel,
    keys: BTreeMap<(Role, Bound), String>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let (mut text, mut keys, mut seed) = (String::new(), BTreeMap::new(), 0u8);
        for role in Role::ALL {
            for bound in Bound::ALL {
                seed += 1;
                let identity = Identity::new("someone", bound.project(), role).unwrap();
                let made = new_key(&identity, None, [seed; 32]).unwrap();
                text += &made.entry;
                keys.insert((role, bound), made.key);
            }
        }
        std::fs::write(&file, text).unwrap();
        let access = Access { insecure: false, keys: Some(Keys::load(&file).unwrap()) };
        // Nobody founds clusters here: `InitCluster` is answered with that.
        let (door, _) = Door::new();
        let routes = door.routes(access).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(routes.serve_with_incoming(incoming(listener, None, Port::Clients)));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Server { channel, keys, _folder: folder }
    }

    /// The reason for which the door refuses; `None`: the caller was let in, whatever came of it.
    async fn call(&self, method: &'static str, message: &[u8], key: Option<&str>) -> Option<String> {
        let mut request = tonic::Request::new(tokio_stream::iter([message.to_vec()]));
        if let Some(key) = key {
            request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let answer = grpc.streaming(request, PathAndQuery::from_static(method), Bytes).await;
        // One message says it all: some of these streams never end by themselves.
        let status = match answer {
            Ok(answer) => answer.into_inner().next().await.and_then(Result::err)?,
            Err(status) => status,
        };
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let of_the_door = matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied);
        of_the_door.then_some(reason)
    }
}

fn is_quota_path(method: &str, field: &str) -> bool {
    method.contains("QuotaService") && field == "path"
}

/// For each method a request about the project `own`, with nothing else in it.
fn requests() -> BTreeMap<String, Vec<u8>> {
    let of = |(method, input): (String, DescriptorProto)| {
        let field = |field: &prost_types::FieldDescriptorProto| match field.name() {
            "project" => text_field(field.number(), "own"),
            name if is_quota_path(&method, name) => text_field(field.number(), "projects/own"),
            _ => Vec::new(),
        };
        let message = input.field.iter().flat_map(field).collect();
        (method, message)
    };
    input_types().into_iter().map(of).collect()
}

/// A short text as Protobuf writes it: number and kind, length, bytes.
fn text_field(number: i32, text: &str) -> Vec<u8> {
    let mut bytes = vec![(number as u8) << 3 | 2, text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// The type of each method's request.
fn input_types() -> BTreeMap<String, DescriptorProto> {
    let files = descriptors();
    let named = |file: &prost_types::FileDescriptorProto, message: &DescriptorProto| {
        (format!(".{}.{}", file.package(), message.name()), message.clone())
    };
    let messages: BTreeMap<String, DescriptorProto> = files
        .iter()
        .flat_map(|file| file.message_type.iter().map(|message| named(file, message)).collect::<Vec<_>>())
        .collect();
    let mut inputs = BTreeMap::new();
    for file in &files {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                inputs.insert(path, messages[method.input_type()].clone());
            }
        }
    }
    inputs
}

/// Messages as they are on the wire.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let all = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, all).to_vec()))
    }
}
