//! One server under calls by users with and without rights.

use std::collections::BTreeMap;

use anyhow::Context;
use proptest::strategy::Strategy;
use schemas::authpb::{Permission, UserAddOptions};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_client::AuthClient;
use tonic::{Code, Response, Status};

use super::Subject;
use super::auth_operations::{AuthOperation, Call, Caller, PASSWORDS, ROLES, USERS, sequence};
use super::requests::range_end;
use super::session::{self, Calls};

/// Of the right form, and never given.
const FORGED: &str = "abcdefghijklmnop.1";
/// What the roles of the start allow.
const OWN_KEYS: (&[u8], &[u8]) = (b"a", b"c");

pub(super) struct Session {
    store: session::Session,
    auth: AuthClient<Calls>,
    tokens: BTreeMap<&'static str, String>,
    /// Authentication's own revision at the start of the sequence.
    first_revision: u64,
}

impl Subject for Session {
    type Operation = AuthOperation;

    fn sequences() -> impl Strategy<Value = Vec<AuthOperation>> {
        sequence()
    }

    async fn connect(url: &str) -> anyhow::Result<Self> {
        let store = session::Session::connect(url).await?;
        Ok(Self {
            auth: AuthClient::new(store.calls.clone()),
            store,
            tokens: BTreeMap::new(),
            first_revision: 0,
        })
    }

    /// An empty store with root, a writer and a reader of some keys, and a user without rights.
    async fn reset(&mut self) -> anyhow::Result<()> {
        self.take_over().await?;
        self.store.reset().await?;
        for role in ["reader", "writer"] {
            let name = role.to_owned();
            self.auth.role_add(pb::AuthRoleAddRequest { name }).await?;
            let perm_type = i32::from(role == "writer") * 2;
            let permission = Permission {
                perm_type,
                key: OWN_KEYS.0.to_vec().into(),
                range_end: OWN_KEYS.1.to_vec().into(),
            };
            let grant = pb::AuthRoleGrantPermissionRequest {
                name: role.to_owned(),
                perm: Some(permission),
            };
            self.auth.role_grant_permission(grant).await?;
        }
        for user in USERS {
            let add = pb::AuthUserAddRequest {
                name: user.to_owned(),
                password: PASSWORDS[0].to_owned(),
                ..pb::AuthUserAddRequest::default()
            };
            self.auth.user_add(add).await?;
            if ROLES.contains(&user) {
                let grant = pb::AuthUserGrantRoleRequest {
                    user: user.to_owned(),
                    role: user.to_owned(),
                };
                self.auth.user_grant_role(grant).await?;
            }
        }
        self.auth.auth_enable(pb::AuthEnableRequest {}).await?;
        self.tokens.clear();
        for user in USERS {
            let token = self.login(user, PASSWORDS[0]).await?;
            self.tokens.insert(user, token);
        }
        let status = self.auth.auth_status(pb::AuthStatusRequest {}).await?;
        self.first_revision = status.into_inner().auth_revision;
        Ok(())
    }

    async fn perform(&mut self, operation: &AuthOperation) -> anyhow::Result<String> {
        let token = match operation.caller {
            Caller::User(user) => self.tokens.get(user).map(String::as_str),
            Caller::Nobody => None,
            Caller::Forger => Some(FORGED),
        };
        self.store.bearer.become_holder_of(token)?;
        if let Call::Store(operation) = &operation.call {
            return self.store.perform(operation).await;
        }
        self.administer(&operation.call).await
    }

    async fn finish(&mut self) -> anyhow::Result<String> {
        self.store.bearer.become_holder_of(None)?;
        self.store.finish().await
    }
}

/// Gives an answer's header and the answer's text; all answers of Auth have both.
macro_rules! told {
    ($self:ident, $outcome:expr) => {{
        let outcome = $outcome;
        let base = $self.store.known.base;
        $self.store.text(outcome, |answer| {
            base.header(&mut answer.header);
            answer.header
        })
    }};
}

impl Session {
    /// From whatever the sequence before has left: authentication off, and neither users nor roles.
    async fn take_over(&mut self) -> anyhow::Result<()> {
        self.store.bearer.become_holder_of(None)?;
        let status = self.auth.auth_status(pb::AuthStatusRequest {}).await?;
        if status.into_inner().enabled {
            let mut token = None;
            for password in PASSWORDS {
                match self.login("root", password).await {
                    Ok(given) => token = Some(given),
                    // Not this one.
                    Err(status) if status.code() == Code::InvalidArgument => {}
                    Err(status) => return Err(status.into()),
                }
            }
            let token = token.context("root has one of the passwords")?;
            self.store.bearer.become_holder_of(Some(&token))?;
            self.auth.auth_disable(pb::AuthDisableRequest {}).await?;
            self.store.bearer.become_holder_of(None)?;
        }
        let users = self.auth.user_list(pb::AuthUserListRequest {}).await?;
        for name in users.into_inner().users {
            let delete = pb::AuthUserDeleteRequest { name };
            self.auth.user_delete(delete).await?;
        }
        let roles = self.auth.role_list(pb::AuthRoleListRequest {}).await?;
        for role in roles.into_inner().roles {
            let delete = pb::AuthRoleDeleteRequest { role };
            self.auth.role_delete(delete).await?;
        }
        Ok(())
    }

    async fn login(&mut self, name: &str, password: &str) -> Result<String, Status> {
        let request = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        Ok(self.auth.authenticate(request).await?.into_inner().token)
    }

    async fn administer(&mut self, call: &Call) -> anyhow::Result<String> {
        let text = str::to_owned;
        match call {
            Call::Store(_) => anyhow::bail!("not a call of Auth"),
            Call::Login { user, password } => self.log_in(user, password).await,
            Call::Enable => told!(self, self.auth.auth_enable(pb::AuthEnableRequest {}).await),
            Call::Disable => told!(
                self,
                self.auth.auth_disable(pb::AuthDisableRequest {}).await
            ),
            Call::Status => {
                let mut answer = self.auth.auth_status(pb::AuthStatusRequest {}).await;
                if let Ok(answer) = &mut answer {
                    let revision = &mut answer.get_mut().auth_revision;
                    *revision = revision.wrapping_sub(self.first_revision);
                }
                told!(self, answer)
            }
            Call::UserAdd {
                user,
                password,
                no_password,
            } => {
                let request = pb::AuthUserAddRequest {
                    name: text(user),
                    password: text(password),
                    options: no_password.then_some(UserAddOptions { no_password: true }),
                    ..pb::AuthUserAddRequest::default()
                };
                told!(self, self.auth.user_add(request).await)
            }
            Call::UserDelete(user) => {
                let request = pb::AuthUserDeleteRequest { name: text(user) };
                told!(self, self.auth.user_delete(request).await)
            }
            Call::UserGet(user) => {
                let request = pb::AuthUserGetRequest { name: text(user) };
                told!(self, self.auth.user_get(request).await)
            }
            Call::UserList => told!(self, self.auth.user_list(pb::AuthUserListRequest {}).await),
            Call::UserChangePassword { user, password } => {
                let request = pb::AuthUserChangePasswordRequest {
                    name: text(user),
                    password: text(password),
                    ..pb::AuthUserChangePasswordRequest::default()
                };
                told!(self, self.auth.user_change_password(request).await)
            }
            Call::UserGrantRole { user, role } => {
                let request = pb::AuthUserGrantRoleRequest {
                    user: text(user),
                    role: text(role),
                };
                told!(self, self.auth.user_grant_role(request).await)
            }
            Call::UserRevokeRole { user, role } => {
                let request = pb::AuthUserRevokeRoleRequest {
                    name: text(user),
                    role: text(role),
                };
                told!(self, self.auth.user_revoke_role(request).await)
            }
            Call::RoleAdd(role) => {
                let request = pb::AuthRoleAddRequest { name: text(role) };
                told!(self, self.auth.role_add(request).await)
            }
            Call::RoleDelete(role) => {
                let request = pb::AuthRoleDeleteRequest { role: text(role) };
                told!(self, self.auth.role_delete(request).await)
            }
            Call::RoleGet(role) => {
                let request = pb::AuthRoleGetRequest { role: text(role) };
                told!(self, self.auth.role_get(request).await)
            }
            Call::RoleList => told!(self, self.auth.role_list(pb::AuthRoleListRequest {}).await),
            Call::RoleGrantPermission {
                role,
                kind,
                key,
                end,
            } => {
                let permission = Permission {
                    perm_type: *kind,
                    key: key.clone().into(),
                    range_end: range_end(key, end),
                };
                let request = pb::AuthRoleGrantPermissionRequest {
                    name: text(role),
                    perm: Some(permission),
                };
                told!(self, self.auth.role_grant_permission(request).await)
            }
            Call::RoleRevokePermission { role, key, end } => {
                let request = pb::AuthRoleRevokePermissionRequest {
                    role: text(role),
                    key: key.clone().into(),
                    range_end: range_end(key, end),
                };
                told!(self, self.auth.role_revoke_permission(request).await)
            }
        }
    }

    /// The token is kept for this user, and told as its form.
    async fn log_in(&mut self, user: &'static str, password: &str) -> anyhow::Result<String> {
        let request = pb::AuthenticateRequest {
            name: user.to_owned(),
            password: password.to_owned(),
        };
        let mut outcome = self.auth.authenticate(request).await;
        if let Ok(answer) = &mut outcome {
            let token = std::mem::take(&mut answer.get_mut().token);
            answer.get_mut().token = form(&token);
            self.tokens.insert(user, token);
        }
        let outcome: Result<Response<pb::AuthenticateResponse>, Status> = outcome;
        told!(self, outcome)
    }
}

/// Sixteen letters, a dot and a number: `letters 16, a number`.
fn form(token: &str) -> String {
    match token.split_once('.') {
        Some((letters, number)) if letters.chars().all(|one| one.is_ascii_alphabetic()) => {
            let is_number = number.parse::<u64>().is_ok();
            format!("letters {}, a number: {is_number}", letters.len())
        }
        _ => format!("no simple token: {token}"),
    }
}
