//! `agents adopt|restore|retire`: what to do with a key that was edited by hand, and with a host
//! that is gone.

use config_center_core::fleet::{
    diff::rows_of_value,
    inventory::{Loaded, load_stored},
};
use schemas::objects::{Group, Host, Kind, Log, LogPath, Name, Object, ObjectId};

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags, rollouts,
};
use crate::fleet::{
    audit,
    publish::{self, Wish},
    snapshot,
    txn::{self, Written, put, unchanged},
    view::{Drift, View},
};

/// The edit becomes the host's own entries, so that objects and key say the same.
pub(crate) async fn adopt(context: &Context, args: &flags::HostAction) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    let view = View::load(client, ns).await?;
    let drift = drift_of(&view, &host)?;
    let snapshot = snapshot::read(client, ns).await?;
    let there = snapshot
        .inventory
        .host(&host)
        .map(|(object, _)| object.clone());
    let before = there.unwrap_or_else(|| Host::new(host.clone(), Default::default()));
    let value = view.configs.get(host.as_str()).map(|key| &key.value[..]);
    let published = view
        .published
        .get(host.as_str())
        .and_then(|(record, _)| record.document.clone());
    let object = adopted(before, published.as_deref(), value)
        .map_err(|reason| Failure::invalid(format!("{host}: {reason}. Nothing was changed")))?;
    let wish = Wish {
        put: vec![loaded(&Object::Host(object))?],
        allow_emptying: true,
        ..Default::default()
    };
    let published = publish::publish(client, ns, &wish, &actor(context, &args.why)).await?;
    if context.out.is_prose() {
        tell(context, &drift)?;
    }
    rollouts::follow_publish(context, published, None).await
}

/// What the host object has to say so that rendering gives the document found.
fn adopted(
    mut object: Host,
    published: Option<&str>,
    value: Option<&[u8]>,
) -> Result<Host, String> {
    let unreadable = |error: config_center_core::fleet::document::DocumentError| error.to_string();
    let was = rows_of_value(published.map(str::as_bytes)).map_err(unreadable)?;
    let is = rows_of_value(value).map_err(unreadable)?;
    let mut paths: Vec<&String> = was
        .iter()
        .chain(&is)
        .filter_map(|row| row.path.as_ref())
        .collect();
    paths.sort();
    paths.dedup();
    if is.iter().any(|row| row.path.is_none()) {
        return Err("an entry has no path".into());
    }
    for path in paths {
        let of = |rows: &[config_center_core::fleet::diff::Row]| {
            let mut contents: Vec<String> = rows
                .iter()
                .filter(|row| row.path.as_ref() == Some(path))
                .map(|row| row.content.to_string())
                .collect();
            contents.sort();
            contents
        };
        let found = of(&is);
        if found == of(&was) {
            continue;
        }
        let path = LogPath::new(path.as_str())?;
        object.spec.logs.retain(|log| log.path != path);
        object.spec.exclude.retain(|excluded| *excluded != path);
        if found.is_empty() {
            object.spec.exclude.push(path.clone());
        }
        for content in found {
            let log: Log = serde_json::from_str(&content)
                .map_err(|error| format!("the entry for {path} cannot be an object's: {error}"))?;
            object.spec.logs.push(log);
        }
    }
    Ok(object)
}

/// The key becomes again what was published.
pub(crate) async fn restore(context: &Context, args: &flags::HostAction) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    let view = View::load(client, ns).await?;
    let drift = drift_of(&view, &host)?;
    let (record, record_revision) = &view.published[host.as_str()];
    let (key, there) = (ns.config(host.as_str()), view.configs.get(host.as_str()));
    let snapshot = snapshot::read(client, ns).await?;
    let author = actor(context, &args.why);
    let event = author.event(
        "host.restore",
        &format!("host {host}"),
        "the published document again",
    );
    let (same_head, appended) = audit::append(
        ns,
        &snapshot.head,
        snapshot.head_revision,
        event,
        snapshot.head.release,
    );
    let mut record = record.clone();
    record.kept.clear();
    let mut puts = vec![match &record.document {
        Some(document) => put(key.clone(), document.clone()),
        None => txn::delete(key.clone()),
    }];
    let record_key = ns.published_to(host.as_str());
    puts.push(put(
        record_key.clone(),
        crate::fleet::records::encode(&record),
    ));
    puts.extend(appended);
    let compare = vec![
        unchanged(key, there.map_or(0, |key| key.mod_revision)),
        unchanged(record_key, *record_revision),
        same_head,
    ];
    match txn::write(client, compare, puts).await? {
        Written::Lost => Err(Failure::new(
            Exit::RaceLost,
            format!(
                "{host}: somebody changed it at the same moment; nothing was written. Look again"
            ),
        )),
        Written::At { revision } => {
            if context.out.is_prose() {
                tell(context, &drift)?;
                context
                    .out
                    .line(&format!("{host}: restored (revision {revision})"))?;
            }
            Ok(Exit::Done)
        }
    }
}

/// Takes a host out of the fleet: its object, its memberships, and then its key.
pub(crate) async fn retire(context: &Context, args: &flags::HostAction) -> Result<Exit, Failure> {
    let (client, ns) = (&context.client, &context.namespace);
    let host = Name::new(args.host.as_str()).map_err(Failure::invalid)?;
    let snapshot = snapshot::read(client, ns).await?;
    let id = ObjectId {
        kind: Kind::Host,
        name: host.clone(),
    };
    let mut wish = Wish {
        allow_emptying: true,
        ..Default::default()
    };
    if snapshot.inventory.get(&id).is_some() {
        wish.delete.push(id);
    }
    for (group, _) in snapshot
        .inventory
        .groups()
        .filter(|(group, _)| group.spec.members.contains(&host))
    {
        let mut without: Group = group.clone();
        without.spec.members.retain(|member| *member != host);
        wish.put.push(loaded(&Object::Group(without))?);
    }
    if wish.delete.is_empty() && wish.put.is_empty() {
        let message = format!("no object speaks of {host}: there is nothing to retire");
        return Err(Failure::new(Exit::NotFound, message));
    }
    let published = publish::publish(client, ns, &wish, &actor(context, &args.why)).await?;
    rollouts::follow_publish(context, published, None).await
}

fn drift_of(view: &View, host: &Name) -> Result<Drift, Failure> {
    if !view.published.contains_key(host.as_str()) {
        let message = format!("nothing was ever published to {host}");
        return Err(Failure::new(Exit::NotFound, message));
    }
    view.drift(host.as_str()).ok_or_else(|| {
        Failure::new(
            Exit::AnsweredNo,
            format!("{host} has not drifted: its key is as published"),
        )
    })
}

fn tell(context: &Context, drift: &Drift) -> Result<(), Failure> {
    let revision = drift.revision.map_or("deleted outside".into(), |revision| {
        format!("edited outside at revision {revision}")
    });
    context.out.line(&format!("{}: {revision}", drift.host))?;
    for change in drift.changes.iter().flatten() {
        context.out.line(&format!("  {change}"))?;
    }
    Ok(())
}

fn loaded(object: &Object) -> Result<Loaded, Failure> {
    load_stored(&object.id().to_string(), 0, object.to_json().as_bytes())
        .map_err(|problem| Failure::invalid(problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host::new(Name::new("h").unwrap(), Default::default())
    }

    #[test]
    fn an_adopted_edit_is_what_the_host_says() {
        let published = r#"[{"path":"/a","topic":"t"},{"path":"/b","topic":"t"}]"#;
        let edited = r#"[{"path":"/b","topic":"u"},{"path":"/c","topic":"t","from":"end"}]"#;
        let object = adopted(host(), Some(published), Some(edited.as_bytes())).unwrap();
        let logs: Vec<String> = object
            .spec
            .logs
            .iter()
            .map(|log| format!("{}>{}", log.path, log.topic))
            .collect();
        assert_eq!(logs, ["/b>u", "/c>t"]);
        assert_eq!(object.spec.exclude, [LogPath::new("/a").unwrap()]);
        // Taking it back by hand and adopting again leaves nothing behind but the host's own words.
        let again = adopted(object, Some(edited), Some(published.as_bytes())).unwrap();
        assert!(again.spec.exclude.contains(&LogPath::new("/c").unwrap()));
        assert!(again.spec.logs.iter().any(|log| log.path.as_str() == "/a"));
    }

    #[test]
    fn what_cannot_be_an_object_is_refused() {
        for bad in [
            &br#"[{"path":"/a","topic":"t","colour":1}]"#[..],
            b"[{\"topic\":\"t\"}]",
            b"no",
        ] {
            assert!(adopted(host(), None, Some(bad)).is_err(), "{bad:?}");
        }
    }
}
