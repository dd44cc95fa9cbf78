//! Serializable reads: as old as they like, but true at the revision they name, and within one life
//! of a member never going back.

use std::collections::BTreeMap;

use crate::history::{Ask, History, Request, Told};

/// Called, answered, and the revision that was named.
type Read = (u64, u64, i64);

/// One sentence per read that was not true, or that went back.
pub(crate) fn check(requests: &[Request], history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    let mut lives: BTreeMap<(usize, u64), Vec<Read>> = BTreeMap::new();
    for request in requests {
        let Some(answer) = &request.answer else {
            continue;
        };
        if let Told::Found(found) = &answer.told
            && *found != history.at(&request.key, answer.revision)
        {
            violations.push(format!(
                "a read that the history contradicts, which has {:?}: {request:?}",
                history.at(&request.key, answer.revision)
            ));
        }
        if let Some(life) = request.life
            && request.ask == Ask::Peek
        {
            let reads = lives.entry((request.member, life)).or_default();
            reads.push((request.called_ns, answer.at_ns, answer.revision));
        }
    }
    for ((member, _), mut reads) in lives {
        let mut ends: Vec<(u64, i64)> = reads
            .iter()
            .map(|(_, end, revision)| (*end, *revision))
            .collect();
        ends.sort_unstable();
        reads.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        let mut shown = 0;
        for (called_ns, _, revision) in reads {
            while let Some((_, earlier)) = ends.next_if(|(end, _)| *end < called_ns) {
                shown = shown.max(earlier);
            }
            if revision < shown {
                violations.push(format!(
                    "member {member} showed revision {revision} after it had shown {shown}"
                ));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::check::sample::{answered, put, seen};
    use crate::history::{Ask, History, Told};

    #[test]
    fn an_old_read_is_fine_and_a_wrong_one_is_not() {
        let history = History::new(vec![put(2, "k", "a", 2, 1), put(3, "k", "b", 2, 2)]);
        let peek = |called, revision, pair| {
            answered(Ask::Peek, called, called + 5, revision, Told::Found(pair))
        };
        let old = peek(10, 2, seen("a", 2, 2, 1));
        let new = peek(20, 3, seen("b", 2, 3, 2));
        assert_eq!(check(&[old.clone(), new.clone()], &history), [""; 0]);
        let wrong = peek(30, 3, seen("a", 2, 2, 1));
        assert_eq!(check(&[wrong], &history).len(), 1);
        let back = peek(30, 2, seen("a", 2, 2, 1));
        assert_eq!(check(&[new.clone(), back.clone()], &history).len(), 1);
        // Another life of the member may begin with what was on its disk.
        let mut reborn = back;
        reborn.life = Some(2);
        assert_eq!(check(&[new, reborn], &history), [""; 0]);
    }
}
