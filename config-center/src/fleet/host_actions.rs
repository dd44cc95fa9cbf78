//! What an operator does to one host: adopt or restore a key edited by hand, retire the host.

use config_center_core::fleet::{
    diff::{Row, rows_of_value},
    document::DocumentError,
};
use schemas::objects::{Group, Host, Kind, Log, LogPath, Name, Object, ObjectId};
use schemas_client::Client;

use super::{
    audit::{self, Author},
    edit::loaded,
    error::FleetError,
    keys::Namespace,
    publish::{Published, Wish, publish},
    records::encode,
    snapshot,
    txn::{self, Written, put, unchanged},
    view::{Drift, View},
};

/// The edit becomes the host's own entries, so that objects and key say the same.
pub async fn adopt(
    client: &Client,
    ns: &Namespace,
    host: &Name,
    author: &Author,
) -> Result<(Drift, Published), FleetError> {
    let view = View::load(client, ns).await?;
    let drift = drift_of(&view, host)?;
    let snapshot = snapshot::read(client, ns).await?;
    let there = snapshot
        .inventory
        .host(host)
        .map(|(object, _)| object.clone());
    let before = there.unwrap_or_else(|| Host::new(host.clone(), Default::default()));
    let value = view.configs.get(host.as_str()).map(|key| &key.value[..]);
    let (record, _) = &view.published[host.as_str()];
    let object = adopted(before, record.document.as_deref(), value)
        .map_err(|reason| FleetError::Invalid(format!("{host}: {reason}. Nothing was changed")))?;
    let wish = Wish {
        put: vec![loaded(&Object::Host(object))?],
        allow_emptying: true,
        ..Default::default()
    };
    Ok((drift, publish(client, ns, &wish, author).await?))
}

/// What the host object has to say so that rendering gives the document found.
fn adopted(
    mut object: Host,
    published: Option<&str>,
    value: Option<&[u8]>,
) -> Result<Host, String> {
    let unreadable = |error: DocumentError| error.to_string();
    let was = rows_of_value(published.map(str::as_bytes)).map_err(unreadable)?;
    let is = rows_of_value(value).map_err(unreadable)?;
    if is.iter().any(|row| row.path.is_none()) {
        return Err("an entry has no path".into());
    }
    let mut paths: Vec<&String> = was
        .iter()
        .chain(&is)
        .filter_map(|row| row.path.as_ref())
        .collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let of = |rows: &[Row]| {
            let same = rows.iter().filter(|row| row.path.as_ref() == Some(path));
            let mut contents: Vec<String> = same.map(|row| row.content.to_string()).collect();
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

/// The key becomes again what was published; returns the revision of that.
pub async fn restore(
    client: &Client,
    ns: &Namespace,
    host: &Name,
    author: &Author,
) -> Result<(Drift, i64), FleetError> {
    let view = View::load(client, ns).await?;
    let drift = drift_of(&view, host)?;
    let (record, record_revision) = &view.published[host.as_str()];
    let (key, there) = (ns.config(host.as_str()), view.configs.get(host.as_str()));
    let snapshot = snapshot::read(client, ns).await?;
    let event = author.event(
        "host.restore",
        &format!("host {host}"),
        "the published document again",
    );
    let release = snapshot.head.release;
    let (same_head, appended) =
        audit::append(ns, &snapshot.head, snapshot.head_revision, event, release);
    let mut record = record.clone();
    record.kept.clear();
    let record_key = ns.published_to(host.as_str());
    let mut puts = vec![
        match &record.document {
            Some(document) => put(key.clone(), document.clone()),
            None => txn::delete(key.clone()),
        },
        put(record_key.clone(), encode(&record)),
    ];
    puts.extend(appended);
    let compare = vec![
        unchanged(key, there.map_or(0, |key| key.mod_revision)),
        unchanged(record_key, *record_revision),
        same_head,
    ];
    match txn::write(client, compare, puts).await? {
        Written::At { revision } => Ok((drift, revision)),
        Written::Lost => Err(FleetError::Stale(format!(
            "{host}: somebody changed it at the same moment; nothing was written. Look again"
        ))),
    }
}

/// Takes a host out of the fleet: its object, its memberships, and then its key.
pub async fn retire(
    client: &Client,
    ns: &Namespace,
    host: &Name,
    author: &Author,
) -> Result<Published, FleetError> {
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
        .filter(|(group, _)| group.spec.members.contains(host))
    {
        let mut without: Group = group.clone();
        without.spec.members.retain(|member| member != host);
        wish.put.push(loaded(&Object::Group(without))?);
    }
    if wish.delete.is_empty() && wish.put.is_empty() {
        let message = format!("no object speaks of {host}: there is nothing to retire");
        return Err(FleetError::NotFound(message));
    }
    publish(client, ns, &wish, author).await
}

fn drift_of(view: &View, host: &Name) -> Result<Drift, FleetError> {
    if !view.published.contains_key(host.as_str()) {
        return Err(FleetError::NotFound(format!(
            "nothing was ever published to {host}"
        )));
    }
    let none = || FleetError::NoDrift(host.to_string());
    view.drift(host.as_str()).ok_or_else(none)
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
