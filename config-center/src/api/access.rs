//! The door that every call passes: who is calling, and may they.
//!
//! A service that proposes or reads does it through [`Context::propose`] and [`Context::read`], and
//! both take the call's credentials: there is no way around the decision of the core. Calls without
//! a key in them are judged by [`gate`] before the service is asked at all.

use config_center_core::{Access, Caller, Refusal, Reply, State};
use schemas::command::command::Op;
use schemas::etcdserverpb::ResponseHeader;

use super::{Context, Fault};
use crate::auth::{Credentials, index_of};
use crate::metrics::Rpc;

/// What a call needs before its service looks at it; `None` when it depends on the request. A new
/// call must be put somewhere here.
pub(crate) const fn gate(rpc: Rpc) -> Option<Access<'static>> {
    match rpc {
        // Judged where the request is read or proposed: `etcdserver: key is not provided` comes
        // before any question of who asks.
        Rpc::Range
        | Rpc::RangeStream
        | Rpc::Put
        | Rpc::DeleteRange
        | Rpc::Txn
        | Rpc::Watch
        | Rpc::LeaseKeepAlive
        | Rpc::UserGet
        | Rpc::RoleGet
        | Rpc::Lock
        | Rpc::Unlock
        | Rpc::Campaign
        | Rpc::Proclaim
        | Rpc::ElectionLeader
        | Rpc::Observe
        | Rpc::Resign => None,
        // Nobody has a token before this one.
        Rpc::Authenticate => None,
        Rpc::AuthStatus => Some(Access::Open),
        // To change an alarm needs more; its proposal is judged for itself.
        Rpc::Alarm | Rpc::Status | Rpc::MemberList => Some(Access::Authenticated),
        Rpc::LeaseGrant | Rpc::LeaseRevoke | Rpc::LeaseTimeToLive | Rpc::LeaseLeases => {
            Some(Access::Authenticated)
        }
        Rpc::Compact
        | Rpc::MemberAdd
        | Rpc::MemberRemove
        | Rpc::MemberUpdate
        | Rpc::MemberPromote
        | Rpc::Defragment
        | Rpc::Hash
        | Rpc::HashKv
        | Rpc::Snapshot
        | Rpc::MoveLeader
        | Rpc::Downgrade
        | Rpc::AuthEnable
        | Rpc::AuthDisable
        | Rpc::UserAdd
        | Rpc::UserList
        | Rpc::UserDelete
        | Rpc::UserChangePassword
        | Rpc::UserGrantRole
        | Rpc::UserRevokeRole
        | Rpc::RoleAdd
        | Rpc::RoleList
        | Rpc::RoleDelete
        | Rpc::RoleGrantPermission
        | Rpc::RoleRevokePermission => Some(Access::Admin),
    }
}

impl Context {
    /// Establishes who is calling. While authentication is off nobody is asked, and a token is not
    /// looked at.
    pub(crate) async fn identify(&self, credentials: &Credentials) -> Result<Caller, Fault> {
        let engine = self.engine();
        if !engine.auth_enabled() {
            return Ok(Caller::Anonymous);
        }
        if let (Some(token), Some(signed)) = (&credentials.token, &self.signed_tokens) {
            let claims = signed.check(token).ok_or(Refusal::InvalidAuthToken)?;
            return Ok(Caller::User {
                name: claims.user,
                auth_revision: claims.auth_revision,
            });
        }
        let name = match (&credentials.token, &credentials.certificate_name) {
            (Some(token), _) => self
                .token_user(token)
                .await
                .ok_or(Refusal::InvalidAuthToken)?,
            (None, Some(name)) => name.clone(),
            (None, None) => return Ok(Caller::Anonymous),
        };
        Ok(Caller::User {
            name,
            auth_revision: engine.read(State::auth_revision),
        })
    }

    /// A token made by another member is in a log entry that this one may not have applied yet.
    async fn token_user(&self, token: &str) -> Option<String> {
        let engine = self.engine();
        if let Some(user) = engine.token_user(token) {
            return Some(user);
        }
        let index = index_of(token)?;
        let patience = self.node.request_timeout();
        tokio::time::timeout(patience, self.node.applied(index))
            .await
            .ok()?
            .ok()?;
        engine.token_user(token)
    }

    /// Establishes who is calling and asks whether they may.
    ///
    /// A member that lags behind may not know a user or a permission yet, so a no counts only after
    /// a look at what the cluster has agreed on.
    pub(crate) async fn permit(
        &self,
        credentials: &Credentials,
        access: Access<'_>,
    ) -> Result<Caller, Fault> {
        if !self.engine().auth_enabled() {
            return Ok(Caller::Anonymous);
        }
        // Boxed, so that the calls of a store without users do not carry it about.
        Box::pin(self.permit_user(credentials, access)).await
    }

    async fn permit_user(
        &self,
        credentials: &Credentials,
        access: Access<'_>,
    ) -> Result<Caller, Fault> {
        let refused = match self.decide(credentials, access).await {
            Ok(caller) => return Ok(caller),
            Err(refused) => refused,
        };
        if self.node.read_barrier().await.is_err() {
            return Err(refused);
        }
        self.decide(credentials, access).await
    }

    async fn decide(&self, credentials: &Credentials, access: Access<'_>) -> Result<Caller, Fault> {
        let caller = self.identify(credentials).await?;
        if self.engine().auth_enabled() {
            self.engine()
                .read(|state| state.authorize(&caller, access))?;
        }
        Ok(caller)
    }

    /// Replicates a command. The answer's header is already complete.
    pub(crate) async fn propose(
        &self,
        credentials: &Credentials,
        op: Op,
    ) -> Result<(Reply, ResponseHeader), Fault> {
        let caller = self.permit(credentials, Access::of(&op)).await?;
        self.propose_as(&caller, op).await
    }

    /// Reads when the caller may, under one hold of the state: nobody's rights change in between.
    pub(crate) async fn read<T>(
        &self,
        credentials: &Credentials,
        access: Access<'_>,
        read: impl FnOnce(&State) -> T,
    ) -> Result<T, Fault> {
        let caller = if self.engine().auth_enabled() {
            Box::pin(self.identify(credentials)).await?
        } else {
            Caller::Anonymous
        };
        self.engine().read(|state| {
            state.authorize(&caller, access)?;
            Ok(read(state))
        })
    }
}
