//! Users and roles as the v2 API has them. They are the same users and roles: a pattern of v2 is a
//! range of v3, `/a/b` a single key and `/a/*` everything that begins with `/a/`.
//!
//! Worked example: `grant read ["/a/*"]`, `grant write ["/a/*"]` and `revoke read ["/a/*"]` leave one
//! permission WRITE on `[/a/, /a0)`, which v3 shows as such and v2 as `write: ["/a/*"]`. A range that
//! v3 granted and no pattern can say is not shown by v2, and counts there all the same.

use bytes::Bytes;
use schemas::authpb::{Permission, Role, User, UserAddOptions, permission::Type};
use schemas::command::{V2Permissions, V2RoleWrite, V2UserWrite, v2_user_write::Verb};

use super::permissions::Permissions;
use super::table::{AuthChange, AuthTable, ROOT_ROLE, ROOT_USER};

/// What those have who name no user.
const GUEST_ROLE: &str = "guest";
/// What the role root is shown with, and the role guest made with.
const EVERYTHING: &str = "/*";

/// The patterns of a role, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V2Rights {
    pub read: Vec<String>,
    pub write: Vec<String>,
}

/// What a change has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum V2Principal {
    /// `is_new`: it was not there before.
    User {
        roles: Vec<String>,
        is_new: bool,
    },
    Role(V2Rights),
    /// Authentication is on.
    Enabled,
}

/// Why a change was not made, in etcd's words as far as etcd has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum V2AuthRefusal {
    #[error("auth: Cannot create user {0} with an empty password")]
    EmptyPassword(String),
    #[error("auth: User {0} already exists.")]
    UserExists(String),
    #[error("auth: User {0} does not exist.")]
    NoSuchUser(String),
    #[error("auth: User not updated. Use grant/revoke/password to update the user.")]
    UserNotUpdated,
    #[error("auth: Granting duplicate role {role} for user {user}")]
    DuplicateRole { role: String, user: String },
    #[error("auth: Revoking ungranted role {role} for user {user}")]
    UngrantedRole { role: String, user: String },
    #[error("auth: Cannot revoke role root from user root while auth is enabled.")]
    RootNeedsRole,
    #[error("auth: Role {0} already exists.")]
    RoleExists(String),
    #[error("auth: Role {0} does not exist.")]
    NoSuchRole(String),
    #[error("auth: Cannot modify role {0}: is root role.")]
    IsRootRole(String),
    #[error("auth: Role not updated. Use grant/revoke to update the role.")]
    RoleNotUpdated,
    #[error("auth: Granting duplicate {kind} permission {pattern}")]
    DuplicatePermission { kind: &'static str, pattern: String },
    #[error("auth: A permission needs a key.")]
    EmptyPattern,
    #[error("auth: already enabled")]
    AlreadyEnabled,
    #[error("auth: No root user available, please create one")]
    NoRootUser,
    #[error("auth: The root user does not have the root role, please grant it")]
    NoRootRole,
}

type Changed = Result<(V2Principal, Vec<AuthChange>), V2AuthRefusal>;

impl AuthTable {
    /// What a guest may touch; `None` where there are no guests.
    pub(super) fn guest(&self) -> Option<Permissions> {
        let role = self.roles.get(GUEST_ROLE).filter(|_| self.guests)?;
        Some(Permissions::merge(role.key_permission.iter()))
    }

    pub(crate) fn v2_role(&self, name: &str) -> Option<V2Rights> {
        if name == ROOT_ROLE {
            let all = || vec![EVERYTHING.to_owned()];
            return Some(V2Rights {
                read: all(),
                write: all(),
            });
        }
        let role = self.roles.get(name)?;
        Some(shown(&role.key_permission))
    }

    pub(crate) fn v2_write_user(&mut self, write: &V2UserWrite) -> Changed {
        let name = write.name.as_str();
        let known = self.users.get(name).cloned();
        let (mut user, is_new) = match (known, write.verb()) {
            (Some(_), Verb::Create) => return Err(V2AuthRefusal::UserExists(name.to_owned())),
            (None, Verb::Update | Verb::Unspecified) => {
                return Err(V2AuthRefusal::NoSuchUser(name.to_owned()));
            }
            (Some(user), _) => (user, false),
            (None, _) if write.password_hash.is_empty() => {
                return Err(V2AuthRefusal::EmptyPassword(name.to_owned()));
            }
            (None, _) => {
                let user = User {
                    name: Bytes::copy_from_slice(name.as_bytes()),
                    ..User::default()
                };
                (user, true)
            }
        };
        let before = user.clone();
        let is_root = name == ROOT_USER;
        if is_new && is_root && !write.grant.iter().any(|role| role == ROOT_ROLE) {
            user.roles.push(ROOT_ROLE.to_owned());
        }
        for role in &write.grant {
            let role = role.clone();
            if user.roles.contains(&role) {
                let user = name.to_owned();
                return Err(V2AuthRefusal::DuplicateRole { role, user });
            }
            if role != ROOT_ROLE && !self.roles.contains_key(&role) {
                return Err(V2AuthRefusal::NoSuchRole(role));
            }
            user.roles.push(role);
        }
        for role in &write.revoke {
            if self.enabled && is_root && role == ROOT_ROLE {
                return Err(V2AuthRefusal::RootNeedsRole);
            }
            let Some(place) = user.roles.iter().position(|held| held == role) else {
                let (role, user) = (role.clone(), name.to_owned());
                return Err(V2AuthRefusal::UngrantedRole { role, user });
            };
            user.roles.remove(place);
        }
        user.roles.sort_unstable();
        if !write.password_hash.is_empty() {
            user.password = write.password_hash.clone();
            user.options = Some(UserAddOptions { no_password: false });
        }
        if !is_new && user == before {
            return Err(V2AuthRefusal::UserNotUpdated);
        }
        let roles = user.roles.clone();
        let changes = vec![self.put_user(name, user), self.moved_on()];
        Ok((V2Principal::User { roles, is_new }, changes))
    }

    pub(crate) fn v2_write_role(&mut self, write: &V2RoleWrite) -> Changed {
        let name = write.name.as_str();
        if name == ROOT_ROLE {
            return Err(V2AuthRefusal::IsRootRole(name.to_owned()));
        }
        let mut role = match (self.roles.get(name), write.create) {
            (Some(_), true) => return Err(V2AuthRefusal::RoleExists(name.to_owned())),
            (None, false) => return Err(V2AuthRefusal::NoSuchRole(name.to_owned())),
            (Some(role), false) => role.clone(),
            (None, true) => Role {
                name: Bytes::copy_from_slice(name.as_bytes()),
                key_permission: Vec::new(),
            },
        };
        let before = role.clone();
        grant(&mut role.key_permission, write.grant.as_ref())?;
        revoke(&mut role.key_permission, write.revoke.as_ref())?;
        if !write.create && role == before {
            return Err(V2AuthRefusal::RoleNotUpdated);
        }
        let rights = shown(&role.key_permission);
        let change = self.put_role(name, role);
        self.merge_holders(name);
        Ok((V2Principal::Role(rights), vec![change, self.moved_on()]))
    }

    pub(crate) fn v2_enable(&mut self) -> Changed {
        if self.enabled {
            return Err(V2AuthRefusal::AlreadyEnabled);
        }
        if !self.users.contains_key(ROOT_USER) {
            return Err(V2AuthRefusal::NoRootUser);
        }
        if !self.has_role(ROOT_USER, ROOT_ROLE) {
            return Err(V2AuthRefusal::NoRootRole);
        }
        let mut changes = Vec::new();
        if !self.roles.contains_key(GUEST_ROLE) {
            let all = || vec![EVERYTHING.to_owned()];
            let guest = V2RoleWrite {
                name: GUEST_ROLE.to_owned(),
                create: true,
                grant: Some(V2Permissions {
                    read: all(),
                    write: all(),
                }),
                revoke: None,
            };
            let (_, made) = self.v2_write_role(&guest)?;
            changes.extend(made);
        }
        self.enabled = true;
        self.guests = true;
        changes.push(self.moved_on());
        Ok((V2Principal::Enabled, changes))
    }
}

/// The range of keys that a pattern stands for.
fn range_of(pattern: &str) -> Result<(Bytes, Bytes), V2AuthRefusal> {
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match pattern.strip_suffix('*') {
        None if pattern.is_empty() => Err(V2AuthRefusal::EmptyPattern),
        None => Ok((copy(pattern), Bytes::new())),
        Some("") => Ok((Bytes::from_static(&[0]), Bytes::from_static(&[0]))),
        Some(prefix) => Ok((copy(prefix), prefix_end(prefix.as_bytes()).into())),
    }
}

/// `None` for a range that no pattern stands for.
fn pattern_of(key: &[u8], range_end: &[u8]) -> Option<String> {
    if (key, range_end) == (&[0], &[0]) {
        return Some("*".to_owned());
    }
    let text = std::str::from_utf8(key).ok()?;
    if range_end.is_empty() {
        return (!text.ends_with('*')).then(|| text.to_owned());
    }
    (range_end == prefix_end(key)).then(|| format!("{text}*"))
}

/// The first key behind all that begin with this, which is not empty and holds text: no byte of it
/// is the highest one.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// What the keys inside a directory begin with.
pub(super) fn inside(path: &[u8]) -> Vec<u8> {
    let mut inside = path.to_vec();
    if path.last() != Some(&b'/') {
        inside.push(b'/');
    }
    inside
}

fn bits(perm_type: i32) -> (bool, bool) {
    match Type::try_from(perm_type) {
        Ok(Type::Read) => (true, false),
        Ok(Type::Write) => (false, true),
        Ok(Type::Readwrite) => (true, true),
        Err(_) => (false, false),
    }
}

fn shown(permissions: &[Permission]) -> V2Rights {
    let mut rights = V2Rights::default();
    for permission in permissions {
        let Some(pattern) = pattern_of(&permission.key, &permission.range_end) else {
            continue;
        };
        let (read, write) = bits(permission.perm_type);
        if read {
            rights.read.push(pattern.clone());
        }
        if write {
            rights.write.push(pattern);
        }
    }
    rights.read.sort_unstable();
    rights.write.sort_unstable();
    rights
}

/// One permission per range, as v3 has it.
fn grant(
    permissions: &mut Vec<Permission>,
    asked: Option<&V2Permissions>,
) -> Result<(), V2AuthRefusal> {
    for (pattern, kind) in patterns(asked) {
        let (key, range_end) = range_of(pattern)?;
        let place = permissions
            .iter()
            .position(|held| (&held.key, &held.range_end) == (&key, &range_end));
        let Some(place) = place else {
            let place = permissions.partition_point(|held| held.key <= key);
            let granted = Permission {
                perm_type: kind as i32,
                key,
                range_end,
            };
            permissions.insert(place, granted);
            continue;
        };
        let held = &mut permissions[place];
        let (read, write) = bits(held.perm_type);
        let (has, name) = match kind {
            Type::Write => (write, "write"),
            _ => (read, "read"),
        };
        if has {
            let pattern = pattern.to_owned();
            return Err(V2AuthRefusal::DuplicatePermission {
                kind: name,
                pattern,
            });
        }
        let has_any = read || write;
        held.perm_type = if has_any { Type::Readwrite } else { kind } as i32;
    }
    Ok(())
}

/// What was not granted is passed over, as in etcd.
fn revoke(
    permissions: &mut Vec<Permission>,
    asked: Option<&V2Permissions>,
) -> Result<(), V2AuthRefusal> {
    for (pattern, kind) in patterns(asked) {
        let (key, range_end) = range_of(pattern)?;
        permissions.retain_mut(|held| {
            if (&held.key, &held.range_end) != (&key, &range_end) {
                return true;
            }
            let left = match (bits(held.perm_type), kind) {
                ((_, true), Type::Read) => Some(Type::Write),
                ((true, _), Type::Write) => Some(Type::Read),
                _ => None,
            };
            if let Some(left) = left {
                held.perm_type = left as i32;
            }
            left.is_some()
        });
    }
    Ok(())
}

fn patterns(asked: Option<&V2Permissions>) -> impl Iterator<Item = (&str, Type)> {
    let read = asked.into_iter().flat_map(|asked| &asked.read);
    let write = asked.into_iter().flat_map(|asked| &asked.write);
    let reads = read.map(|pattern| (pattern.as_str(), Type::Read));
    reads.chain(write.map(|pattern| (pattern.as_str(), Type::Write)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(read: &[&str], write: &[&str]) -> V2Permissions {
        let list = |of: &[&str]| of.iter().map(ToString::to_string).collect();
        V2Permissions {
            read: list(read),
            write: list(write),
        }
    }

    fn change(
        table: &mut AuthTable,
        granted: V2Permissions,
        revoked: V2Permissions,
    ) -> Result<V2Rights, V2AuthRefusal> {
        let write = V2RoleWrite {
            name: "r".to_owned(),
            create: false,
            grant: Some(granted),
            revoke: Some(revoked),
        };
        match table.v2_write_role(&write)? {
            (V2Principal::Role(rights), _) => Ok(rights),
            other => panic!("{other:?}"),
        }
    }

    fn permissions(table: &AuthTable) -> Vec<(i32, String, String)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let held = table.role("r").unwrap();
        held.iter()
            .map(|held| (held.perm_type, text(&held.key), text(&held.range_end)))
            .collect()
    }

    #[test]
    fn patterns_are_ranges_and_come_back() {
        for (pattern, key, end) in [
            ("/a", "/a", ""),
            ("/a*", "/a", "/b"),
            ("/a/*", "/a/", "/a0"),
            ("*", "\0", "\0"),
        ] {
            let (found_key, found_end) = range_of(pattern).unwrap();
            assert_eq!(
                (&found_key[..], &found_end[..]),
                (key.as_bytes(), end.as_bytes())
            );
            assert_eq!(pattern_of(&found_key, &found_end).as_deref(), Some(pattern));
        }
        assert_eq!(range_of(""), Err(V2AuthRefusal::EmptyPattern));
        for (key, end) in [
            (&b"/a"[..], &b"/z"[..]),
            (b"/a", b"\0"),
            (b"\xff", b""),
            (b"a*", b""),
        ] {
            assert_eq!(pattern_of(key, end), None, "{key:?}");
        }
    }

    #[test]
    fn read_and_write_of_one_pattern_are_one_permission() {
        let mut table = AuthTable::default();
        let none = || rights(&[], &[]);
        let create = V2RoleWrite {
            name: "r".to_owned(),
            create: true,
            ..V2RoleWrite::default()
        };
        table.v2_write_role(&create).unwrap();
        assert_eq!(
            table.v2_write_role(&create),
            Err(V2AuthRefusal::RoleExists("r".to_owned()))
        );
        let both = change(&mut table, rights(&["/a/*", "/k"], &["/a/*"]), none()).unwrap();
        assert_eq!(both.read, ["/a/*", "/k"]);
        assert_eq!(both.write, ["/a/*"]);
        let spans = [(2, "/a/", "/a0"), (0, "/k", "")];
        let spans = spans.map(|(kind, key, end)| (kind, key.to_owned(), end.to_owned()));
        assert_eq!(permissions(&table), spans);
        let twice = change(&mut table, rights(&[], &["/a/*"]), none());
        assert_eq!(
            twice.unwrap_err().to_string(),
            "auth: Granting duplicate write permission /a/*"
        );
        let left = change(&mut table, none(), rights(&["/a/*", "/none"], &["/k"])).unwrap();
        assert_eq!(
            (left.read, left.write),
            (vec!["/k".to_owned()], vec!["/a/*".to_owned()])
        );
        change(&mut table, none(), rights(&["/k"], &[])).unwrap();
        assert_eq!(
            permissions(&table),
            [(1, "/a/".to_owned(), "/a0".to_owned())]
        );
        let nothing = change(&mut table, none(), rights(&["/k"], &[]));
        assert_eq!(nothing, Err(V2AuthRefusal::RoleNotUpdated));
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let mut table = AuthTable::default();
        let write = |grant: &[&str], revoke: &[&str]| V2UserWrite {
            verb: Verb::CreateOrUpdate as i32,
            name: "u".to_owned(),
            password_hash: Bytes::from_static(b"hash"),
            grant: grant.iter().map(ToString::to_string).collect(),
            revoke: revoke.iter().map(ToString::to_string).collect(),
        };
        let unknown = table.v2_write_user(&write(&["nobody"], &[]));
        assert_eq!(unknown, Err(V2AuthRefusal::NoSuchRole("nobody".to_owned())));
        assert!(table.user("u").is_none());
        table.v2_write_user(&write(&["root"], &[])).unwrap();
        let revision = table.revision();
        table
            .v2_write_user(&write(&[], &["root", "root"]))
            .unwrap_err();
        assert!(table.has_role("u", "root"));
        let same = table.v2_write_user(&write(&[], &[]));
        assert_eq!(same, Err(V2AuthRefusal::UserNotUpdated));
        assert_eq!(table.revision(), revision);
    }
}
