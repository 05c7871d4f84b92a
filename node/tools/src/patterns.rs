//! Names of tools as agents write them: `time.get_current_time`, `files.*`, `*`.

/// Whether a pattern names a tool. A `*` stands for any run of characters, dots among them.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

pub fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether some tool of a server can be meant, so that the server has to be asked.
pub(crate) fn may_name_server(pattern: &str, server: &str) -> bool {
    let prefix = format!("{server}.");
    let fixed = pattern.split('*').next().unwrap_or("");
    if fixed.len() < pattern.len() {
        prefix.starts_with(fixed) || fixed.starts_with(&prefix)
    } else {
        pattern.starts_with(&prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, name) in
            [("time.*", "time.now"), ("*", "a.b"), ("a.*_b", "a.x_b"), ("a.b", "a.b"), ("*.now", "time.now")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("time.*", "timer.now"),
            ("a.b", "a.bc"),
            ("a.*_b", "a_b"),
            ("", "a"),
            ("a*a", "a"),
            ("time", "time.now"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn only_servers_that_can_be_meant_are_asked() {
        assert!(may_name_server("time.*", "time"));
        assert!(may_name_server("*", "time"));
        assert!(may_name_server("t*", "time"));
        assert!(may_name_server("time.now", "time"));
        assert!(!may_name_server("timer.*", "time"));
        assert!(!may_name_server("time", "time"));
        assert!(!may_name_server("git.*", "time"));
    }
}
