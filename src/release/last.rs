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
}
