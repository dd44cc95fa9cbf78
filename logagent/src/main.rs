//! The binary: flags, log, signals, exit codes. Everything else is in the library.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use logagent::agent::Agent;
use logagent::commands::{self, Answer, CommandError};
use logagent::flags::{Command, Flags};
use logagent::settings::{self, HostNames};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

/// What a wrong command line answers, as most programs do.
const EXIT_USAGE: u8 = 2;
/// A second signal: nothing was waited for.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return usage(&error),
    };
    let Some(command) = &flags.command else {
        return run_agent(&flags).unwrap_or_else(|error| {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        });
    };
    match run_command(command) {
        Ok(answer) => print_answer(&answer),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_command(command: &Command) -> Result<Answer, CommandError> {
    match command {
        Command::Status { home, output } => commands::status::run(home, *output),
        Command::Check { source, output } => commands::check::run(source, *output),
        Command::Try {
            path,
            exclude,
            lines,
            home,
            output,
        } => {
            let wanted = commands::try_path::Wanted {
                path,
                exclude,
                lines: *lines,
            };
            commands::try_path::run(wanted, home, *output)
        }
        Command::Offsets(command) => commands::offsets::run(command),
    }
}

/// A reader that has seen enough, such as `head`, is no failure.
fn print_answer(answer: &Answer) -> ExitCode {
    match std::io::stdout().write_all(answer.text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(answer.exit_code),
    }
}

fn complain(words: &str) {
    eprintln!("logagent: {}", words.replace('\n', " "));
}

/// Help and version as clap writes them; of an error only the line that says what is wrong.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("error: wrong command line");
    eprintln!(
        "logagent: {}; see logagent --help",
        first.trim_start_matches("error: ")
    );
    ExitCode::from(EXIT_USAGE)
}

fn run_agent(flags: &Flags) -> anyhow::Result<ExitCode> {
    start_log();
    let settings = settings::load(flags, &HostNames::of_this_machine())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ];
        let stop = Arc::<Notify>::default();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            key = settings.config_key,
            center = settings.etcd.endpoints.join(","),
            "logagent starts"
        );
        let agent = Agent::start(settings)?;
        tokio::spawn(watch_signals(signals, Arc::clone(&stop)));
        let ended = agent.run(stop).await?;
        if !ended.settled {
            tracing::warn!("some lines were not acknowledged in time: the next start sends them");
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// The first signal ends the agent in order, the second one at once.
async fn watch_signals(mut signals: [Signal; 2], stop: Arc<Notify>) {
    let [terminate, interrupt] = &mut signals;
    let mut told = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if told {
            tracing::warn!("a second signal: ending at once");
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        told = true;
        stop.notify_one();
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env("LOGAGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}
