//! No service without its rows: what is served is compared with the table, method by method, before the node listens.

use super::TABLE;
use prost::Message;
use std::collections::BTreeSet;
use std::convert::Infallible;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};

/// Why the node does not serve.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unlisted {
    #[error("{0} has no role: add its row to the table in node/src/door/access.rs")]
    NoRole(String),
    #[error("nothing is known of the service {0}: add its descriptors in node/src/door/access/closed.rs")]
    NoDescriptor(String),
    #[error("{0} has a role, but no service has such a method: remove its row in node/src/door/access.rs")]
    Stale(String),
}

/// The public services, each taken only with a role for every method.
pub(crate) struct Services {
    routes: RoutesBuilder,
    methods: BTreeSet<String>,
    served: BTreeSet<String>,
}

impl Services {
    pub(crate) fn new() -> Self {
        Services { routes: Routes::builder(), methods: methods(&descriptors()), served: BTreeSet::new() }
    }

    pub(crate) fn add<S>(mut self, service: S) -> Result<Self, Unlisted>
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        let own = of_service(&self.methods, S::NAME)?;
        check_roles(&own)?;
        self.served.extend(own);
        self.routes.add_service(service);
        Ok(self)
    }

    /// A row without a method is a door that someone believes to be there.
    pub(crate) fn routes(self) -> Result<Routes, Unlisted> {
        match TABLE.iter().find(|(name, _, _)| !self.served.contains(*name)) {
            Some((name, _, _)) => Err(Unlisted::Stale(name.to_string())),
            None => Ok(self.routes.routes()),
        }
    }
}

fn of_service(methods: &BTreeSet<String>, service: &str) -> Result<BTreeSet<String>, Unlisted> {
    let prefix = format!("/{service}/");
    let own: BTreeSet<String> = methods.iter().filter(|name| name.starts_with(&prefix)).cloned().collect();
    if own.is_empty() { Err(Unlisted::NoDescriptor(service.to_string())) } else { Ok(own) }
}

fn check_roles(methods: &BTreeSet<String>) -> Result<(), Unlisted> {
    let missing = methods.iter().find(|method| TABLE.iter().all(|(name, _, _)| name != method));
    missing.map_or(Ok(()), |method| Err(Unlisted::NoRole(method.clone())))
}

/// What the `.proto` files say, of our services and of the two that come from libraries.
pub(super) fn descriptors() -> Vec<prost_types::FileDescriptorProto> {
    let sets = [
        proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    let read = |bytes| {
        prost_types::FileDescriptorSet::decode(bytes).expect("descriptors of this build are well formed")
    };
    sets.into_iter().flat_map(|bytes| read(bytes).file).collect()
}

/// `/package.Service/Method` of every method.
fn methods(files: &[prost_types::FileDescriptorProto]) -> BTreeSet<String> {
    let of_service = |package: &str, service: &prost_types::ServiceDescriptorProto| {
        let path = format!("/{package}.{}", service.name());
        service.method.iter().map(|method| format!("{path}/{}", method.name())).collect::<Vec<_>>()
    };
    files
        .iter()
        .flat_map(|file| file.service.iter().flat_map(|service| of_service(file.package(), service)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::{Access, Door};

    #[test]
    fn every_public_method_has_a_role_and_nothing_else_has() {
        let all = methods(&descriptors());
        let public = |name: &&String| name.starts_with("/quorate.v1.");
        let declared: BTreeSet<&str> = TABLE.iter().map(|(name, _, _)| *name).collect();
        assert_eq!(declared.len(), TABLE.len(), "a method has two rows");
        for method in all.iter().filter(public) {
            assert!(declared.contains(method.as_str()), "{method} has no role");
        }
        for name in declared {
            assert!(all.contains(name), "{name} is no method");
        }
        assert!(Door::new().0.routes(Access::default()).is_ok());
    }

    #[test]
    fn a_service_with_a_method_without_role_is_not_served() {
        let file = |method: &str| prost_types::FileDescriptorProto {
            package: Some("quorate.v1".into()),
            service: vec![prost_types::ServiceDescriptorProto {
                name: Some("TaskService".into()),
                method: vec![prost_types::MethodDescriptorProto {
                    name: Some(method.into()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let service = tonic_health::server::HealthService::from_health_reporter(Default::default());
        let health = tonic_health::pb::health_server::HealthServer::new(service);
        let with = |methods| Services { methods, ..Services::new() };
        assert_eq!(
            with(methods(&[file("GetTask")])).add(health.clone()).err(),
            Some(Unlisted::NoDescriptor("grpc.health.v1.Health".into()))
        );
        let more = "/grpc.health.v1.Health/Erase".to_string();
        assert_eq!(
            with(BTreeSet::from([more.clone()])).add(health.clone()).err(),
            Some(Unlisted::NoRole(more))
        );
        assert_eq!(check_roles(&methods(&[file("GetTask")])), Ok(()));
        assert!(matches!(check_roles(&methods(&[file("Erase")])), Err(Unlisted::NoRole(_))));
        // Rows whose services are not served are stale.
        assert!(matches!(Services::new().add(health).unwrap().routes(), Err(Unlisted::Stale(_))));
    }
}
