//! `login` and `whoami`: as whom the store sees this connection.
//!
//! A login is kept per list of endpoints in a file that only its owner can read, as psql and others
//! do: the store's tokens live for minutes, so a token alone would be of no use.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use schemas::authpb::permission::Type;
use schemas_client::{Client, ConnectOptions};
use serde::{Deserialize, Serialize};

use super::{
    Context,
    exit::{Exit, Failure},
    flags,
    flags::{Connection, Format},
    output::Output,
    table::{Cell, Table},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

type Logins = BTreeMap<String, Login>;

/// `None` where there is no home to keep anything in.
fn file() -> Option<PathBuf> {
    let named = |variable| env::var_os(variable).filter(|value| !value.is_empty());
    let folder = named("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(named("HOME")?).join(".config")))?;
    Some(folder.join("configctl").join("logins.json"))
}

/// The login that is kept for these endpoints.
pub(crate) fn kept(endpoints: &[String]) -> Option<Login> {
    let text = fs::read_to_string(file()?).ok()?;
    let mut logins: Logins = serde_json::from_str(&text).ok()?;
    logins.remove(&endpoints.join(","))
}

pub(crate) async fn login(
    connection: &Connection,
    out: Output,
    args: &flags::Login,
) -> Result<Exit, Failure> {
    let endpoints = connection.endpoints().join(",");
    let file =
        file().ok_or_else(|| local("neither XDG_CONFIG_HOME nor HOME says where to keep it"))?;
    let mut logins: Logins = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Logins::new(),
        Err(error) => return Err(local(&format!("{}: {error}", file.display()))),
    };
    if args.forget {
        if logins.remove(&endpoints).is_none() {
            let message = format!("no login is kept for {endpoints}");
            return Err(Failure::new(Exit::NotFound, message));
        }
        save(&file, &logins)?;
        out.line(&format!("the login for {endpoints} is forgotten"))?;
        return Ok(Exit::Done);
    }
    let user = connection.user_name();
    let user = user.ok_or_else(|| Failure::new(Exit::Usage, "say as whom: --user NAME"))?;
    let password = match connection.given_password() {
        Some(password) => password,
        None => ask(&format!("Password of {user}: "))?,
    };
    let login = Login { user, password };
    let options = ConnectOptions {
        username: Some(login.user.clone()),
        password: Some(login.password.clone()),
        ..connection.anonymous_options()
    };
    // The client logs in before its first call.
    let is_on = Client::new(options)?.auth_status().await?.enabled;
    let user = login.user.clone();
    logins.insert(endpoints.clone(), login);
    save(&file, &logins)?;
    let remark = if is_on {
        ""
    } else {
        " (authentication is off there: the password was not checked)"
    };
    out.line(&format!("{user} is kept for {endpoints}{remark}"))?;
    Ok(Exit::Done)
}

/// Written beside and renamed: whoever reads sees the old file or the new one.
fn save(file: &std::path::Path, logins: &Logins) -> Result<(), Failure> {
    let failed = |error: io::Error| local(&format!("{}: {error}", file.display()));
    let folder = file
        .parent()
        .ok_or_else(|| local("there is no folder for logins"))?;
    fs::create_dir_all(folder).map_err(failed)?;
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let text = serde_json::to_vec_pretty(logins)
        .map_err(|error| local(&format!("a login cannot be written: {error}")))?;
    let mut opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    opened.write_all(&text).map_err(failed)?;
    opened.sync_all().map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}

/// From a terminal without showing it, or the first line of what is piped in.
fn ask(prompt: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| local(&format!("no password can be read: {error}"));
    let is_terminal = io::stdin().is_terminal();
    let echo = |word: &str| {
        // Without stty the password is asked for all the same, and shows.
        let stty = Command::new("stty")
            .arg(word)
            .stdin(Stdio::inherit())
            .status();
        stty.is_ok_and(|status| status.success())
    };
    let mut line = String::new();
    if is_terminal {
        write!(io::stderr(), "{prompt}").map_err(failed)?;
        let is_hidden = echo("-echo");
        let read = io::stdin().read_line(&mut line);
        if is_hidden {
            echo("echo");
            writeln!(io::stderr()).map_err(failed)?;
        }
        read.map_err(failed)?;
    } else {
        io::stdin().read_line(&mut line).map_err(failed)?;
    }
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        return Err(Failure::new(Exit::Usage, "the password is empty"));
    }
    Ok(password)
}

#[derive(Debug, Serialize)]
struct Identity {
    /// Absent: nobody in particular.
    user: Option<String>,
    authentication: bool,
    roles: Vec<String>,
    permissions: Vec<Permitted>,
}

#[derive(Debug, Serialize)]
struct Permitted {
    role: String,
    access: &'static str,
    keys: String,
}

pub(crate) async fn whoami(context: &Context) -> Result<Exit, Failure> {
    let enabled = context.client.auth_status().await?.enabled;
    let user = context.connection.user_name();
    let mut identity = Identity {
        user: user.clone(),
        authentication: enabled,
        roles: Vec::new(),
        permissions: Vec::new(),
    };
    if let (true, Some(user)) = (enabled, &user) {
        identity.roles = context.client.user_get(user).await?.roles;
        for role in &identity.roles {
            // The role root has no list: it may do everything.
            let granted = context.client.role_get(role).await?.perm;
            identity
                .permissions
                .extend(granted.iter().map(|permission| Permitted {
                    role: role.clone(),
                    access: match permission.perm_type() {
                        Type::Read => "read",
                        Type::Write => "write",
                        Type::Readwrite => "read and write",
                    },
                    keys: keys(&permission.key, &permission.range_end),
                }));
        }
    }
    tell(context, &identity)?;
    Ok(if enabled && user.is_none() {
        Exit::Denied
    } else {
        Exit::Done
    })
}

fn keys(key: &[u8], range_end: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match range_end {
        [] => text(key),
        [0] => format!("{} and everything behind it", text(key)),
        end if *end == schemas_client::prefix_end(key)[..] => format!("{}…", text(key)),
        end => format!("{} up to {}", text(key), text(end)),
    }
}

fn tell(context: &Context, identity: &Identity) -> Result<(), Failure> {
    let out = context.out;
    match out.format {
        Format::Json | Format::Yaml => return out.document(identity),
        Format::Name => return out.line(identity.user.as_deref().unwrap_or("-")),
        Format::Table | Format::Wide => {}
    }
    let user = identity.user.as_deref().unwrap_or("nobody in particular");
    if !identity.authentication {
        return out.line(&format!(
            "{user}; authentication is off, so everybody may do everything"
        ));
    }
    if identity.user.is_none() {
        return out.line(
            "nobody in particular, and the store asks for a user: --user or `configctl login`",
        );
    }
    out.line(&format!("{user}, roles: {}", identity.roles.join(", ")))?;
    if identity.roles.iter().any(|role| role == "root") {
        return out.line("root may do everything");
    }
    let mut table = Table::new(["ROLE", "MAY", "KEYS"]);
    for permitted in &identity.permissions {
        let cells: [Cell; 3] = [
            permitted.role.as_str().into(),
            permitted.access.into(),
            permitted.keys.as_str().into(),
        ];
        table.row(cells);
    }
    out.table(&table)
}

fn local(message: &str) -> Failure {
    Failure::new(Exit::LocalIo, message)
}
