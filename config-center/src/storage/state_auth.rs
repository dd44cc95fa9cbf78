//! The rows of users and roles in `state.db`: how their changes are gathered, written and read back.

use std::collections::BTreeMap;

use config_center_core::{AuthChange, Restorer};
use prost::Message as _;
use schemas::authpb::{Role, User};
use sqlx::{Row as _, SqliteConnection};

use super::sqlite::{signed, unsigned};

// What the column `enabled` says. A version without v2's users takes the last one for on, which is
// the stricter half of what it means.
const OFF: i64 = 0;
const ON: i64 = 1;
const ON_WITH_GUESTS: i64 = 2;

fn switched(enabled: bool, guests: bool) -> i64 {
    match (enabled, guests) {
        (false, _) => OFF,
        (true, false) => ON,
        (true, true) => ON_WITH_GUESTS,
    }
}

/// The changes of one transaction, the last one of each row. `None` is a deletion.
#[derive(Debug, Default)]
pub(super) struct FoldedAuth {
    users: BTreeMap<String, Option<User>>,
    roles: BTreeMap<String, Option<Role>>,
    /// What the column `enabled` holds, and the revision.
    status: Option<(i64, u64)>,
}

impl FoldedAuth {
    pub(super) fn add(&mut self, change: AuthChange) {
        match change {
            AuthChange::UserPut(user) => {
                let name = String::from_utf8_lossy(&user.name).into_owned();
                self.users.insert(name, Some(user));
            }
            AuthChange::UserDelete { name } => {
                self.users.insert(name, None);
            }
            AuthChange::RolePut(role) => {
                let name = String::from_utf8_lossy(&role.name).into_owned();
                self.roles.insert(name, Some(role));
            }
            AuthChange::RoleDelete { name } => {
                self.roles.insert(name, None);
            }
            AuthChange::Status {
                enabled,
                guests,
                revision,
            } => self.status = Some((switched(enabled, guests), revision)),
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.users.len() + self.roles.len() + usize::from(self.status.is_some())
    }

    /// Within the caller's transaction.
    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for (name, user) in &self.users {
            let encoded = user.as_ref().map(prost::Message::encode_to_vec);
            let (put, delete) = (
                "INSERT OR REPLACE INTO auth_users (name, user) VALUES (?, ?)",
                "DELETE FROM auth_users WHERE name = ?",
            );
            write_row(connection, put, delete, name, encoded).await?;
        }
        for (name, role) in &self.roles {
            let encoded = role.as_ref().map(prost::Message::encode_to_vec);
            let (put, delete) = (
                "INSERT OR REPLACE INTO auth_roles (name, role) VALUES (?, ?)",
                "DELETE FROM auth_roles WHERE name = ?",
            );
            write_row(connection, put, delete, name, encoded).await?;
        }
        if let Some((enabled, revision)) = self.status {
            sqlx::query("UPDATE auth_status SET enabled = ?, revision = ? WHERE id = 1")
                .bind(enabled)
                .bind(signed(revision))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

async fn write_row(
    connection: &mut SqliteConnection,
    put: &'static str,
    delete: &'static str,
    name: &str,
    encoded: Option<Vec<u8>>,
) -> Result<(), sqlx::Error> {
    let query = match encoded {
        Some(encoded) => sqlx::query(put).bind(name.to_owned()).bind(encoded),
        None => sqlx::query(delete).bind(name.to_owned()),
    };
    query.execute(&mut *connection).await?;
    Ok(())
}

/// Gives every stored row to the restorer.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    restorer: &mut Restorer,
) -> Result<(), sqlx::Error> {
    let undecodable = |error: prost::DecodeError| sqlx::Error::Decode(Box::new(error));
    let users: Vec<Vec<u8>> = sqlx::query_scalar("SELECT user FROM auth_users")
        .fetch_all(&mut *connection)
        .await?;
    for user in users {
        let user = User::decode(user.as_slice()).map_err(undecodable)?;
        restorer.auth(AuthChange::UserPut(user));
    }
    let roles: Vec<Vec<u8>> = sqlx::query_scalar("SELECT role FROM auth_roles")
        .fetch_all(&mut *connection)
        .await?;
    for role in roles {
        let role = Role::decode(role.as_slice()).map_err(undecodable)?;
        restorer.auth(AuthChange::RolePut(role));
    }
    let status = sqlx::query("SELECT enabled, revision FROM auth_status WHERE id = 1")
        .fetch_one(&mut *connection)
        .await?;
    let switched: i64 = status.try_get(0)?;
    restorer.auth(AuthChange::Status {
        enabled: switched != OFF,
        guests: switched == ON_WITH_GUESTS,
        revision: unsigned(status.try_get(1)?),
    });
    Ok(())
}
