//! `edit`: one object in an editor, published when it comes back changed.
//!
//! The text of the operator is never lost: when it cannot be published, its file stays and is named.

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use config_center_core::fleet::inventory::{Loaded, Loading, load};
use schemas::objects::ObjectId;

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags, output, rollouts,
};
use crate::fleet::{
    publish::{self, Wish},
    snapshot,
};

const DEFAULT_EDITOR: &str = "vi";

pub(crate) async fn edit(context: &Context, args: &flags::Edit) -> Result<Exit, Failure> {
    let id: ObjectId = args.what.parse().map_err(Failure::invalid)?;
    let (client, ns) = (&context.client, &context.namespace);
    let snapshot = snapshot::read(client, ns).await?;
    let there = snapshot.inventory.get(&id);
    let there = there.ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no {id}")))?;
    let before = output::yaml_text(&there.object)?;
    let file = text_file(&id, &before)?;
    run_editor(&file)?;
    let after = std::fs::read_to_string(&file).map_err(|error| local(&file, &error))?;
    if after == before {
        remove(&file)?;
        context.out.remark("nothing was edited, nothing written");
        return Ok(Exit::Done);
    }
    let kept = |failure: Failure| {
        let message = format!("{failure}\nYour text is kept in {}", file.display());
        Failure::new(failure.exit, message)
    };
    let loaded = one(&id, &file, &after).map_err(kept)?;
    let wish = Wish {
        expected: vec![(id, there.store_revision().unwrap_or(0))],
        put: vec![loaded],
        ..Default::default()
    };
    let author = actor(context, &args.why);
    let published = publish::publish(client, ns, &wish, &author).await;
    let published = published.map_err(|error| kept(error.into()))?;
    remove(&file)?;
    let longest = args.wait.wait.then_some(args.wait.timeout);
    rollouts::follow_publish(context, published, longest).await
}

fn one(id: &ObjectId, file: &Path, text: &str) -> Result<Loaded, Failure> {
    let Loading {
        mut objects,
        problems,
    } = load(&file.display().to_string(), text);
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(Failure::invalid(lines.join("\n")));
    }
    match (objects.pop(), objects.is_empty()) {
        (Some(loaded), true) if loaded.object.id() == *id => Ok(loaded),
        _ => Err(Failure::invalid(format!("the text is not {id} alone"))),
    }
}

/// A new file that nobody else can read.
fn text_file(id: &ObjectId, text: &str) -> Result<PathBuf, Failure> {
    let name = format!(
        "configctl-{}-{}-{}.yaml",
        id.kind,
        id.name,
        std::process::id()
    );
    let file = env::temp_dir().join(name);
    let mut opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .map_err(|error| local(&file, &error))?;
    opened
        .write_all(text.as_bytes())
        .map_err(|error| local(&file, &error))?;
    Ok(file)
}

/// The editor's name may bring arguments along, as everywhere: the shell takes them apart.
fn run_editor(file: &Path) -> Result<(), Failure> {
    let named = |variable| env::var(variable).ok().filter(|name| !name.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR"));
    let editor = editor.unwrap_or_else(|| DEFAULT_EDITOR.to_owned());
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "configctl-edit"])
        .arg(file)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(
            Exit::LocalIo,
            format!("{editor} ended with {status}; nothing was written"),
        )),
        Err(error) => Err(Failure::new(
            Exit::LocalIo,
            format!("{editor} cannot be started: {error}"),
        )),
    }
}

fn remove(file: &Path) -> Result<(), Failure> {
    std::fs::remove_file(file).map_err(|error| local(file, &error))
}

fn local(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::LocalIo, format!("{}: {error}", file.display()))
}
