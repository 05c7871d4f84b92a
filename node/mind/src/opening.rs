//! How a task's chain begins: what the definition brings, what a team shares, what the task was given.

use crate::journal::item;
use crate::{Definition, TaskFacts};
use context::{ChainItem, Kind, Part, Sealed, Segment, Visibility};
use types::Hash;

/// What the definition brings along: an agent's system prompt, or a team's background. None or one.
pub(crate) fn segments(facts: &TaskFacts) -> Vec<(Sealed, Segment)> {
    let sealed = |segment| (context::seal(&facts.project, &segment), segment);
    own(facts).map(sealed).into_iter().collect()
}

/// The bytes depend on the revision alone, so that all its tasks share one segment.
fn own(facts: &TaskFacts) -> Option<Segment> {
    let (kind, visibility, text) = match &facts.definition {
        Definition::Agent(agent) => {
            let text = crate::typed::instruction(&agent.system, agent.result_schema.as_deref());
            (Kind::System, Visibility::Agent, text)
        }
        // Readable by all members; the text is in the definition, which the whole project may read anyway.
        Definition::Team(team) => (Kind::Background, Visibility::Project, team.background.clone()),
    };
    (!text.is_empty()).then(|| Segment::new(kind, facts.agent.clone(), visibility, text))
}

/// The tools of a task. The bytes depend on the agent's name and the tools alone, so that all its tasks share one.
pub(crate) fn tools(facts: &TaskFacts, specs: String) -> Segment {
    Segment::new(Kind::Tools, facts.agent.clone(), Visibility::Agent, specs)
}

/// The chain before the first step.
pub(crate) fn chain(facts: &TaskFacts, opening: &[(Sealed, Segment)]) -> Vec<ChainItem> {
    let part = |kind| if kind == Kind::System { Part::System } else { Part::Background };
    let own = opening.iter().map(|(sealed, segment)| item(sealed.hash, part(segment.kind)));
    let shared = facts.background.iter().map(|hash| item(*hash, Part::Background));
    let input =
        |(name, hash): &(String, Hash)| ChainItem { hash: *hash, part: Part::Input, name: name.clone() };
    own.chain(shared).chain(facts.inputs.iter().map(input)).collect()
}
