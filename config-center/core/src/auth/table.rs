//! The users and roles that exist, and what each command does to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use schemas::authpb::{Permission, Role, User, UserAddOptions, permission::Type};
use schemas::command::{AuthUserAdd, AuthUserChangePassword};
use schemas::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
};

use super::permissions::Permissions;
use crate::refusal::Refusal;

/// The user that must exist before authentication can be turned on.
pub const ROOT_USER: &str = "root";
/// The role that may do everything; it can be granted without having been added.
pub const ROOT_ROLE: &str = "root";

/// One row-level change for the database of state.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthChange {
    UserPut(User),
    UserDelete {
        name: String,
    },
    RolePut(Role),
    RoleDelete {
        name: String,
    },
    Status {
        enabled: bool,
        /// Whether v2 has guests; never without `enabled`.
        guests: bool,
        revision: u64,
    },
}

/// Everything about authentication that members agree on.
#[derive(Debug)]
pub(crate) struct AuthTable {
    pub(super) enabled: bool,
    /// Whether whoever names no user on v2 has the role guest: only when v2 has turned
    /// authentication on. A role of that name that v3 made opens nothing.
    pub(super) guests: bool,
    /// Grows with each change, so that a decision made before it can be told from one made after.
    revision: u64,
    pub(super) users: BTreeMap<String, User>,
    pub(super) roles: BTreeMap<String, Role>,
    /// Derived: what the roles of each user add up to.
    permissions: FxHashMap<String, Permissions>,
}

impl Default for AuthTable {
    /// A fresh store has revision 1 in etcd, without any user.
    fn default() -> Self {
        Self {
            enabled: false,
            guests: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            permissions: FxHashMap::default(),
        }
    }
}

type Changes = Result<Vec<AuthChange>, Refusal>;

impl AuthTable {
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    pub(crate) fn permissions(&self, user: &str) -> Option<&Permissions> {
        self.permissions.get(user)
    }

    pub(crate) fn has_role(&self, user: &str, role: &str) -> bool {
        self.users
            .get(user)
            .is_some_and(|user| user.roles.iter().any(|held| held == role))
    }

    /// The permissions of a role as etcd shows them.
    pub(crate) fn role(&self, name: &str) -> Result<Vec<Permission>, Refusal> {
        let role = self.roles.get(name).ok_or(Refusal::RoleNotFound)?;
        if name == ROOT_ROLE {
            return Ok(vec![Permission {
                perm_type: Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            }]);
        }
        Ok(role.key_permission.clone())
    }

    pub(crate) fn enable(&mut self) -> Changes {
        if self.enabled {
            return Ok(Vec::new());
        }
        if !self.users.contains_key(ROOT_USER) {
            return Err(Refusal::RootUserMissing);
        }
        if !self.has_role(ROOT_USER, ROOT_ROLE) {
            return Err(Refusal::RootRoleMissing);
        }
        self.enabled = true;
        // The revision stays, as in etcd.
        Ok(vec![self.status()])
    }

    pub(crate) fn disable(&mut self) -> Changes {
        if !self.enabled {
            return Ok(Vec::new());
        }
        self.enabled = false;
        self.guests = false;
        Ok(vec![self.moved_on()])
    }

    /// Whether this user may be given a token. The password was checked before the proposal.
    pub(crate) fn authenticate(&self, name: &str) -> Result<(), Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        match self.users.get(name) {
            Some(user) if !has_no_password(user) => Ok(()),
            _ => Err(Refusal::AuthFailed),
        }
    }

    /// The hash to check a password against.
    pub(crate) fn password_hash(&self, name: &str) -> Result<Bytes, Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = self.users.get(name).ok_or(Refusal::AuthFailed)?;
        if has_no_password(user) {
            return Err(Refusal::NoPasswordUser);
        }
        Ok(user.password.clone())
    }

    pub(crate) fn add_user(&mut self, request: &AuthUserAdd) -> Changes {
        if request.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Refusal::UserExists);
        }
        let password = if request.no_password {
            Bytes::new()
        } else {
            request.password_hash.clone()
        };
        let user = User {
            name: Bytes::copy_from_slice(request.name.as_bytes()),
            password,
            roles: Vec::new(),
            options: Some(UserAddOptions {
                no_password: request.no_password,
            }),
        };
        Ok(vec![self.put_user(&request.name, user), self.moved_on()])
    }

    pub(crate) fn delete_user(&mut self, name: &str) -> Changes {
        if self.enabled && name == ROOT_USER {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(Refusal::UserNotFound)?;
        self.permissions.remove(name);
        let name = name.to_owned();
        Ok(vec![AuthChange::UserDelete { name }, self.moved_on()])
    }

    pub(crate) fn change_password(&mut self, request: &AuthUserChangePassword) -> Changes {
        let mut user = self.user_or_refuse(&request.name)?;
        user.password = if has_no_password(&user) {
            Bytes::new()
        } else {
            request.password_hash.clone()
        };
        Ok(vec![self.put_user(&request.name, user), self.moved_on()])
    }

    pub(crate) fn grant_role(&mut self, request: &AuthUserGrantRoleRequest) -> Changes {
        let mut user = self.user_or_refuse(&request.user)?;
        if request.role != ROOT_ROLE && !self.roles.contains_key(&request.role) {
            return Err(Refusal::RoleNotFound);
        }
        match user.roles.binary_search(&request.role) {
            // Granted already: nothing changes, not even the revision.
            Ok(_) => return Ok(Vec::new()),
            Err(place) => user.roles.insert(place, request.role.clone()),
        }
        Ok(vec![self.put_user(&request.user, user), self.moved_on()])
    }

    pub(crate) fn revoke_role(&mut self, request: &AuthUserRevokeRoleRequest) -> Changes {
        if self.enabled && request.name == ROOT_USER && request.role == ROOT_ROLE {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut user = self.user_or_refuse(&request.name)?;
        if !take_role(&mut user, &request.role) {
            return Err(Refusal::RoleNotGranted);
        }
        Ok(vec![self.put_user(&request.name, user), self.moved_on()])
    }

    pub(crate) fn add_role(&mut self, name: &str) -> Changes {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Refusal::RoleExists);
        }
        let role = Role {
            name: Bytes::copy_from_slice(name.as_bytes()),
            key_permission: Vec::new(),
        };
        Ok(vec![self.put_role(name, role), self.moved_on()])
    }

    pub(crate) fn delete_role(&mut self, name: &str) -> Changes {
        if self.enabled && name == ROOT_ROLE {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        let mut changes = vec![AuthChange::RoleDelete {
            name: name.to_owned(),
        }];
        let holders: Vec<(String, User)> = self
            .users
            .iter()
            .filter(|(_, user)| user.roles.iter().any(|held| held == name))
            .map(|(holder, user)| (holder.clone(), user.clone()))
            .collect();
        for (holder, mut user) in holders {
            take_role(&mut user, name);
            changes.push(self.put_user(&holder, user));
        }
        changes.push(self.moved_on());
        Ok(changes)
    }

    pub(crate) fn grant_permission(&mut self, request: &AuthRoleGrantPermissionRequest) -> Changes {
        let granted = request.perm.as_ref().ok_or(Refusal::PermissionNotGiven)?;
        if !is_valid_range(&granted.key, &granted.range_end) {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut role = self.role_or_refuse(&request.name)?;
        let list = &mut role.key_permission;
        // Another kind of permission on the same range replaces the one before.
        let same = list
            .iter_mut()
            .find(|held| (&held.key, &held.range_end) == (&granted.key, &granted.range_end));
        match same {
            Some(held) => held.perm_type = granted.perm_type,
            None => {
                let place = list.partition_point(|held| held.key <= granted.key);
                list.insert(place, granted.clone());
            }
        }
        let role = self.put_role(&request.name, role);
        self.merge_holders(&request.name);
        Ok(vec![role, self.moved_on()])
    }

    pub(crate) fn revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
    ) -> Changes {
        let mut role = self.role_or_refuse(&request.role)?;
        let before = role.key_permission.len();
        role.key_permission
            .retain(|held| (&held.key, &held.range_end) != (&request.key, &request.range_end));
        if role.key_permission.len() == before {
            return Err(Refusal::PermissionNotGranted);
        }
        let change = self.put_role(&request.role, role);
        self.merge_holders(&request.role);
        Ok(vec![change, self.moved_on()])
    }

    /// Takes back one stored row.
    pub(crate) fn restore(&mut self, change: AuthChange) {
        match change {
            AuthChange::UserPut(user) => {
                let name = String::from_utf8_lossy(&user.name).into_owned();
                self.users.insert(name, user);
            }
            AuthChange::RolePut(role) => {
                let name = String::from_utf8_lossy(&role.name).into_owned();
                self.roles.insert(name, role);
            }
            AuthChange::UserDelete { name } => {
                self.users.remove(&name);
            }
            AuthChange::RoleDelete { name } => {
                self.roles.remove(&name);
            }
            AuthChange::Status {
                enabled,
                guests,
                revision,
            } => {
                self.enabled = enabled;
                self.guests = guests;
                self.revision = revision;
            }
        }
    }

    /// After the last stored row.
    pub(crate) fn restored(&mut self) {
        let names: Vec<String> = self.users.keys().cloned().collect();
        for name in names {
            self.merge(&name);
        }
    }

    fn user_or_refuse(&self, name: &str) -> Result<User, Refusal> {
        self.users.get(name).cloned().ok_or(Refusal::UserNotFound)
    }

    fn role_or_refuse(&self, name: &str) -> Result<Role, Refusal> {
        self.roles.get(name).cloned().ok_or(Refusal::RoleNotFound)
    }

    pub(super) fn put_user(&mut self, name: &str, user: User) -> AuthChange {
        self.users.insert(name.to_owned(), user.clone());
        self.merge(name);
        AuthChange::UserPut(user)
    }

    pub(super) fn put_role(&mut self, name: &str, role: Role) -> AuthChange {
        self.roles.insert(name.to_owned(), role.clone());
        // A role that was granted before it existed (only root can be) has no permissions to merge.
        AuthChange::RolePut(role)
    }

    pub(super) fn merge_holders(&mut self, role: &str) {
        let holders: Vec<String> = self
            .users
            .iter()
            .filter(|(_, user)| user.roles.iter().any(|held| held == role))
            .map(|(name, _)| name.clone())
            .collect();
        for holder in holders {
            self.merge(&holder);
        }
    }

    fn merge(&mut self, name: &str) {
        let Some(user) = self.users.get(name) else {
            return;
        };
        let granted = user
            .roles
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flat_map(|role| &role.key_permission);
        let merged = Permissions::merge(granted);
        self.permissions.insert(name.to_owned(), merged);
    }

    fn status(&self) -> AuthChange {
        AuthChange::Status {
            enabled: self.enabled,
            guests: self.guests,
            revision: self.revision,
        }
    }

    pub(super) fn moved_on(&mut self) -> AuthChange {
        self.revision += 1;
        self.status()
    }
}

fn has_no_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

fn take_role(user: &mut User, role: &str) -> bool {
    let before = user.roles.len();
    user.roles.retain(|held| held != role);
    user.roles.len() != before
}

/// A single key, a span that holds something, or an open end.
fn is_valid_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (matches!(range_end, [] | [0]) || key < range_end)
}
