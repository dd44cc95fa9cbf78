//! Auth: users, roles, permissions and tokens. Changes go through consensus; passwords are hashed
//! or checked before, so that no log entry and no other member ever sees one.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use config_center_core::{Access, Caller, Refusal, Reply};
use schemas::command::{self as cmd, command::Op};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_server::Auth;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::counted;
use crate::api::{Context, Fault};
use crate::auth::{Credentials, random_prefix};
use crate::metrics::Rpc;
use crate::raft::ProposeError;

pub(super) struct AuthService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthEnable(change));
        counted(&self.0, Rpc::AuthEnable, &metadata, async {
            Ok(pb::AuthEnableResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthDisable(change));
        counted(&self.0, Rpc::AuthDisable, &metadata, async {
            Ok(pb::AuthDisableResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthUserDelete(change));
        counted(&self.0, Rpc::UserDelete, &metadata, async {
            Ok(pb::AuthUserDeleteResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthUserGrantRole(change));
        counted(&self.0, Rpc::UserGrantRole, &metadata, async {
            Ok(pb::AuthUserGrantRoleResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthUserRevokeRole(change));
        counted(&self.0, Rpc::UserRevokeRole, &metadata, async {
            Ok(pb::AuthUserRevokeRoleResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthRoleAdd(change));
        counted(&self.0, Rpc::RoleAdd, &metadata, async {
            Ok(pb::AuthRoleAddResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthRoleDelete(change));
        counted(&self.0, Rpc::RoleDelete, &metadata, async {
            Ok(pb::AuthRoleDeleteResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthRoleGrantPermission(change));
        counted(&self.0, Rpc::RoleGrantPermission, &metadata, async {
            Ok(pb::AuthRoleGrantPermissionResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let (metadata, _, change) = request.into_parts();
        let change = self.change(&metadata, Op::AuthRoleRevokePermission(change));
        counted(&self.0, Rpc::RoleRevokePermission, &metadata, async {
            Ok(pb::AuthRoleRevokePermissionResponse {
                header: change.await?,
            })
        })
        .await
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let metadata = request.metadata();
        counted(&self.0, Rpc::AuthStatus, metadata, async {
            self.0.node.read_barrier().await?;
            self.0
                .read(&Credentials::of(metadata), Access::Open, |state| {
                    pb::AuthStatusResponse {
                        header: Some(self.0.header(state.revision())),
                        enabled: state.auth_is_enabled(),
                        auth_revision: state.auth_revision(),
                    }
                })
                .await
        })
        .await
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let (metadata, _, login) = request.into_parts();
        let work = self.log_in(login.name, login.password);
        counted(&self.0, Rpc::Authenticate, &metadata, work).await
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (metadata, _, user) = request.into_parts();
        counted(&self.0, Rpc::UserAdd, &metadata, async {
            let no_password = user.options.is_some_and(|options| options.no_password);
            let password_hash = if no_password {
                Bytes::new()
            } else {
                self.0.passwords.hash(user.password).await?
            };
            let op = Op::AuthUserAdd(cmd::AuthUserAdd {
                name: user.name,
                password_hash,
                no_password,
            });
            let header = self.change(&metadata, op).await?;
            Ok(pb::AuthUserAddResponse { header })
        })
        .await
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (metadata, _, user) = request.into_parts();
        counted(&self.0, Rpc::UserChangePassword, &metadata, async {
            let password_hash = if user.password.is_empty() {
                // A client may have hashed it itself.
                STANDARD
                    .decode(user.hashed_password)
                    .map_err(|_| Refusal::NoPasswordUser)?
                    .into()
            } else {
                self.0.passwords.hash(user.password).await?
            };
            let op = Op::AuthUserChangePassword(cmd::AuthUserChangePassword {
                name: user.name,
                password_hash,
            });
            let header = self.change(&metadata, op).await?;
            Ok(pb::AuthUserChangePasswordResponse { header })
        })
        .await
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        counted(&self.0, Rpc::UserGet, &metadata, async {
            self.0.node.read_barrier().await?;
            let (user, revision) = self
                .0
                .read(
                    &Credentials::of(&metadata),
                    Access::User(&asked.name),
                    |state| (state.user(&asked.name).cloned(), state.revision()),
                )
                .await?;
            Ok(pb::AuthUserGetResponse {
                header: Some(self.0.header(revision)),
                roles: user.ok_or(Refusal::UserNotFound)?.roles,
            })
        })
        .await
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let metadata = request.metadata();
        counted(&self.0, Rpc::UserList, metadata, async {
            self.0.node.read_barrier().await?;
            self.0
                .read(&Credentials::of(metadata), Access::Admin, |state| {
                    pb::AuthUserListResponse {
                        header: Some(self.0.header(state.revision())),
                        users: state.users(),
                    }
                })
                .await
        })
        .await
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        counted(&self.0, Rpc::RoleGet, &metadata, async {
            self.0.node.read_barrier().await?;
            let (role, revision) = self
                .0
                .read(
                    &Credentials::of(&metadata),
                    Access::Role(&asked.role),
                    |state| (state.role(&asked.role), state.revision()),
                )
                .await?;
            Ok(pb::AuthRoleGetResponse {
                header: Some(self.0.header(revision)),
                perm: role?,
            })
        })
        .await
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let metadata = request.metadata();
        counted(&self.0, Rpc::RoleList, metadata, async {
            self.0.node.read_barrier().await?;
            self.0
                .read(&Credentials::of(metadata), Access::Admin, |state| {
                    pb::AuthRoleListResponse {
                        header: Some(self.0.header(state.revision())),
                        roles: state.roles(),
                    }
                })
                .await
        })
        .await
    }
}

impl AuthService {
    async fn change(
        &self,
        metadata: &MetadataMap,
        op: Op,
    ) -> Result<Option<pb::ResponseHeader>, Fault> {
        match self.0.propose(&Credentials::of(metadata), op).await? {
            (Reply::Auth, header) => Ok(Some(header)),
            _ => Err(Fault::MismatchedReply),
        }
    }

    /// Checks the password, then has every member remember the token. Should users have changed
    /// between the two, the password is checked again.
    async fn log_in(
        &self,
        name: String,
        password: String,
    ) -> Result<pb::AuthenticateResponse, Fault> {
        self.0.node.read_barrier().await?;
        loop {
            let (hash, checked_at) = self
                .0
                .engine()
                .read(|state| (state.password_hash(&name), state.auth_revision()));
            if let Err(refusal @ (Refusal::AuthNotEnabled | Refusal::NoPasswordUser)) = hash {
                return Err(refusal.into());
            }
            if !self.0.passwords.check(password.clone(), hash.ok()).await? {
                tracing::info!(user = name, "a login was refused");
                return Err(Refusal::AuthFailed.into());
            }
            let signed = self.0.signed_tokens.as_ref();
            let simple_token = match signed {
                Some(_) => String::new(),
                None => random_prefix().ok_or(ProposeError::Stopped)?,
            };
            let op = Op::Authenticate(cmd::Authenticate {
                name: name.clone(),
                simple_token: simple_token.clone(),
            });
            // Nobody can have a token for this call, so it is made in nobody's name.
            let proposed = self.0.propose_indexed(&Caller::Anonymous, op).await?;
            let (Reply::Authenticate { auth_revision }, header, index) = proposed else {
                return Err(Fault::MismatchedReply);
            };
            if auth_revision == checked_at {
                return Ok(pb::AuthenticateResponse {
                    header: Some(header),
                    token: match signed {
                        Some(signed) => signed
                            .sign(&name, auth_revision)
                            .ok_or(Fault::NoSigningKey)?,
                        None => format!("{simple_token}.{index}"),
                    },
                });
            }
        }
    }
}
