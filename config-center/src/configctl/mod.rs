//! configctl, the operator's hand: publishes what hosts collect and shows what their agents run.
//!
//! Uses the store through the etcd API alone, so it works against any etcd. Knows keys, documents
//! and statuses; must not know how config-center keeps them. The one exception is `cluster snapshot`:
//! a saved file is config-center's own.
//!
//! What can be decided without the store is the fleet core's: edits that keep other bytes, what a
//! push means, what a status proves.

use std::{future::Future, process::ExitCode};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use config_center_core::fleet::{document, host_state, merge, sha256_hex};
use schemas_client::Client;

use crate::fleet::{
    audit::{self as fleet_audit, Author},
    keys,
};

mod agents;
mod cluster;
mod declare;
mod describe;
mod drafts;
mod duration;
mod edit;
mod exit;
mod files;
mod flags;
mod get;
mod history;
mod hosts;
mod kv;
mod login;
mod manual;
mod output;
mod portability;
mod publish;
mod push;
mod push_objects;
mod rollouts;
mod selector;
mod table;
mod tail;
mod trail;
mod wait;

use exit::{Exit, Failure};
pub use flags::Connection;
use flags::{Agents, Cli, Cluster, Command, Snapshot, Why};
use keys::Namespace;
use output::Output;
use push::Standing;

/// What every command works with.
struct Context {
    client: Client,
    connection: Connection,
    namespace: Namespace,
    out: Output,
    standing: Standing,
}

/// Runs the command line and returns the process's exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // Whether the text could be printed changes nothing about the answer.
            drop(error.print());
            return code(if asked_for { Exit::Done } else { Exit::Usage });
        }
    };
    let out = Output::new(cli.output);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            out.remark(&format!("configctl: cannot start: {error}"));
            return code(Exit::LocalIo);
        }
    };
    match runtime.block_on(run(cli, out)) {
        Ok(exit) => code(exit),
        Err(failure) => {
            out.remark(&format!("configctl: {failure}"));
            code(failure.exit)
        }
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

async fn run(cli: Cli, out: Output) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Version => {
            out.line(&format!("configctl {}", env!("CARGO_PKG_VERSION")))?;
            return Ok(Exit::Done);
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "configctl", &mut script);
            out.write(&script)?;
            return Ok(Exit::Done);
        }
        Command::Man { folder } => return manual::write(out, folder),
        Command::Validate(args) => return declare::validate(out, args),
        Command::Effective(args) if !args.files.is_empty() => {
            return declare::effective_offline(out, args);
        }
        Command::Cluster(Cluster::Snapshot(
            snapshot @ (Snapshot::Status { .. } | Snapshot::Restore(_)),
        )) => return cluster::offline(out, snapshot).await,
        Command::Audit(args) => {
            if let Some(file) = &args.file {
                return trail::verify_file(out, file);
            }
        }
        _ => {}
    }
    let Cli {
        connection,
        command,
        ..
    } = cli;
    if let Command::Login(args) = &command {
        return login::login(&connection, out, args).await;
    }
    let context = Context {
        client: Client::new(connection.options()?)?,
        namespace: connection.namespace(),
        connection,
        out,
        standing: Standing::default(),
    };
    let work = async {
        match &command {
            Command::Push(args) => push::push(&context, args).await,
            Command::RmPath(args) => push::rm_path(&context, args).await,
            Command::Get { host } => get::get(&context, host.as_deref()).await,
            Command::Agents(Agents::List) => agents::list(&context).await,
            Command::Cluster(command) => cluster::run(&context, command).await,
            Command::Kv(command) => kv::run(&context, command).await,
            Command::Agents(Agents::Adopt(args)) => hosts::adopt(&context, args).await,
            Command::Agents(Agents::Restore(args)) => hosts::restore(&context, args).await,
            Command::Agents(Agents::Retire(args)) => hosts::retire(&context, args).await,
            Command::Diff(args) => declare::diff(&context, args).await,
            Command::Apply(args) => declare::apply(&context, args).await,
            Command::Effective(args) => declare::effective_of(&context, args).await,
            Command::History { what } => history::history(&context, what.as_deref()).await,
            Command::Show(args) => history::show(&context, args).await,
            Command::Rollback(args) => history::rollback(&context, args).await,
            Command::Undelete(args) => history::undelete(&context, args).await,
            Command::Draft(command) => drafts::run(&context, command).await,
            Command::Edit(args) => edit::edit(&context, args).await,
            Command::Describe { what } => describe::describe(&context, what).await,
            Command::Tail(args) => tail::tail(&context, args).await,
            Command::Whoami => login::whoami(&context).await,
            Command::Rollout(command) => rollouts::run(&context, command).await,
            Command::Audit(args) => trail::show(&context, args).await,
            Command::Export => portability::export(&context).await,
            Command::Import(args) => portability::import(&context, args).await,
            Command::Validate(_)
            | Command::Completion { .. }
            | Command::Man { .. }
            | Command::Login(_)
            | Command::Version => Ok(Exit::Done),
        }
    };
    unless_interrupted(&context, work).await
}

/// Who does what this command does, for history and audit.
fn actor(context: &Context, why: &Why) -> Author {
    let of_machine = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    let name = why
        .author
        .clone()
        .or_else(|| context.connection.user_name())
        .or_else(of_machine)
        .unwrap_or_else(|| "unknown".into());
    let now_ms = fleet_audit::now_ms();
    Author {
        name,
        source: "configctl".into(),
        request_id: format!("{now_ms:x}-{:x}", std::process::id()),
        reason: why.reason.clone(),
        may_repeat: false,
    }
}

/// Ctrl-C ends the waiting, never what was published; the last words say which is which.
async fn unless_interrupted(
    context: &Context,
    work: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    tokio::select! {
        finished = work => finished,
        signal = tokio::signal::ctrl_c() => {
            signal.map_err(|error| {
                Failure::new(Exit::LocalIo, format!("cannot listen for Ctrl-C: {error}"))
            })?;
            let standing = context.standing.words();
            let message = if standing.is_empty() {
                "interrupted before the store confirmed a change".to_owned()
            } else {
                format!("interrupted; the publish stands: {}", standing.join(", "))
            };
            Err(Failure::new(Exit::Interrupted, message))
        }
    }
}
