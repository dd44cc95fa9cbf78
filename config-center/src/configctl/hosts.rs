//! `agents adopt|restore|retire`: what to do with a key that was edited by hand, and with a host
//! that is gone.

use schemas::objects::Name;

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags, rollouts,
};
use crate::fleet::{host_actions, view::Drift};

pub(crate) async fn adopt(context: &Context, args: &flags::HostAction) -> Result<Exit, Failure> {
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    let author = actor(context, &args.why);
    let (drift, published) =
        host_actions::adopt(&context.client, &context.namespace, &host, &author).await?;
    tell(context, &drift)?;
    rollouts::follow_publish(context, published, None).await
}

pub(crate) async fn restore(context: &Context, args: &flags::HostAction) -> Result<Exit, Failure> {
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    let author = actor(context, &args.why);
    let (drift, revision) =
        host_actions::restore(&context.client, &context.namespace, &host, &author).await?;
    tell(context, &drift)?;
    if context.out.is_prose() {
        context
            .out
            .line(&format!("{host}: restored (revision {revision})"))?;
    }
    Ok(Exit::Done)
}

pub(crate) async fn retire(context: &Context, args: &flags::HostAction) -> Result<Exit, Failure> {
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    let author = actor(context, &args.why);
    let published =
        host_actions::retire(&context.client, &context.namespace, &host, &author).await?;
    rollouts::follow_publish(context, published, None).await
}

fn tell(context: &Context, drift: &Drift) -> Result<(), Failure> {
    if !context.out.is_prose() {
        return Ok(());
    }
    let revision = drift.revision.map_or("deleted outside".into(), |revision| {
        format!("edited outside at revision {revision}")
    });
    context.out.line(&format!("{}: {revision}", drift.host))?;
    for change in drift.changes.iter().flatten() {
        context.out.line(&format!("  {change}"))?;
    }
    Ok(())
}
