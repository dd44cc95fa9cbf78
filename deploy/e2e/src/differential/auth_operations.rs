//! What is generated for users: calls of the store and of Auth, each by somebody. Few names, so that
//! most calls meet a user or a role that is there.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::operations::{self, End, Operation, end, key};

const LENGTH: std::ops::Range<usize> = 1..50;

/// Those that a sequence begins with, in the order of their names; see `auth::Session::reset`.
pub(super) const USERS: [&str; 4] = ["foreign", "reader", "root", "writer"];
/// Roles likewise; nobody has the last one at first.
pub(super) const ROLES: [&str; 4] = ["reader", "root", "writer", "other"];
/// The first is everybody's at the start.
pub(super) const PASSWORDS: [&str; 3] = ["p", "q", ""];

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// With the last token that this user was given.
    User(&'static str),
    /// Without a token.
    Nobody,
    /// With a token that no server gave.
    Forger,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthOperation {
    pub(super) caller: Caller,
    pub(super) call: Call,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Store(Operation),
    /// The new token is this user's from then on.
    Login {
        user: &'static str,
        password: &'static str,
    },
    Enable,
    Disable,
    Status,
    UserAdd {
        user: &'static str,
        password: &'static str,
        no_password: bool,
    },
    UserDelete(&'static str),
    UserGet(&'static str),
    UserList,
    UserChangePassword {
        user: &'static str,
        password: &'static str,
    },
    UserGrantRole {
        user: &'static str,
        role: &'static str,
    },
    UserRevokeRole {
        user: &'static str,
        role: &'static str,
    },
    RoleAdd(&'static str),
    RoleDelete(&'static str),
    RoleGet(&'static str),
    RoleList,
    RoleGrantPermission {
        role: &'static str,
        /// READ, WRITE, READWRITE, or nothing that is defined.
        kind: i32,
        key: Vec<u8>,
        end: End,
    },
    RoleRevokePermission {
        role: &'static str,
        key: Vec<u8>,
        end: End,
    },
}

fn user() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        20 => select(&USERS[..]),
        4 => Just("new"),
        1 => Just(""),
    ]
}

fn role() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        20 => select(&ROLES[..]),
        2 => Just("new"),
        1 => Just(""),
    ]
}

fn password() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(PASSWORDS[0]), 2 => Just(PASSWORDS[1]), 1 => Just(PASSWORDS[2])]
}

/// Mostly root: others are refused, which is one answer to all of these.
fn administrator() -> impl Strategy<Value = Caller> {
    prop_oneof![
        12 => Just(Caller::User("root")),
        1 => select(&USERS[..]).prop_map(Caller::User),
        1 => Just(Caller::Nobody),
        1 => Just(Caller::Forger),
    ]
}

fn anybody() -> impl Strategy<Value = Caller> {
    prop_oneof![
        3 => Just(Caller::User("root")),
        6 => Just(Caller::User("writer")),
        6 => Just(Caller::User("reader")),
        3 => Just(Caller::User("foreign")),
        1 => Just(Caller::User("new")),
        1 => Just(Caller::Nobody),
        1 => Just(Caller::Forger),
    ]
}

/// What changes users, roles and rights.
fn administration() -> impl Strategy<Value = Call> {
    prop_oneof![
        1 => Just(Call::Enable),
        1 => Just(Call::Disable),
        // Root without a password could not be logged in any more to begin the next sequence.
        3 => (user(), password(), any::<bool>()).prop_map(|(user, password, no_password)| {
            Call::UserAdd { user, password, no_password: no_password && user != "root" }
        }),
        2 => user().prop_map(Call::UserDelete),
        // An empty one locks a user out for good, which root must not be for the next sequence.
        3 => (user(), password()).prop_map(|(user, password)| Call::UserChangePassword {
            user,
            password: if user == "root" && password.is_empty() { PASSWORDS[1] } else { password },
        }),
        5 => (user(), role()).prop_map(|(user, role)| Call::UserGrantRole { user, role }),
        4 => (user(), role()).prop_map(|(user, role)| Call::UserRevokeRole { user, role }),
        2 => role().prop_map(Call::RoleAdd),
        2 => role().prop_map(Call::RoleDelete),
        8 => (role(), prop_oneof![20 => 0..3_i32, 1 => Just(7)], key(), end())
            .prop_map(|(role, kind, key, end)| Call::RoleGrantPermission { role, kind, key, end }),
        3 => (role(), key(), end())
            .prop_map(|(role, key, end)| Call::RoleRevokePermission { role, key, end }),
    ]
}

/// What asks about them.
fn question() -> impl Strategy<Value = Call> {
    prop_oneof![
        1 => Just(Call::Status),
        // Not the user without a name: docs/compatibility.md has that one.
        2 => user().prop_filter("a name", |user| !user.is_empty()).prop_map(Call::UserGet),
        1 => Just(Call::UserList),
        2 => role().prop_map(Call::RoleGet),
        1 => Just(Call::RoleList),
    ]
}

/// Mostly with the right password, and as somebody whose token may have been taken away.
fn login() -> impl Strategy<Value = Call> {
    (user(), password()).prop_map(|(user, password)| Call::Login { user, password })
}

fn operation() -> impl Strategy<Value = AuthOperation> {
    let by = |caller: BoxedStrategy<Caller>, call: BoxedStrategy<Call>| {
        (caller, call).prop_map(|(caller, call)| AuthOperation { caller, call })
    };
    let store = operations::operation().prop_map(|mut operation| {
        operation.turn_forward();
        Call::Store(operation)
    });
    prop_oneof![
        60 => by(anybody().boxed(), store.boxed()),
        16 => by(administrator().boxed(), administration().boxed()),
        6 => by(anybody().boxed(), question().boxed()),
        8 => by(Just(Caller::Nobody).boxed(), login().boxed()),
    ]
}

/// A sequence for an empty store with the users of the start.
pub(super) fn sequence() -> impl Strategy<Value = Vec<AuthOperation>> {
    vec(operation(), LENGTH)
}
