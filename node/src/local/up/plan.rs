//! Which nodes a local cluster has, on which ports, and what each is told. Values in, values out.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;

/// Ports of one cluster: ten a node for clients, nodes and cables, and one page of metrics each.
pub(super) const SPAN: u16 = 160;
/// Further places to look for free ports.
const TRIES: u16 = 40;
const PER_NODE: u16 = 10;
const HTTP_AT: u16 = 80;

/// One node. Its ports are kept for the folder's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    pub name: String,
    pub coordinator: bool,
    pub clients: u16,
    /// Where it listens to the cable's end.
    pub internal: u16,
    /// Where other nodes reach it.
    pub cable: u16,
    pub http: u16,
}

impl NodePlan {
    pub(crate) fn client(&self) -> String {
        format!("127.0.0.1:{}", self.clients)
    }

    pub(crate) fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }
}

/// All nodes, coordinators first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub format: u32,
    pub nodes: Vec<NodePlan>,
}

/// What workers are told beside their place.
pub(super) struct Told<'a> {
    pub models: &'a [String],
    pub replies: Option<&'a Path>,
    pub threads: u32,
}

pub(super) const FORMAT: u32 = 1;

impl Layout {
    /// From the first base on that has every port free; None when there is none.
    pub(crate) fn plan(
        coordinators: u32,
        workers: u32,
        from: u16,
        free: impl Fn(u16) -> bool,
    ) -> Option<Layout> {
        let bases = (0..TRIES)
            .filter_map(|step| from.checked_add(step * SPAN))
            .filter(|base| base.checked_add(SPAN).is_some());
        let mut layouts = bases.map(|base| Layout::at(base, coordinators, workers));
        layouts.find(|layout| layout.ports().all(&free))
    }

    fn at(base: u16, coordinators: u32, workers: u32) -> Layout {
        let node = |index: u32| {
            let coordinator = index < coordinators;
            let name = match coordinator {
                true => format!("coordinator-{}", index + 1),
                false => format!("worker-{}", index - coordinators + 1),
            };
            let clients = base + PER_NODE * index as u16;
            NodePlan {
                name,
                coordinator,
                clients,
                internal: clients + 1,
                cable: clients + 2,
                http: base + HTTP_AT + index as u16,
            }
        };
        Layout { format: FORMAT, nodes: (0..coordinators + workers).map(node).collect() }
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().flat_map(|node| [node.clients, node.internal, node.cable, node.http])
    }

    pub(crate) fn coordinators(&self) -> impl Iterator<Item = &NodePlan> {
        self.nodes.iter().filter(|node| node.coordinator)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &NodePlan> {
        self.nodes.iter().filter(|node| !node.coordinator)
    }

    /// Every node's address for clients: any will do, also when one is down.
    pub(crate) fn endpoint(&self) -> String {
        self.nodes.iter().map(NodePlan::client).collect::<Vec<_>>().join(",")
    }

    /// A node's configuration. The first coordinator joins nobody: it founds.
    pub(super) fn config(&self, node: &NodePlan, folder: &Path, told: &Told<'_>) -> String {
        let founder = self.nodes.first() == Some(node);
        let seeds = self.coordinators().filter(|seed| !founder && *seed != node);
        let join: Vec<String> = seeds.map(|seed| format!("\"127.0.0.1:{}\"", seed.cable)).collect();
        let role = if node.coordinator { "coordinator" } else { "worker" };
        let data = quoted(&folder.join(&node.name).display().to_string());
        let mut text = format!(
            "# Written by `quorate cluster up`. Nodes reach this one through a cable that `quorate dev chaos` can cut.\n\
             name = \"{}\"\nroles = [\"{role}\"]\ndata_dir = {data}\njoin = [{}]\n\n[listen]\nclients = \"127.0.0.1:{}\"\n\
             internal = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n\n[advertise]\ninternal = \"127.0.0.1:{}\"\n",
            node.name,
            join.join(", "),
            node.clients,
            node.internal,
            node.http,
            node.cable,
        );
        if !node.coordinator {
            let models: Vec<String> = told.models.iter().map(|model| quoted(model)).collect();
            let _ =
                write!(text, "\n[engine]\nmodels = [{}]\nthreads = {}\n", models.join(", "), told.threads);
        }
        if let Some(replies) = told.replies.filter(|_| !node.coordinator) {
            let file = quoted(&replies.display().to_string());
            let _ = write!(text, "\n[[provider]]\nname = \"scripted\"\nkind = \"scripted\"\nfile = {file}\n");
        }
        text
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Exposure};
    use std::collections::BTreeSet;

    #[test]
    fn every_node_has_ports_of_its_own_where_all_are_free() {
        let layout = Layout::plan(5, 3, 7400, |_| true).unwrap();
        let ports: BTreeSet<u16> = layout.ports().collect();
        assert_eq!(ports.len(), 8 * 4);
        assert!(ports.iter().all(|port| (7400..7400 + SPAN).contains(port)), "{ports:?}");
        let moved = Layout::plan(3, 1, 7400, |port| port != 7431).unwrap();
        assert_eq!(moved.nodes[0].clients, 7400 + SPAN);
        assert_eq!(Layout::plan(3, 1, 65_400, |_| true), None, "there are no ports above");
        assert_eq!(Layout::plan(3, 1, 7400, |_| false), None);
    }

    #[test]
    fn each_configuration_is_one_that_a_node_starts_with() {
        let layout = Layout::plan(3, 2, 7400, |_| true).unwrap();
        let models = ["smollm2".to_string()];
        let told = Told { models: &models, replies: Some(Path::new("/a \"b\"/replies.toml")), threads: 2 };
        for node in &layout.nodes {
            let text = layout.config(node, Path::new("/data"), &told);
            let config = Config::parse("node.toml", &text, Exposure::LoopbackOnly).unwrap();
            assert_eq!(config.name, node.name);
            assert_eq!(config.internal_address(), format!("127.0.0.1:{}", node.cable));
            let expected = if node.name == "coordinator-1" { 0 } else { 2 + usize::from(!node.coordinator) };
            assert_eq!(config.join.len(), expected, "{text}");
            assert_eq!(config.provider.len(), usize::from(!node.coordinator));
        }
    }
}
