//! Who calls, what they may do, and about which projects.

use types::ProjectName;

/// Ordered from the least to the most powerful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Submitter,
    Operator,
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Submitter, Role::Operator, Role::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Submitter => "submitter",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// # Errors
    /// The words that there are.
    pub fn parse(word: &str) -> Result<Role, String> {
        let known = Role::ALL.map(Role::name).join(", ");
        let found = Role::ALL.into_iter().find(|role| role.name() == word);
        found.ok_or_else(|| format!("{word:?} is not one of {known}"))
    }
}

/// How "every project" is written in keys, certificates and on the command line.
pub(crate) const EVERY_PROJECT: &str = "*";

/// Who calls. Reaches every handler through the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub subject: String,
    /// `None`: every project.
    pub project: Option<ProjectName>,
    pub role: Role,
}

impl Identity {
    /// A process of this machine, where no keys are asked for.
    pub(crate) fn local() -> Self {
        Identity { subject: "local".into(), project: None, role: Role::Admin }
    }

    /// # Errors
    /// What is wrong with a subject or a project.
    pub fn new(subject: &str, project: &str, role: Role) -> Result<Identity, String> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let short = (1..=64).contains(&subject.len());
        if !short || !subject.chars().all(good) || subject == "local" {
            return Err(format!(
                "{subject:?} is not a subject: 1 to 64 letters, digits, `-`, `_` and `.`, but not `local`"
            ));
        }
        let project = match project {
            EVERY_PROJECT => None,
            name => Some(ProjectName::parse(name).map_err(|why| format!("{why}, nor * for every project"))?),
        };
        Ok(Identity { subject: subject.into(), project, role })
    }

    /// Under which name changes are made: two projects may both have a subject `ci`, and are not the same author.
    pub fn author(&self) -> String {
        match &self.project {
            Some(project) => format!("{}@{project}", self.subject),
            None => self.subject.clone(),
        }
    }

    /// May this caller touch the project? Its own, and those nested in it.
    pub fn may(&self, project: &ProjectName) -> bool {
        self.project.as_ref().is_none_or(|own| within(own, project.as_str()))
    }

    /// May this caller see the quota of a path? Whoever is bound to a project sees what is below it; limits of the
    /// whole cluster are for operators.
    pub fn may_quota(&self, path: &str) -> bool {
        match &self.project {
            None => path != "cluster" || self.role >= Role::Operator,
            Some(own) => path.strip_prefix("projects/").is_some_and(|rest| within(own, rest)),
        }
    }

    /// The project, as keys and certificates write it.
    pub fn project_text(&self) -> &str {
        self.project.as_ref().map_or(EVERY_PROJECT, ProjectName::as_str)
    }
}

/// The same path, or one below it.
fn within(own: &ProjectName, path: &str) -> bool {
    path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(project: &str, role: Role) -> Identity {
        Identity::new("ci", project, role).unwrap()
    }

    #[test]
    fn a_project_covers_itself_and_what_is_nested() {
        let of_a = of("a", Role::Admin);
        for (name, may) in
            [("a", true), ("a/x", true), ("a/x/y", true), ("ab", false), ("b", false), ("b/a", false)]
        {
            assert_eq!(of_a.may(&ProjectName::parse(name).unwrap()), may, "{name}");
            assert!(of("*", Role::Viewer).may(&ProjectName::parse(name).unwrap()), "{name}");
        }
        assert!(!of("a/x", Role::Admin).may(&ProjectName::parse("a").unwrap()));
    }

    #[test]
    fn quotas_are_seen_from_below_and_the_clusters_by_operators() {
        for (path, may) in [
            ("projects/a", true),
            ("projects/a/x", true),
            ("projects/ab", false),
            ("projects/b", false),
            ("cluster", false),
            ("tasks/t_1", false),
            ("a", false),
        ] {
            assert_eq!(of("a", Role::Admin).may_quota(path), may, "{path}");
        }
        assert!(
            of("*", Role::Viewer).may_quota("projects/b") && !of("*", Role::Submitter).may_quota("cluster")
        );
        assert!(of("*", Role::Operator).may_quota("cluster"));
    }

    #[test]
    fn one_subject_in_two_projects_is_two_authors() {
        assert_ne!(of("a", Role::Viewer).author(), of("b", Role::Viewer).author());
        assert_eq!(of("*", Role::Viewer).author(), "ci");
        for bad in ["", "a b", "a@b", "a/b", "local", &"x".repeat(65)] {
            assert!(Identity::new(bad, "*", Role::Viewer).is_err(), "{bad:?}");
        }
        assert!(Identity::new("ci", "A", Role::Viewer).unwrap_err().contains("* for every project"));
    }
}
