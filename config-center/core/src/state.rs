//! The replicated state machine: one command in, one answer, the rows to persist and the events.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use schemas::authpb::{Permission, User};
use schemas::command::{Command, LeaseCheckpoint, V2Write, command::Op};
use schemas::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeResponse, Member,
    PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use schemas::mvccpb::KeyValue;

use crate::alarm::{Alarm, AlarmTable};
use crate::auth::{
    self, Access, AuthChange, AuthTable, Caller, V2AuthRefusal, V2Principal, V2Rights,
};
use crate::lease::{LeaseTable, MAX_TTL_S};
use crate::mvcc::{DigestRows, EventPage, KeyRange, Keyspace};
use crate::refusal::Refusal;
use crate::restore::Restorer;
use crate::txn;
use crate::v2::{V2Change, V2Cursor, V2Notice, V2Refusal, V2Table, V2View, V2Writer};
use crate::write::Writer;

/// Everything that members agree on. `Default` is the fresh store: revision 1, no keys.
#[derive(Debug, Default)]
pub struct State {
    pub(crate) keys: Keyspace,
    pub(crate) leases: LeaseTable,
    /// What members published about themselves. Of one that was removed only the id is left, in
    /// the entry and in the map: it never comes back.
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) alarms: AlarmTable,
    pub(crate) v2: V2Table,
    pub(crate) auth: AuthTable,
}

/// What a command answered. Headers are left out (`None`): the adapter knows cluster and term.
/// Inner headers of a transaction carry the revision, as etcd sends them.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    MemberPublish,
    Alarm(AlarmResponse),
    LeaseCheckpoint,
    /// What a v2 request did, or why it did nothing.
    V2(Box<Result<V2Notice, V2Refusal>>),
    /// The answers to changes of users and roles consist of their header.
    Auth,
    /// What a change of users and roles by v2 came to, or why it was not made.
    V2Auth(Box<Result<V2Principal, V2AuthRefusal>>),
    /// The user may be given a token for this revision.
    Authenticate {
        auth_revision: u64,
    },
}

/// One row-level change for the database of state, in the order of application.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new revision of a key. For a tombstone, `value` is empty and version and
    /// create_revision are 0.
    Revision(Arc<RevisionRow>),
    /// Superseded revisions at or below this one are gone.
    CompactTo {
        revision: i64,
    },
    LeasePut {
        id: i64,
        ttl_s: i64,
    },
    LeaseDelete {
        id: i64,
    },
    MemberPut(Member),
    AlarmRaised(Alarm),
    AlarmTakenBack(Alarm),
    /// What the leader's clock had left for a lease; 0: nothing is known beyond its grant.
    LeaseRemaining {
        id: i64,
        remaining_s: i64,
    },
    V2(V2Change),
    Auth(AuthChange),
}

/// One revision of one key as it is stored; `(main, sub)` is its identity.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionRow {
    pub main: i64,
    pub sub: i64,
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: i64,
    pub version: i64,
    pub lease: i64,
    pub tombstone: bool,
}

/// The outcome of one command.
#[derive(Debug)]
pub struct Applied {
    pub reply: Result<Reply, Refusal>,
    /// The store's revision after the command: the header's revision.
    pub revision: i64,
    pub changes: Vec<Change>,
}

impl Applied {
    /// The keys that this revision touched, for `WatcherGroups::publish`; a key may come twice.
    pub fn changed_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.changes.iter().filter_map(|change| match change {
            Change::Revision(row) => Some(&row.key),
            // Directories have no rows, and watchers all the same.
            Change::V2(V2Change::NodeDelete { path }) => Some(path),
            Change::V2(V2Change::Event(event)) => event.node.as_ref().map(|node| &node.path),
            _ => None,
        })
    }
}

/// What is written today. Version 2 knows alarms, version 3 the v2 API, version 4 says who asked,
/// version 5 knows v2's way to users and roles; a member that does not look would apply what others
/// refuse.
pub const COMMAND_VERSION: u32 = 5;

/// The oldest version that can be applied. Commands outside of this range must stop the member
/// before `State::apply`.
pub const OLDEST_COMMAND_VERSION: u32 = 1;

impl State {
    /// Starts to build a state from stored rows.
    #[must_use]
    pub fn restore() -> Restorer {
        Restorer::default()
    }

    /// Applies a committed command. A refused command changes nothing.
    ///
    /// Deterministic, reads included: what a transaction's range may read depends on the compacted
    /// revision, and compaction is itself a command, so it is the same on every member.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let outcome = match &command.op {
            // Alarms come first, as in etcd: what nobody may do now is not a question of who asks.
            Some(op) => self
                .alarms
                .check(op)
                .and_then(|()| self.authorize_command(command, op))
                .and_then(|()| self.carry_out(op)),
            None => Err(Refusal::NotCapable),
        };
        let (reply, changes) = match outcome {
            Ok((reply, changes)) => (Ok(reply), changes),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        Applied {
            reply,
            revision: self.revision(),
            changes,
        }
    }

    fn authorize_command(&self, command: &Command, op: &Op) -> Result<(), Refusal> {
        // The common case costs nothing.
        if !self.auth.is_enabled() {
            return Ok(());
        }
        self.authorize(&Caller::of(command), Access::of(op))
    }

    fn carry_out(&mut self, op: &Op) -> Outcome {
        let auth = &mut self.auth;
        let changed = match op {
            Op::Put(request) => return self.put(request),
            Op::DeleteRange(request) => return Ok(self.delete_range(request)),
            Op::Txn(request) => return self.txn(request),
            Op::Compaction(request) => return self.compact(request.revision),
            Op::LeaseGrant(request) => return self.lease_grant(request),
            Op::LeaseRevoke(request) => return self.lease_revoke(request.id),
            Op::LeaseCheckpoint(checkpoint) => return Ok(self.lease_checkpoint(checkpoint)),
            Op::MemberPublish(publish) => return Ok(self.publish_member(publish.member.as_ref())),
            Op::Alarm(request) => return self.alarm(request),
            Op::V2Write(request) => return Ok(self.v2_write(request)),
            Op::V2Expire(expire) => return Ok(self.v2_expire(expire.now_ms)),
            Op::V2UserWrite(write) => return Ok(v2_auth(auth.v2_write_user(write))),
            Op::V2RoleWrite(write) => return Ok(v2_auth(auth.v2_write_role(write))),
            Op::V2AuthEnable(_) => return Ok(v2_auth(auth.v2_enable())),
            Op::Authenticate(request) => {
                auth.authenticate(&request.name)?;
                let auth_revision = auth.revision();
                return Ok((Reply::Authenticate { auth_revision }, Vec::new()));
            }
            Op::AuthEnable(_) => auth.enable(),
            Op::AuthDisable(_) => auth.disable(),
            Op::AuthUserAdd(request) => auth.add_user(request),
            Op::AuthUserDelete(request) => auth.delete_user(&request.name),
            Op::AuthUserChangePassword(request) => auth.change_password(request),
            Op::AuthUserGrantRole(request) => auth.grant_role(request),
            Op::AuthUserRevokeRole(request) => auth.revoke_role(request),
            Op::AuthRoleAdd(request) => auth.add_role(&request.name),
            Op::AuthRoleDelete(request) => auth.delete_role(&request.role),
            Op::AuthRoleGrantPermission(request) => auth.grant_permission(request),
            Op::AuthRoleRevokePermission(request) => auth.revoke_permission(request),
        };
        let changes = changed?.into_iter().map(Change::Auth).collect();
        Ok((Reply::Auth, changes))
    }

    fn put(&mut self, request: &PutRequest) -> Outcome {
        let mut writer = self.writer();
        writer.check_put(request)?;
        let response = writer.put(request);
        Ok((Reply::Put(response), writer.commit()))
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> (Reply, Vec<Change>) {
        let mut writer = self.writer();
        let response = writer.delete_range(request);
        (Reply::DeleteRange(response), writer.commit())
    }

    fn txn(&mut self, request: &TxnRequest) -> Outcome {
        let mut writer = self.writer();
        let response = txn::execute(&mut writer, request)?;
        Ok((Reply::Txn(response), writer.commit()))
    }

    fn compact(&mut self, revision: i64) -> Outcome {
        self.keys.compact(revision)?;
        let mut changes = Vec::new();
        if revision > 0 {
            changes.push(Change::CompactTo { revision });
        }
        changes.extend(self.v2.sweep(&self.keys).into_iter().map(Change::V2));
        Ok((
            Reply::Compaction(CompactionResponse { header: None }),
            changes,
        ))
    }

    fn lease_grant(&mut self, request: &LeaseGrantRequest) -> Outcome {
        let (id, ttl_s) = (request.id, request.ttl);
        if id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl_s > MAX_TTL_S {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains(id) {
            return Err(Refusal::LeaseExists);
        }
        self.leases.grant(id, ttl_s);
        let response = LeaseGrantResponse {
            id,
            ttl: ttl_s,
            ..LeaseGrantResponse::default()
        };
        Ok((
            Reply::LeaseGrant(response),
            vec![Change::LeasePut { id, ttl_s }],
        ))
    }

    fn lease_revoke(&mut self, id: i64) -> Outcome {
        let keys = self.leases.revoke(id).ok_or(Refusal::LeaseNotFound)?;
        let mut writer = self.writer();
        for key in keys {
            writer.delete(&KeyRange::Single(key), |_| ());
        }
        let mut changes = writer.commit();
        changes.push(Change::LeaseDelete { id });
        Ok((
            Reply::LeaseRevoke(LeaseRevokeResponse { header: None }),
            changes,
        ))
    }

    /// A lease that is gone since the leader looked is skipped.
    fn lease_checkpoint(&mut self, checkpoint: &LeaseCheckpoint) -> (Reply, Vec<Change>) {
        let mut changes = Vec::new();
        for one in &checkpoint.leases {
            let (id, remaining_s) = (one.id, one.remaining_s.max(0));
            if self.leases.set_remaining(id, remaining_s) {
                changes.push(Change::LeaseRemaining { id, remaining_s });
            }
        }
        (Reply::LeaseCheckpoint, changes)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Outcome {
        let outcome = self.alarms.apply(request)?;
        let changes = match outcome.changed {
            Some((alarm, true)) => vec![Change::AlarmRaised(alarm)],
            Some((alarm, false)) => vec![Change::AlarmTakenBack(alarm)],
            None => Vec::new(),
        };
        let response = AlarmResponse {
            header: None,
            alarms: outcome.answer,
        };
        Ok((Reply::Alarm(response), changes))
    }

    fn publish_member(&mut self, member: Option<&Member>) -> (Reply, Vec<Change>) {
        let mut changes = Vec::new();
        if let Some(member) = member
            && !self.was_removed(member.id)
        {
            self.members.insert(member.id, member.clone());
            changes.push(Change::MemberPut(member.clone()));
        }
        (Reply::MemberPublish, changes)
    }

    fn v2_writer(&mut self) -> V2Writer<'_> {
        V2Writer {
            keys: &mut self.keys,
            leases: &mut self.leases,
            table: &mut self.v2,
        }
    }

    fn v2_write(&mut self, request: &V2Write) -> (Reply, Vec<Change>) {
        match self.v2_writer().write(request) {
            Ok((notice, changes)) => (Reply::V2(Box::new(Ok(notice))), changes),
            Err(refusal) => (Reply::V2(Box::new(Err(refusal))), Vec::new()),
        }
    }

    fn v2_expire(&mut self, now_ms: i64) -> (Reply, Vec<Change>) {
        let index = self.revision();
        let (notice, changes) = self.v2_writer().expire(now_ms).unwrap_or_else(|| {
            let nothing = V2Notice {
                index,
                ..V2Notice::default()
            };
            (nothing, Vec::new())
        });
        (Reply::V2(Box::new(Ok(notice))), changes)
    }

    /// A node of the v2 tree with its children, or with everything below it; hidden ones left out.
    pub fn v2_get(&self, path: &[u8], recursive: bool) -> Result<V2View, V2Refusal> {
        self.v2.tree(&self.keys).listing(path, recursive)
    }

    /// The same without the children that this caller may not read. Whether the node itself may be
    /// read was asked before.
    pub fn v2_get_for(
        &self,
        caller: &Caller,
        path: &[u8],
        recursive: bool,
    ) -> Result<V2View, V2Refusal> {
        let mut view = self.v2_get(path, recursive)?;
        let may_read = |path: &[u8], inside: bool| {
            let access = Access::V2Read {
                path,
                recursive: false,
                inside,
            };
            self.authorize(caller, access).is_ok()
        };
        if let Some(nodes) = &mut view.nodes
            && !may_read(path, true)
        {
            nodes.retain(|child| may_read(&child.path, false));
        }
        Ok(view)
    }

    /// A role as v2 shows it; the role root always exists there.
    #[must_use]
    pub fn v2_role(&self, name: &str) -> Option<V2Rights> {
        self.auth.v2_role(name)
    }

    /// The next v2 event for a watcher of a path, if there is one yet, and where to go on.
    pub fn v2_next(
        &self,
        from: V2Cursor,
        path: &[u8],
        recursive: bool,
    ) -> Result<(Option<V2Notice>, V2Cursor), V2Refusal> {
        self.v2.history(&self.keys).next(from, path, recursive)
    }

    /// When the next v2 node runs out, in milliseconds of the wall clock.
    #[must_use]
    pub fn v2_next_end_ms(&self) -> Option<i64> {
        self.v2.next_end_ms()
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(&mut self.keys, &mut self.leases)
    }

    /// A read of the newest or an older revision, without a header.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let current = self.keys.revision();
        let revision = self.keys.read_revision(request.revision, current)?;
        Ok(self.keys.read(request, revision))
    }

    /// The first `limit` pairs of a range in key order, and whether there are more. Sort order and
    /// filters are not looked at.
    pub fn range_page(
        &self,
        request: &RangeRequest,
        limit: usize,
    ) -> Result<(Vec<KeyValue>, bool), Refusal> {
        let current = self.keys.revision();
        let revision = self.keys.read_revision(request.revision, current)?;
        Ok(self.keys.page(request, revision, limit))
    }

    /// A transaction of reads only, without a header (its inner headers are filled). Anything but a
    /// range at the top level is `NotCapable`: see `validation::is_read_only`.
    pub fn read_only_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        txn::read_only(&self.keys, request)
    }

    /// The history of a range from `from_rev` to `to_rev`, both included, at most `max_revisions`
    /// revisions with events. `from_rev` equal to the compacted revision is legal, below is
    /// `Compacted`. A long stretch without events ends the page early: go on at `next_rev`.
    pub fn events(
        &self,
        range: &KeyRange,
        from_rev: i64,
        to_rev: i64,
        max_revisions: usize,
        prev_kv: bool,
    ) -> Result<EventPage, Refusal> {
        self.keys
            .events(range, from_rev, to_rev, max_revisions, prev_kv)
    }

    /// Whether this caller may do that, as the users and roles stand now.
    pub fn authorize(&self, caller: &Caller, access: Access<'_>) -> Result<(), Refusal> {
        auth::authorize(&self.auth, &self.leases, caller, access)
    }

    #[must_use]
    pub fn auth_is_enabled(&self) -> bool {
        self.auth.is_enabled()
    }

    /// Grows with each change of users and roles.
    #[must_use]
    pub fn auth_revision(&self) -> u64 {
        self.auth.revision()
    }

    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.auth.user(name)
    }

    /// By name.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        self.auth.users().map(str::to_owned).collect()
    }

    /// The hash to check a password against before `Op::Authenticate` is proposed.
    pub fn password_hash(&self, user: &str) -> Result<Bytes, Refusal> {
        self.auth.password_hash(user)
    }

    /// The permissions of a role, those of the role root in etcd's form.
    pub fn role(&self, name: &str) -> Result<Vec<Permission>, Refusal> {
        self.auth.role(name)
    }

    /// By name.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        self.auth.roles().map(str::to_owned).collect()
    }

    #[must_use]
    pub fn revision(&self) -> i64 {
        self.keys.revision()
    }

    /// -1 until the first compaction, as in etcd.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.keys.compacted()
    }

    /// What the present members have published, by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let members = self.members.values();
        members.filter(|m| !is_removal(m)).cloned().collect()
    }

    /// Whether a member of this id was in the cluster and has left it.
    #[must_use]
    pub fn was_removed(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(is_removal)
    }

    /// The member has left the cluster, by a membership entry of the log: its id stays taken.
    pub fn remove_member(&mut self, id: u64) -> Change {
        let removal = Member {
            id,
            ..Member::default()
        };
        self.members.insert(id, removal.clone());
        Change::MemberPut(removal)
    }

    /// The lease's TTL as granted and its keys in order; `None` for an unknown one.
    #[must_use]
    pub fn lease(&self, id: i64) -> Option<(i64, Vec<Bytes>)> {
        self.leases.get(id)
    }

    /// Every lease, its granted TTL, and what was left of it at the last checkpoint (0: unknown).
    #[must_use]
    pub fn leases_remaining(&self) -> Vec<(i64, i64, i64)> {
        self.leases.all_remaining().collect()
    }

    /// Keys that exist at the newest revision.
    #[must_use]
    pub fn live_keys(&self) -> usize {
        self.keys.current_rows().count()
    }

    /// The active alarms, by kind and member.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.all().collect()
    }

    /// Those of one kind as they are answered; `AlarmType::None` means every kind.
    #[must_use]
    pub fn alarms_of(&self, kind: i32) -> Vec<AlarmMember> {
        self.alarms.list(kind)
    }

    /// What a digest of the keys at this revision (0: the newest) covers.
    pub fn digest_rows(&self, revision: i64) -> Result<DigestRows, Refusal> {
        self.keys.digest_rows(revision)
    }

    /// Every lease with its granted TTL, by id.
    #[must_use]
    pub fn leases(&self) -> Vec<(i64, i64)> {
        self.leases.all().collect()
    }
}

fn v2_auth(outcome: Result<(V2Principal, Vec<AuthChange>), V2AuthRefusal>) -> (Reply, Vec<Change>) {
    match outcome {
        Ok((principal, changes)) => {
            let changes = changes.into_iter().map(Change::Auth).collect();
            (Reply::V2Auth(Box::new(Ok(principal))), changes)
        }
        Err(refusal) => (Reply::V2Auth(Box::new(Err(refusal))), Vec::new()),
    }
}

/// A member that runs has published at least its peer urls.
fn is_removal(member: &Member) -> bool {
    member.peer_ur_ls.is_empty() && member.client_ur_ls.is_empty() && member.name.is_empty()
}

type Outcome = Result<(Reply, Vec<Change>), Refusal>;
