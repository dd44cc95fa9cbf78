//! configctl, the operator's hand: publishes what hosts collect and shows what their agents run.
//!
//! Uses the store through the etcd API alone, so it works against any etcd. Knows keys, documents
//! and statuses; must not know how config-center keeps them.
//!
//! What can be decided without the store is the fleet core's: edits that keep other bytes, what a
//! push means, what a status proves.

use std::{future::Future, process::ExitCode};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use config_center_core::fleet::{document, host_state, merge, sha256_hex};
use schemas_client::Client;

use crate::fleet::keys;

mod agents;
mod duration;
mod exit;
mod flags;
mod get;
mod kv;
mod output;
mod publish;
mod push;
mod table;
mod wait;

use exit::{Exit, Failure};
use flags::{Agents, Cli, Command};
use keys::Namespace;
use output::Output;
use push::Standing;

/// What every command works with.
struct Context {
    client: Client,
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
        _ => {}
    }
    let context = Context {
        client: Client::new(cli.connection.options()?)?,
        namespace: cli.connection.namespace(),
        out,
        standing: Standing::default(),
    };
    let work = async {
        match &cli.command {
            Command::Push(args) => push::push(&context, args).await,
            Command::RmPath(args) => push::rm_path(&context, args).await,
            Command::Get { host } => get::get(&context, host.as_deref()).await,
            Command::Agents(Agents::List) => agents::list(&context).await,
            Command::Kv(command) => kv::run(&context, command).await,
            Command::Completion { .. } | Command::Version => Ok(Exit::Done),
        }
    };
    unless_interrupted(&context, work).await
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
