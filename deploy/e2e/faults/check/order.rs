//! Revisions against real time, over all keys: what is answered after another answer came is never
//! of a lower revision, and a write is always above everything that was answered before it began.

use crate::history::{Request, Told};

/// One sentence per answer whose revision is too low.
pub(crate) fn check(requests: &[Request]) -> Vec<String> {
    let mut calls: Vec<(&Request, &crate::history::Answer)> = requests
        .iter()
        .filter(|request| request.ask != crate::history::Ask::Peek)
        .filter_map(|request| Some((request, request.answer.as_ref()?)))
        .collect();
    let mut ends: Vec<(u64, i64)> = calls
        .iter()
        .map(|(_, answer)| (answer.at_ns, answer.revision))
        .collect();
    ends.sort_unstable();
    calls.sort_unstable_by_key(|(request, _)| request.called_ns);
    let mut ends = ends.into_iter().peekable();
    let mut promised = 0;
    let mut violations = Vec::new();
    for (request, answer) in calls {
        while let Some((_, revision)) = ends.next_if(|(at_ns, _)| *at_ns < request.called_ns) {
            promised = promised.max(revision);
        }
        let writes = matches!(
            answer.told,
            Told::Written | Told::Swapped | Told::Deleted { .. }
        );
        let lowest = promised + i64::from(writes);
        if answer.revision < lowest {
            violations.push(format!(
                "revision {} after {promised} had been answered: {request:?}",
                answer.revision
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::check::sample::{answered, ask_put};
    use crate::history::{Ask, Told};

    #[test]
    fn a_revision_that_falls_is_found() {
        let wrote =
            |called, at, revision| answered(ask_put("v"), called, at, revision, Told::Written);
        let got =
            |called, at, revision| answered(Ask::Get, called, at, revision, Told::Found(None));
        assert_eq!(
            check(&[wrote(0, 5, 2), got(6, 9, 2), wrote(6, 9, 3)]),
            [""; 0]
        );
        // They overlap: either may come first.
        assert_eq!(check(&[wrote(0, 5, 3), got(4, 9, 2)]), [""; 0]);
        assert_eq!(check(&[wrote(0, 5, 3), got(6, 9, 2)]).len(), 1);
        // A write that takes a revision which somebody has seen already.
        assert_eq!(check(&[got(0, 5, 3), wrote(6, 9, 3)]).len(), 1);
        let peek = answered(Ask::Peek, 6, 9, 1, Told::Found(None));
        assert_eq!(check(&[wrote(0, 5, 3), peek]), [""; 0]);
    }
}
