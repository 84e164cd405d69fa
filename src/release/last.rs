//! Apps that are proposed as late as possible.

use std::collections::BTreeSet;

use super::{Name, Part, Parts};

/// Lets these apps wait until all others have proven the generation, except those that wait for them. Their proof costs something
/// that must not be paid in vain.
pub fn propose_last(parts: &mut Parts, last: &BTreeSet<Name>) {
    for name in last {
        let others = parts.iter().filter(|(other, part)| {
            matches!(part, Part::Prove { .. })
                && !last.contains(*other)
                && !waits_for(parts, other, name)
        });
        let others: Vec<_> = others.map(|(other, _)| other.clone()).collect();
        if let Some(Part::Prove { after }) = parts.get_mut(name) {
            after.extend(others);
        }
    }
}

/// Lets these apps, which the new configuration does not have, end before any of the last ones is proposed: that may need what they hold.
/// They end when all apps that wait for no last one have proven the generation, and only if there is a last one that is to start.
pub fn displace_before(parts: &mut Parts, last: &BTreeSet<Name>, ending: &BTreeSet<Name>) {
    let starts = |name: &Name| matches!(parts.get(name), Some(Part::Prove { .. } | Part::Install));
    if !last.iter().any(starts) {
        return;
    }
    for part in parts.values_mut() {
        // An app may name one that is stopped; that one does not run before it.
        if let Part::Prove { after } = part {
            after.retain(|name| !ending.contains(name));
        }
    }
    let names = parts.iter().filter(|(name, part)| {
        let mut last = last.iter();
        matches!(part, Part::Prove { .. }) && !last.any(|last| waits_for(parts, name, last))
    });
    let after: BTreeSet<_> = names.map(|(name, _)| name.clone()).collect();
    for name in last {
        if let Some(Part::Prove { after }) = parts.get_mut(name) {
            after.extend(ending.iter().cloned());
        }
    }
    for name in ending {
        let after = after.clone();
        parts.insert(name.clone(), Part::Displace { after });
    }
}

/// Whether an app waits for another one, or for one that does.
fn waits_for(parts: &Parts, app: &Name, other: &Name) -> bool {
    let mut open = vec![app];
    let mut seen = BTreeSet::new();
    while let Some(next) = open.pop() {
        if next == other {
            return true;
        }
        if seen.insert(next)
            && let Some(Part::Prove { after }) = parts.get(next)
        {
            open.extend(after);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn parts(edges: &[(&str, &[&str])]) -> Parts {
        let edges = edges.iter();
        edges
            .map(|(name, after)| {
                let after = names(after);
                (Name::from(*name), Part::Prove { after })
            })
            .collect()
    }

    fn with_last(edges: &[(&str, &[&str])], last: &[&str]) -> Parts {
        let mut parts = parts(edges);
        propose_last(&mut parts, &names(last));
        parts
    }

    #[test]
    fn the_last_ones_wait_for_all_others_but_not_for_each_other() {
        let found = with_last(
            &[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])],
            &["b", "d"],
        );
        let wanted = parts(&[
            ("a", &[]),
            ("b", &["a", "c"]),
            ("c", &[]),
            ("d", &["a", "c"]),
        ]);
        assert_eq!(found, wanted);
    }

    #[test]
    fn an_app_that_waits_for_a_last_one_is_not_waited_for() {
        let edges: &[(&str, &[&str])] =
            &[("db", &[]), ("job", &["web"]), ("web", &["db"]), ("x", &[])];
        let found = with_last(edges, &["db"]);
        let wanted = parts(&[
            ("db", &["x"]),
            ("job", &["web"]),
            ("web", &["db"]),
            ("x", &[]),
        ]);
        assert_eq!(found, wanted);
    }

    #[test]
    fn two_last_ones_and_those_that_wait_for_them_never_wait_in_a_circle() {
        let edges: &[(&str, &[&str])] = &[("l", &[]), ("m", &[]), ("x", &["l"]), ("y", &["m"])];
        let found = with_last(edges, &["l", "m"]);
        for name in found.keys() {
            let Some(Part::Prove { after }) = found.get(name) else {
                panic!("all have to prove the generation");
            };
            let circle = after.iter().any(|other| waits_for(&found, other, name));
            assert!(!circle, "{name}: {found:?}");
        }
        assert_eq!(
            found.get("l"),
            Some(&Part::Prove {
                after: names(&["y"])
            })
        );
    }

    #[test]
    fn apps_that_prove_nothing_do_not_matter() {
        let mut found = parts(&[("a", &[])]);
        found.insert("b".into(), Part::Keep);
        found.insert("c".into(), Part::Install);
        let wanted = found.clone();
        propose_last(&mut found, &names(&["a", "b", "z"]));
        assert_eq!(found, wanted);
    }

    fn displaced(after: &[&str]) -> Part {
        let after = names(after);
        Part::Displace { after }
    }

    #[test]
    fn what_is_displaced_ends_after_all_others_and_before_the_last_ones() {
        // `x` names one that is stopped.
        let edges: &[(&str, &[&str])] = &[("l", &[]), ("m", &[]), ("x", &["old"]), ("y", &["m"])];
        let mut found = with_last(edges, &["l", "m"]);
        displace_before(&mut found, &names(&["l", "m"]), &names(&["gone", "old"]));
        let mut wanted = parts(&[
            ("l", &["gone", "old", "x", "y"]),
            ("m", &["gone", "old", "x"]),
            ("x", &[]),
            ("y", &["m"]),
        ]);
        wanted.insert("gone".into(), displaced(&["x"]));
        wanted.insert("old".into(), displaced(&["x"]));
        assert_eq!(found, wanted);
    }

    #[test]
    fn nothing_is_displaced_for_nobody() {
        let mut found = parts(&[("a", &[])]);
        found.insert("l".into(), Part::Keep);
        let kept = found.clone();
        displace_before(&mut found, &names(&["l"]), &names(&["old"]));
        assert_eq!(found, kept);
        found.insert("l".into(), Part::Install);
        displace_before(&mut found, &names(&["l"]), &names(&["old"]));
        assert_eq!(found.get("old"), Some(&displaced(&["a"])));
    }
}
