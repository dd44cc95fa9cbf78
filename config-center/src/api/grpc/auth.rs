//! Auth: there are no users yet. What can be said truthfully is said, the rest is refused by name.

use std::sync::Arc;

use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::{counted, not_implemented};
use crate::api::{Context, Fault};
use crate::metrics::Rpc;

pub(super) struct AuthService(pub(super) Arc<Context>);

macro_rules! auth_service {
    ($($method:ident($request:ident) -> $response:ident = $rpc:ident;)*) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            async fn auth_status(
                &self,
                request: Request<pb::AuthStatusRequest>,
            ) -> Result<Response<pb::AuthStatusResponse>, Status> {
                counted(&self.0, Rpc::AuthStatus, request.metadata(), async {
                    let revision = self.0.engine().read(|state| state.revision());
                    Ok(pb::AuthStatusResponse {
                        header: Some(self.0.header(revision)),
                        enabled: false,
                        // What a store without any user has in etcd.
                        auth_revision: 1,
                    })
                })
                .await
            }

            /// Clients with a configured user try this first, and go on without a token when they
            /// are told that there is no authentication.
            async fn authenticate(
                &self,
                request: Request<pb::AuthenticateRequest>,
            ) -> Result<Response<pb::AuthenticateResponse>, Status> {
                counted(&self.0, Rpc::Authenticate, request.metadata(), async {
                    Err(Fault::AuthNotEnabled)
                })
                .await
            }

            $(async fn $method(
                &self,
                _: Request<pb::$request>,
            ) -> Result<Response<pb::$response>, Status> {
                not_implemented(&self.0, Rpc::$rpc)
            })*
        }
    };
}

auth_service! {
    auth_enable(AuthEnableRequest) -> AuthEnableResponse = AuthEnable;
    auth_disable(AuthDisableRequest) -> AuthDisableResponse = AuthDisable;
    user_add(AuthUserAddRequest) -> AuthUserAddResponse = UserAdd;
    user_get(AuthUserGetRequest) -> AuthUserGetResponse = UserGet;
    user_list(AuthUserListRequest) -> AuthUserListResponse = UserList;
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse = UserDelete;
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse
        = UserChangePassword;
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse = UserGrantRole;
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse = UserRevokeRole;
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse = RoleAdd;
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse = RoleGet;
    role_list(AuthRoleListRequest) -> AuthRoleListResponse = RoleList;
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse = RoleDelete;
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse
        = RoleGrantPermission;
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse
        = RoleRevokePermission;
}
