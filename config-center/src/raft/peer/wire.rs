//! openraft's messages as protobuf and back. A message that lacks a part is an error of its
//! sender, never a guess.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use schemas::peer as pb;
use schemas::peer::append_response::Outcome;
use tonic::Status;

use crate::raft::types::{self, Entry, LogId, TypeConfig, Vote};
use crate::storage::{EntryId, EntryKind, EntryRow, VoteRow};

pub(super) fn log_id(id: &LogId) -> pb::LogId {
    let EntryId { term, index } = types::entry_id(id);
    pb::LogId { term, index }
}

pub(super) fn log_id_back(id: &pb::LogId) -> LogId {
    types::log_id(EntryId {
        term: id.term,
        index: id.index,
    })
}

pub(super) fn optional(id: Option<&LogId>) -> Option<pb::LogId> {
    id.map(log_id)
}

pub(super) fn optional_back(id: Option<&pb::LogId>) -> Option<LogId> {
    id.map(log_id_back)
}

pub(super) fn vote(vote: &Vote) -> pb::Vote {
    let VoteRow {
        term,
        node_id,
        committed,
    } = types::vote_row(vote);
    pb::Vote {
        term,
        node_id,
        committed,
    }
}

pub(super) fn vote_back(vote: Option<&pb::Vote>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| missing("vote"))?;
    Ok(types::vote(VoteRow {
        term: vote.term,
        node_id: vote.node_id,
        committed: vote.committed,
    }))
}

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the peer's message has no {what}"))
}

fn entry(entry: &Entry) -> pb::Entry {
    let row = types::entry_row(entry);
    let kind = match row.kind {
        EntryKind::Blank => pb::EntryKind::Blank,
        EntryKind::Command => pb::EntryKind::Command,
        EntryKind::Membership => pb::EntryKind::Membership,
    };
    pb::Entry {
        term: row.id.term,
        index: row.id.index,
        kind: kind as i32,
        payload: row.payload,
    }
}

fn entry_back(entry: pb::Entry) -> Result<Entry, Status> {
    let kind = match pb::EntryKind::try_from(entry.kind) {
        Ok(pb::EntryKind::Blank) => EntryKind::Blank,
        Ok(pb::EntryKind::Command) => EntryKind::Command,
        Ok(pb::EntryKind::Membership) => EntryKind::Membership,
        Err(_) => {
            return Err(Status::invalid_argument(format!(
                "the entry {} has the unknown kind {}",
                entry.index, entry.kind
            )));
        }
    };
    let row = EntryRow {
        id: EntryId {
            term: entry.term,
            index: entry.index,
        },
        kind,
        payload: entry.payload,
    };
    types::entry(row).map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) fn append(request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote(&request.vote)),
        previous: optional(request.prev_log_id.as_ref()),
        committed: optional(request.leader_commit.as_ref()),
        entries: request.entries.iter().map(entry).collect(),
    }
}

pub(super) fn append_back(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entries: Result<Vec<Entry>, Status> = request.entries.into_iter().map(entry_back).collect();
    Ok(AppendEntriesRequest {
        vote: vote_back(request.vote.as_ref())?,
        prev_log_id: optional_back(request.previous.as_ref()),
        leader_commit: optional_back(request.committed.as_ref()),
        entries: entries?,
    })
}

pub(super) fn appended(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    let outcome = match result {
        Ok(last) => Outcome::Matched(pb::Matched {
            last: optional(last.as_ref()),
        }),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(log_id(at)),
        Err(StreamAppendError::HigherVote(higher)) => Outcome::HigherVote(vote(higher)),
    };
    pb::AppendResponse {
        outcome: Some(outcome),
    }
}

pub(super) fn appended_back(
    response: &pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Status> {
    Ok(match &response.outcome {
        Some(Outcome::Matched(matched)) => Ok(optional_back(matched.last.as_ref())),
        Some(Outcome::Conflict(at)) => Err(StreamAppendError::Conflict(log_id_back(at))),
        Some(Outcome::HigherVote(vote)) => {
            Err(StreamAppendError::HigherVote(vote_back(Some(vote))?))
        }
        None => return Err(missing("outcome")),
    })
}

pub(super) fn vote_request(
    request: &VoteRequest<TypeConfig>,
    only_asking: bool,
) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote(&request.vote)),
        last: optional(request.last_log_id.as_ref()),
        leadership_transfer: request.leadership_transfer,
        only_asking,
    }
}

pub(super) fn vote_request_back(
    request: &pb::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Status> {
    let vote = vote_back(request.vote.as_ref())?;
    let mut back = VoteRequest::new(vote, optional_back(request.last.as_ref()));
    back.leadership_transfer = request.leadership_transfer;
    Ok(back)
}

pub(super) fn vote_response(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last: optional(response.last_log_id.as_ref()),
    }
}

pub(super) fn vote_response_back(
    response: &pb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Status> {
    let vote = vote_back(response.vote.as_ref())?;
    Ok(VoteResponse::new(
        vote,
        optional_back(response.last.as_ref()),
        response.granted,
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;
    use prost::Message as _;
    use schemas::command::Command;

    use super::*;
    use crate::raft::types::Proposal;

    #[test]
    fn an_append_request_survives_the_wire_with_every_kind_of_entry() {
        let command = Command {
            version: 1,
            origin_member: 7,
            origin_id: 9,
            op: None,
            ..Command::default()
        };
        let encoded = Bytes::from(command.encode_to_vec());
        let entry_at = |index, payload| Entry {
            log_id: LogId::new_term_index(3, index),
            payload,
        };
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(3, 0xffff_ffff_ffff_fff0),
            prev_log_id: Some(LogId::new_term_index(2, 4)),
            leader_commit: None,
            entries: vec![
                entry_at(5, EntryPayload::Blank),
                entry_at(6, EntryPayload::Normal(Proposal::new(encoded, command))),
            ],
        };
        let back = append_back(append(&request)).unwrap();
        assert_eq!(back.to_string(), request.to_string());
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.leader_commit, None);
        let EntryPayload::Normal(proposal) = &back.entries[1].payload else {
            panic!("{back}");
        };
        assert_eq!(proposal.command().origin_id, 9);
    }

    #[test]
    fn what_lacks_a_part_is_refused() {
        assert!(append_back(pb::AppendRequest::default()).is_err());
        assert!(vote_request_back(&pb::VoteRequest::default()).is_err());
        assert!(appended_back(&pb::AppendResponse::default()).is_err());
        let mut request = pb::AppendRequest {
            vote: Some(pb::Vote::default()),
            ..pb::AppendRequest::default()
        };
        assert!(append_back(request.clone()).is_ok());
        request.entries.push(pb::Entry {
            kind: 77,
            ..pb::Entry::default()
        });
        assert!(append_back(request).is_err());
    }

    #[test]
    fn every_outcome_of_an_append_survives_the_wire() {
        let outcomes: [StreamAppendResult<TypeConfig>; 4] = [
            Ok(None),
            Ok(Some(LogId::new_term_index(1, 2))),
            Err(StreamAppendError::Conflict(LogId::new_term_index(1, 0))),
            Err(StreamAppendError::HigherVote(Vote::new(9, 4))),
        ];
        for outcome in outcomes {
            assert_eq!(appended_back(&appended(&outcome)).unwrap(), outcome);
        }
    }
}
