//! What holds on this machine, layer by layer, and what doesn't.

use std::fmt;

/// One layer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub name: String,
    pub enforced: bool,
    /// How it is enforced, or why it is not.
    pub note: String,
}

/// How much holds. Ordered: more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing can be run here.
    Nothing,
    /// Commands are contained, but some layer or limit is missing.
    Partial,
    /// Every layer and every limit.
    Full,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub layers: Vec<Layer>,
    /// Why no command can be run, where none can.
    pub broken: Option<String>,
}

impl Report {
    pub fn level(&self) -> Level {
        if self.broken.is_some() || self.layers.is_empty() {
            Level::Nothing
        } else if self.layers.iter().all(|layer| layer.enforced) {
            Level::Full
        } else {
            Level::Partial
        }
    }

    pub fn missing(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| !layer.enforced)
    }
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Nothing => "none",
            Level::Partial => "partial",
            Level::Full => "full",
        }
    }

    /// For configuration files.
    pub fn parse(name: &str) -> Option<Level> {
        [Level::Nothing, Level::Partial, Level::Full].into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

impl Layer {
    pub(crate) fn holds(name: &str, how: impl Into<String>) -> Self {
        Layer { name: name.into(), enforced: true, note: how.into() }
    }

    pub(crate) fn missing(name: &str, why: impl Into<String>) -> Self {
        Layer { name: name.into(), enforced: false, note: why.into() }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.enforced { "enforced" } else { "not enforced" };
        write!(to, "{}: {state}: {}", self.name, self.note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_layer_is_not_full() {
        let mut report = Report::default();
        assert_eq!(report.level(), Level::Nothing);
        report.layers.push(Layer::holds("seccomp", "allow-list"));
        assert_eq!(report.level(), Level::Full);
        report.layers.push(Layer::missing("cpu", "no cgroup"));
        assert_eq!(report.level(), Level::Partial);
        assert_eq!(report.missing().count(), 1);
        report.broken = Some("no namespaces".into());
        assert_eq!(report.level(), Level::Nothing);
    }

    #[test]
    fn levels_are_ordered_and_named() {
        assert!(Level::Full > Level::Partial && Level::Partial > Level::Nothing);
        assert_eq!(Level::parse("full"), Some(Level::Full));
        assert_eq!(Level::parse("most"), None);
    }
}
