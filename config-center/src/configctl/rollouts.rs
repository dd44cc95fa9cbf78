//! `rollout …`: how releases travel, and the hand that stops or helps them.
//!
//! Whoever watches a rollout also drives it: any number of drivers may, so that a fleet on a plain
//! etcd needs no further service while somebody waits. Ctrl-C stops watching, not the rollout.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use config_center_core::fleet::{host_state::HostState, rollout::Progress};
use tokio::time::Instant;

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags,
    flags::Format,
    table::{Cell, Paint, Table, age},
};
use crate::fleet::{
    audit::now_ms,
    driver::{Driver, News, load_plan},
    error::FleetError,
    publish::Published,
    records::{StoredPlan, StoredRollout},
    rollout_status::RolloutStatus,
    rollouts as stored,
    view::View,
};

const FAILURES_SHOWN: usize = 10;

fn exit_of(rollout: &RolloutStatus) -> Exit {
    if rollout.has_failed() {
        Exit::AnsweredNo
    } else {
        Exit::Done
    }
}

/// How following rollouts ended, and how long their hosts took.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) exit: Exit,
    pub(crate) stopwatch: Stopwatch,
}

impl Followed {
    fn nothing() -> Self {
        Self {
            exit: Exit::Done,
            stopwatch: Stopwatch::default(),
        }
    }
}

/// Takes the time of each host, from the write of its key to the proof that it runs it. It looks
/// whenever there are news, so a time is never too short.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    written: HashMap<String, Instant>,
    pub(crate) applied: BTreeMap<String, Duration>,
}

impl Stopwatch {
    fn look(&mut self, rollout: &StoredRollout, plan: &StoredPlan, view: &View) {
        let now = Instant::now();
        let hosts = &plan.plan.hosts;
        for host in &hosts[..rollout.progress.published.min(hosts.len())] {
            if self.applied.contains_key(host) || rollout.progress.skipped.contains_key(host) {
                continue;
            }
            let written = *self.written.entry(host.clone()).or_insert(now);
            if matches!(view.state(host), HostState::Applied) {
                self.applied.insert(host.clone(), now - written);
            }
        }
    }

    /// "p99 84 ms", when there is anything to say.
    fn words(&self) -> Option<String> {
        let times = self.applied.values().copied();
        (!self.applied.is_empty()).then(|| format!("p99 {} ms", p99_ms(times)))
    }
}

/// The time that one in a hundred exceeds, at most.
pub(crate) fn p99_ms(times: impl Iterator<Item = Duration>) -> u128 {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    let rank = (times.len() * 99).div_ceil(100);
    let at = times.get(rank.saturating_sub(1));
    at.map_or(0, Duration::as_millis)
}

/// Whether a document at the end is this function's to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Printed,
    Silent,
}

/// After a publish: tells what was released, takes the steps that can be taken now, and waits for
/// the rest when asked to.
pub(crate) async fn follow_publish(
    context: &Context,
    published: Published,
    wait: Option<Duration>,
) -> Result<Exit, Failure> {
    Ok(follow(context, published, wait).await?.exit)
}

/// As `follow`, for a command that prints a document of its own.
pub(crate) async fn follow_quietly(
    context: &Context,
    published: Published,
    wait: Option<Duration>,
) -> Result<Followed, Failure> {
    let Some(release) = &published.release else {
        return Ok(Followed::nothing());
    };
    context.standing.add_release(release.number);
    if context.out.is_prose() {
        context.out.line(&format!(
            "release {}: {} (revision {})",
            release.number, release.summary, published.revision
        ))?;
    }
    let to_the_end = wait.is_some();
    watch_rollouts(
        context,
        &published.rollouts,
        wait,
        to_the_end,
        Ending::Silent,
    )
    .await
}

pub(crate) async fn follow(
    context: &Context,
    published: Published,
    wait: Option<Duration>,
) -> Result<Followed, Failure> {
    let Some(release) = &published.release else {
        match context.out.format {
            Format::Table | Format::Wide => {
                context.out.line("nothing to change, nothing written")?;
            }
            Format::Json | Format::Yaml => context
                .out
                .document(&serde_json::json!({ "release": null }))?,
            Format::Name => {}
        }
        return Ok(Followed::nothing());
    };
    context.standing.add_release(release.number);
    if context.out.is_prose() {
        for object in &published.change.objects {
            context.out.line(&object.to_string())?;
        }
        context.out.line(&format!(
            "release {}: {} (revision {})",
            release.number, release.summary, published.revision
        ))?;
    }
    let to_the_end = wait.is_some();
    let followed = watch_rollouts(
        context,
        &published.rollouts,
        wait,
        to_the_end,
        Ending::Printed,
    )
    .await?;
    match context.out.format {
        Format::Json | Format::Yaml if wait.is_none() => {
            context.out.document(&serde_json::json!({
                "release": release.number,
                "revision": published.revision,
                "summary": release.summary,
                "rollouts": published.rollouts,
            }))?
        }
        Format::Name => context.out.line(&release.number.to_string())?,
        _ => {}
    }
    Ok(followed)
}

pub(crate) async fn run(context: &Context, command: &flags::Rollout) -> Result<Exit, Failure> {
    match command {
        flags::Rollout::Status { id } => status(context, id.as_deref()).await,
        flags::Rollout::Watch { id, timeout } => {
            let ids = match id {
                Some(id) => vec![id.clone()],
                None => running(context).await?,
            };
            let watched = watch_rollouts(context, &ids, *timeout, true, Ending::Printed);
            Ok(watched.await?.exit)
        }
        flags::Rollout::Pause { id, why } => {
            let author = actor(context, why);
            let (by, reason) = (author.name.clone(), author.reason.clone());
            command_to(context, id, "rollout.pause", why, |progress| {
                Ok(progress.pause(&by, &reason, now_ms())?)
            })
            .await
        }
        flags::Rollout::Resume { id, why } => {
            command_to(context, id, "rollout.resume", why, |progress| {
                Ok(progress.resume(now_ms())?)
            })
            .await
        }
        flags::Rollout::Retry { id, why } => {
            command_to(context, id, "rollout.retry", why, |progress| {
                Ok(progress.retry(now_ms())?)
            })
            .await
        }
        flags::Rollout::Abort { id, why } => {
            let author = actor(context, why);
            let (by, reason) = (author.name.clone(), author.reason.clone());
            command_to(context, id, "rollout.abort", why, |progress| {
                Ok(progress.abort(&by, &reason, now_ms())?)
            })
            .await
        }
    }
}

async fn running(context: &Context) -> Result<Vec<String>, Failure> {
    let running = stored::running_rollouts(&context.client, &context.namespace).await?;
    Ok(running.into_iter().map(|(rollout, _)| rollout.id).collect())
}

async fn command_to(
    context: &Context,
    id: &str,
    action: &str,
    why: &flags::Why,
    command: impl Fn(&Progress) -> Result<Progress, FleetError>,
) -> Result<Exit, Failure> {
    let author = actor(context, why);
    let (client, ns) = (&context.client, &context.namespace);
    stored::command(client, ns, id, action, &author, command).await?;
    // What can be done at once is done at once: a resumed rollout should move.
    let ids = [id.to_owned()];
    watch_rollouts(context, &ids, None, false, Ending::Printed).await?;
    Ok(Exit::Done)
}

async fn status(context: &Context, id: Option<&str>) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let view = View::load(client, ns).await?;
    let mut shown = Vec::new();
    for (rollout, _) in view.rollouts.values().rev() {
        if id.is_none_or(|id| id == rollout.id) {
            let plan = load_plan(client, ns, rollout).await?;
            shown.push(RolloutStatus::new(rollout, &plan, &view));
        }
    }
    if let (Some(id), []) = (id, &shown[..]) {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no rollout {id}"),
        ));
    }
    match (context.out.format, id) {
        (Format::Json | Format::Yaml, Some(_)) => context.out.document(&shown[0])?,
        (Format::Json | Format::Yaml, None) => context.out.document(&shown)?,
        (Format::Name, _) => {
            for rollout in &shown {
                context.out.line(&rollout.id)?;
            }
        }
        (Format::Table | Format::Wide, Some(_)) => tell(context, &shown[0])?,
        (Format::Table | Format::Wide, None) => context.out.table(&table(&shown))?,
    }
    Ok(id.map_or(Exit::Done, |_| exit_of(&shown[0])))
}

fn table(shown: &[RolloutStatus]) -> Table {
    let mut table = Table::new([
        "ROLLOUT", "PHASE", "POLICY", "WAVE", "APPLIED", "FAILED", "BEGAN", "REASON",
    ]);
    for rollout in shown {
        let paint = match rollout.phase {
            "completed" => Paint::Good,
            "running" => Paint::Notice,
            _ => Paint::Bad,
        };
        table.row([
            rollout.id.as_str().into(),
            Cell::painted(rollout.phase, paint),
            rollout.policy.as_deref().unwrap_or("-").into(),
            format!("{}/{}", rollout.wave, rollout.waves).into(),
            format!("{}/{}", rollout.tally.applied, rollout.tally.total).into(),
            rollout.tally.failed.to_string().into(),
            age(now_ms().saturating_sub(rollout.began_ms)).into(),
            rollout.reason.as_deref().unwrap_or("-").into(),
        ]);
    }
    table
}

fn tell(context: &Context, rollout: &RolloutStatus) -> Result<(), Failure> {
    context.out.line(&rollout.sentence())?;
    if let Some(reason) = &rollout.reason {
        context.out.line(&format!("  {reason}"))?;
    }
    for failed in rollout.failures.iter().take(FAILURES_SHOWN) {
        context
            .out
            .line(&format!("  {}: {}", failed.host, failed.reason))?;
    }
    Ok(())
}

/// Drives rollouts and shows how they go, until they come to rest.
async fn watch_rollouts(
    context: &Context,
    ids: &[String],
    longest: Option<Duration>,
    to_the_end: bool,
    ending: Ending,
) -> Result<Followed, Failure> {
    if ids.is_empty() {
        if to_the_end && context.out.is_prose() {
            context.out.line("no rollout is under way")?;
        }
        return Ok(Followed::nothing());
    }
    let deadline = longest.map(|longest| Instant::now() + longest);
    let mut driver = Driver::new(context.client.clone(), context.namespace.clone()).await?;
    let mut live = Live::new(context, ending);
    let mut stopwatch = Stopwatch::default();
    loop {
        loop {
            match driver.step().await? {
                News::Stepped { .. } => {
                    live.show(&shown(context, &mut driver, ids, &mut stopwatch).await?)?;
                }
                News::Faulty { id, reason } if ids.contains(&id) => {
                    return Err(Failure::invalid(format!("rollout {id}: {reason}")));
                }
                News::Faulty { id, reason } => {
                    context
                        .out
                        .remark(&format!("rollout {id} stands still: {reason}"));
                }
                News::Idle | News::StoreGone { .. } => break,
            }
        }
        let shown = shown(context, &mut driver, ids, &mut stopwatch).await?;
        live.show(&shown)?;
        if !to_the_end || shown.iter().all(|rollout| rollout.is_at_rest) {
            live.end(&shown)?;
            let speaks = to_the_end && ending == Ending::Printed && context.out.is_prose();
            if let Some(words) = stopwatch.words().filter(|_| speaks) {
                context
                    .out
                    .line(&format!("  {words} from a host's key to the proof"))?;
            }
            let worst = shown.iter().map(exit_of).find(|exit| *exit != Exit::Done);
            return Ok(Followed {
                exit: worst.filter(|_| to_the_end).unwrap_or(Exit::Done),
                stopwatch,
            });
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            live.end(&shown)?;
            let message = "the time is up; the rollout goes on while somebody drives it: see `configctl rollout watch`";
            return Err(Failure::new(Exit::Timeout, message));
        }
        let next_look = driver.next_look();
        let until = deadline.map_or(next_look, |deadline| deadline.min(next_look));
        if let News::StoreGone { reason } = driver.wait(until).await? {
            context.out.remark(&format!("still waiting: {reason}"));
        }
    }
}

async fn shown(
    context: &Context,
    driver: &mut Driver,
    ids: &[String],
    stopwatch: &mut Stopwatch,
) -> Result<Vec<RolloutStatus>, Failure> {
    let mut shown = Vec::new();
    for id in ids {
        let Some((rollout, _)) = driver.view().rollouts.get(id).cloned() else {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no rollout {id}"),
            ));
        };
        let plan = match driver.view().plans.get(id) {
            Some(plan) => plan.clone(),
            None => {
                std::sync::Arc::new(load_plan(&context.client, &context.namespace, &rollout).await?)
            }
        };
        stopwatch.look(&rollout, &plan, driver.view());
        shown.push(RolloutStatus::new(&rollout, &plan, driver.view()));
    }
    Ok(shown)
}

/// A line that is drawn over on a terminal, and one line per change otherwise.
struct Live<'a> {
    context: &'a Context,
    is_terminal: bool,
    ending: Ending,
    last: String,
}

const BAR_CELLS: usize = 20;

impl<'a> Live<'a> {
    fn new(context: &'a Context, ending: Ending) -> Self {
        Self {
            context,
            ending,
            is_terminal: io::stderr().is_terminal(),
            last: String::new(),
        }
    }

    fn show(&mut self, shown: &[RolloutStatus]) -> Result<(), Failure> {
        let text = shown
            .iter()
            .map(RolloutStatus::sentence)
            .collect::<Vec<_>>()
            .join(" · ");
        if text == self.last {
            return Ok(());
        }
        self.last = text;
        if self.is_terminal {
            let (applied, total) = shown.iter().fold((0, 0), |(applied, total), rollout| {
                (applied + rollout.tally.applied, total + rollout.tally.total)
            });
            let full = (applied * BAR_CELLS)
                .checked_div(total)
                .unwrap_or(BAR_CELLS);
            let bar = "█".repeat(full) + &"░".repeat(BAR_CELLS - full);
            let mut err = io::stderr().lock();
            write!(err, "\r\x1b[2K{bar} {}", self.last).and_then(|()| err.flush())?;
        } else {
            self.context.out.remark(&self.last);
        }
        Ok(())
    }

    fn end(&self, shown: &[RolloutStatus]) -> Result<(), Failure> {
        if self.is_terminal && !self.last.is_empty() {
            self.context.out.remark("");
        }
        match self.context.out.format {
            Format::Json | Format::Yaml if self.ending == Ending::Silent => Ok(()),
            Format::Json | Format::Yaml => self.context.out.document(&shown),
            Format::Name => Ok(()),
            Format::Table | Format::Wide => shown
                .iter()
                .try_for_each(|rollout| tell(self.context, rollout)),
        }
    }
}
