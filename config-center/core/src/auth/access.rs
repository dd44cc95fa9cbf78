//! The one decision: may this caller do that?
//!
//! The whole of a request counts: both branches of a transaction and everything nested in them,
//! each compare, the previous values that an answer would show, and the keys that hang on a lease.
//! Asked before a proposal, so that what is not allowed never reaches the log, and again when the
//! command is applied, because users may have changed in between.

use bytes::Bytes;
use schemas::command::{Command, V2Write, command::Op, v2_write::Verb};
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::permissions::Kind;
use super::table::{AuthTable, ROOT_ROLE};
use super::v2;
use crate::lease::LeaseTable;
use crate::mvcc::KeyRange;
use crate::refusal::Refusal;

/// Who asks, as established by a token or a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client that named no user. Allowed everything while authentication is off.
    Anonymous,
    /// `auth_revision` is the revision of the table when this was established.
    User { name: String, auth_revision: u64 },
    /// A member of the cluster itself: expiry of leases, publication of members.
    Member,
}

impl Caller {
    /// The command that carries this caller with it.
    #[must_use]
    pub fn command(&self, op: Op) -> Command {
        let (user, auth_revision, by_member) = match self {
            Self::Anonymous => (String::new(), 0, false),
            Self::User {
                name,
                auth_revision,
            } => (name.clone(), *auth_revision, false),
            Self::Member => (String::new(), 0, true),
        };
        Command {
            version: crate::state::COMMAND_VERSION,
            op: Some(op),
            user,
            auth_revision,
            by_member,
            ..Command::default()
        }
    }

    /// Who asked for this command.
    #[must_use]
    pub fn of(command: &Command) -> Self {
        if command.by_member {
            Self::Member
        } else if command.auth_revision == 0 {
            Self::Anonymous
        } else {
            Self::User {
                name: command.user.clone(),
                auth_revision: command.auth_revision,
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::User { name, .. } => name,
            Self::Anonymous | Self::Member => "",
        }
    }
}

/// What is asked for, as far as the decision depends on it.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// Anybody may, also without a name.
    Open,
    /// Any user.
    Authenticated,
    /// Only users with the role root.
    Admin,
    /// Only a member of the cluster itself, while authentication is on.
    MemberOnly,
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    DeleteRange(&'a DeleteRangeRequest),
    Txn(&'a TxnRequest),
    Watch(&'a KeyRange),
    /// On v2, a node, or with `recursive` everything that begins like it. `inside` says that the path
    /// ended with a slash, which means what lies in the directory.
    V2Read {
        path: &'a [u8],
        recursive: bool,
        inside: bool,
    },
    V2Write(&'a V2Write),
    /// To end or renew a lease is to decide over the keys that hang on it.
    LeaseWrite(i64),
    /// Shows the keys of a lease.
    LeaseRead(i64),
    /// Shows which leases exist.
    EveryLease,
    /// Shows a user; everybody may see oneself.
    User(&'a str),
    /// Shows a role; everybody may see one's own.
    Role(&'a str),
}

impl<'a> Access<'a> {
    /// What a command asks for. A new kind of command must be put somewhere here.
    #[must_use]
    pub fn of(op: &'a Op) -> Self {
        match op {
            Op::Put(request) => Self::Put(request),
            Op::DeleteRange(request) => Self::DeleteRange(request),
            Op::Txn(request) => Self::Txn(request),
            Op::Compaction(_) => Self::Admin,
            Op::LeaseGrant(_) => Self::Authenticated,
            Op::LeaseRevoke(request) => Self::LeaseWrite(request.id),
            Op::MemberPublish(_) | Op::LeaseCheckpoint(_) | Op::V2Expire(_) => Self::MemberOnly,
            Op::V2Write(write) => Self::V2Write(write),
            Op::Alarm(_) => Self::Admin,
            // The password was checked before the proposal.
            Op::Authenticate(_) => Self::Open,
            Op::V2UserWrite(_)
            | Op::V2RoleWrite(_)
            | Op::V2AuthEnable(_)
            | Op::AuthEnable(_)
            | Op::AuthDisable(_)
            | Op::AuthUserAdd(_)
            | Op::AuthUserDelete(_)
            | Op::AuthUserChangePassword(_)
            | Op::AuthUserGrantRole(_)
            | Op::AuthUserRevokeRole(_)
            | Op::AuthRoleAdd(_)
            | Op::AuthRoleDelete(_)
            | Op::AuthRoleGrantPermission(_)
            | Op::AuthRoleRevokePermission(_) => Self::Admin,
        }
    }
}

/// Decides. Everything is allowed while authentication is off, and to a member itself.
pub(crate) fn authorize(
    auth: &AuthTable,
    leases: &LeaseTable,
    caller: &Caller,
    access: Access<'_>,
) -> Result<(), Refusal> {
    if !auth.is_enabled() || *caller == Caller::Member {
        return Ok(());
    }
    let decision = Decision {
        auth,
        leases,
        caller,
    };
    match access {
        Access::Open => Ok(()),
        Access::Authenticated => decision.authenticated(),
        Access::Admin => decision.admin(),
        Access::MemberOnly => Err(Refusal::PermissionDenied),
        Access::Range(range) => decision.keys(Kind::Read, &range.key, &range.range_end),
        Access::Put(put) => decision.put(put),
        Access::DeleteRange(delete) => decision.delete_range(delete),
        Access::Txn(txn) => decision.txn(txn),
        Access::Watch(range) => match range {
            KeyRange::Single(key) => decision.keys(Kind::Read, key, &[]),
            KeyRange::Span { start, end } => decision.keys(Kind::Read, start, end),
            KeyRange::From(start) => decision.keys(Kind::Read, start, &[0]),
        },
        Access::V2Read {
            path, inside: true, ..
        } => decision.v2_inside(Kind::Read, path),
        Access::V2Read {
            path, recursive, ..
        } => decision.v2_node(Kind::Read, path, recursive),
        Access::V2Write(write) => decision.v2_write(write),
        Access::LeaseWrite(id) => {
            decision.authenticated()?;
            decision.lease(Kind::Write, id)
        }
        Access::LeaseRead(id) => {
            decision.authenticated()?;
            decision.lease(Kind::Read, id)
        }
        Access::EveryLease => decision.every_lease(),
        Access::User(name) => match decision.admin() {
            Err(_) if !name.is_empty() && name == caller.name() => Ok(()),
            answer => answer,
        },
        Access::Role(name) => match decision.admin() {
            Err(_) if auth.has_role(caller.name(), name) => Ok(()),
            answer => answer,
        },
    }
}

struct Decision<'a> {
    auth: &'a AuthTable,
    leases: &'a LeaseTable,
    caller: &'a Caller,
}

type Allowed = Result<(), Refusal>;

impl Decision<'_> {
    fn authenticated(&self) -> Allowed {
        match self.caller {
            Caller::Anonymous => Err(Refusal::UserEmpty),
            Caller::User { .. } | Caller::Member => Ok(()),
        }
    }

    /// The revision does not matter here, as in etcd: the role is looked up now.
    fn admin(&self) -> Allowed {
        match self.caller {
            Caller::Anonymous => Err(Refusal::UserEmpty),
            Caller::User { name, .. } if name.is_empty() => Err(Refusal::UserEmpty),
            Caller::User { name, .. } if self.auth.user(name).is_none() => {
                Err(Refusal::UserNotFound)
            }
            Caller::User { name, .. } if !self.auth.has_role(name, ROOT_ROLE) => {
                Err(Refusal::PermissionDenied)
            }
            Caller::User { .. } | Caller::Member => Ok(()),
        }
    }

    fn keys(&self, kind: Kind, key: &[u8], range_end: &[u8]) -> Allowed {
        let (name, auth_revision) = match self.caller {
            Caller::Anonymous => return Err(Refusal::UserEmpty),
            Caller::Member => return Ok(()),
            Caller::User {
                name,
                auth_revision,
            } => (name, *auth_revision),
        };
        // A later revision than ours belongs to a history that was given up for a backup.
        if auth_revision != self.auth.revision() {
            return Err(Refusal::AuthRevisionOld);
        }
        if self.auth.has_role(name, ROOT_ROLE) {
            return Ok(());
        }
        match self.auth.permissions(name) {
            Some(held) if held.cover(kind, key, range_end) => Ok(()),
            _ => Err(Refusal::PermissionDenied),
        }
    }

    fn put(&self, put: &PutRequest) -> Allowed {
        self.keys(Kind::Write, &put.key, &[])?;
        // Whoever could not end the lease must not hang more keys on it.
        self.lease(Kind::Write, put.lease)?;
        if put.prev_kv {
            self.keys(Kind::Read, &put.key, &[])?;
        }
        Ok(())
    }

    fn delete_range(&self, delete: &DeleteRangeRequest) -> Allowed {
        self.keys(Kind::Write, &delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.keys(Kind::Read, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    fn txn(&self, txn: &TxnRequest) -> Allowed {
        for compare in &txn.compare {
            self.keys(Kind::Read, &compare.key, &compare.range_end)?;
        }
        self.operations(&txn.success)?;
        self.operations(&txn.failure)
    }

    fn operations(&self, operations: &[RequestOp]) -> Allowed {
        operations
            .iter()
            .try_for_each(|operation| match &operation.request {
                Some(Request::RequestRange(range)) => {
                    self.keys(Kind::Read, &range.key, &range.range_end)
                }
                Some(Request::RequestPut(put)) => self.put(put),
                Some(Request::RequestDeleteRange(delete)) => self.delete_range(delete),
                Some(Request::RequestTxn(inner)) => self.txn(inner),
                None => Ok(()),
            })
    }

    /// As `keys`, but whoever names no user may be a guest.
    fn v2_keys(&self, kind: Kind, key: &[u8], range_end: &[u8]) -> Allowed {
        match (self.caller, self.auth.guest()) {
            (Caller::Anonymous, Some(held)) if held.cover(kind, key, range_end) => Ok(()),
            (Caller::Anonymous, Some(_)) => Err(Refusal::PermissionDenied),
            _ => self.keys(kind, key, range_end),
        }
    }

    fn v2_node(&self, kind: Kind, path: &[u8], recursive: bool) -> Allowed {
        if recursive {
            // Everything that begins like the path, as v2 has it: its neighbours `/ab` beside what
            // is inside of `/a`.
            self.v2_keys(kind, path, &v2::prefix_end(path))
        } else {
            self.v2_keys(kind, path, &[])
        }
    }

    fn v2_inside(&self, kind: Kind, path: &[u8]) -> Allowed {
        let inside = v2::inside(path);
        self.v2_keys(kind, &inside, &v2::prefix_end(&inside))
    }

    fn v2_write(&self, write: &V2Write) -> Allowed {
        self.v2_node(Kind::Write, &write.path, write.recursive)?;
        match write.verb() {
            // Its key is not known yet, but lies inside.
            Verb::CreateUnique => self.v2_inside(Kind::Write, &write.path),
            // The answer tells what the condition was compared with.
            Verb::CompareAndSwap | Verb::CompareAndDelete => {
                self.v2_node(Kind::Read, &write.path, false)
            }
            _ => Ok(()),
        }
    }

    fn lease(&self, kind: Kind, id: i64) -> Allowed {
        if self.admin().is_ok() {
            return Ok(());
        }
        self.every(kind, self.leases.keys(id))
    }

    fn every_lease(&self) -> Allowed {
        self.authenticated()?;
        if self.admin().is_ok() {
            return Ok(());
        }
        self.leases
            .all()
            .try_for_each(|(id, _)| self.every(Kind::Read, self.leases.keys(id)))
    }

    fn every<'k>(&self, kind: Kind, keys: impl Iterator<Item = &'k Bytes>) -> Allowed {
        for key in keys {
            self.keys(kind, key, &[])?;
        }
        Ok(())
    }
}
