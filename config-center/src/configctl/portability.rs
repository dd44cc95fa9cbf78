//! `export` and `import`: the fleet as files, and existing keys as objects.

use config_center_core::fleet::import::{Imported, host_object};
use schemas::objects::{Host, Name, Object};
use schemas_client::Client;

use super::{
    Context, actor,
    exit::{Exit, Failure},
    flags,
    flags::Format,
    rollouts,
};
use crate::fleet::{
    publish::{self, Wish},
    snapshot,
};

/// Prints all objects; `apply -f` of the output changes nothing.
pub(crate) async fn export(context: &Context) -> Result<Exit, Failure> {
    let snapshot = snapshot::read(&context.client, &context.namespace).await?;
    for broken in &snapshot.broken {
        context.out.remark(&format!("left out: {}", broken.problem));
    }
    let objects: Vec<&Object> = snapshot
        .inventory
        .objects()
        .map(|(_, loaded)| &loaded.object)
        .collect();
    print(context, &objects)?;
    Ok(if snapshot.broken.is_empty() {
        Exit::Done
    } else {
        Exit::Invalid
    })
}

fn print(context: &Context, objects: &[&Object]) -> Result<(), Failure> {
    match context.out.format {
        Format::Json => context.out.document(&objects),
        Format::Name => objects
            .iter()
            .try_for_each(|object| context.out.line(&object.id().to_string())),
        Format::Table | Format::Wide | Format::Yaml => objects.iter().try_for_each(|object| {
            context.out.line("---")?;
            context.out.yaml(object)
        }),
    }
}

/// Makes Host objects of keys that an older tool or a hand has written.
pub(crate) async fn import(context: &Context, args: &flags::Import) -> Result<Exit, Failure> {
    let flags::Import::Etcd(args) = args;
    let client = match &args.from[..] {
        [] => context.client.clone(),
        endpoints => Client::new(context.connection.options_for(endpoints)?)?,
    };
    let found = client.get_prefix(args.prefix.clone()).await?;
    let mut objects: Vec<Object> = Vec::new();
    let mut refused = 0;
    for kv in &found.kvs {
        let key = String::from_utf8_lossy(&kv.key);
        // `/logagent/192.168.56.1/log_config`: the host need not be the last part.
        let host = host_in(&key, &args.prefix, args.suffix.as_deref());
        let imported = host
            .ok_or_else(|| "the key names no host behind the prefix".to_owned())
            .and_then(|host| Name::new(host).map_err(|reason| format!("no host name: {reason}")))
            .and_then(|host| host_object(Host::new(host, Default::default()), &kv.value));
        match imported {
            Ok(Imported { host, remarks }) => {
                for remark in remarks {
                    context.out.remark(&format!("{key}: {remark}"));
                }
                objects.push(Object::Host(host));
            }
            Err(reason) => {
                refused += 1;
                context
                    .out
                    .remark(&format!("configctl: {key}: {reason}; left out"));
            }
        }
    }
    if found.kvs.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no key under {}", args.prefix),
        ));
    }
    if !args.apply {
        print(context, &objects.iter().collect::<Vec<_>>())?;
        return Ok(if refused == 0 {
            Exit::Done
        } else {
            Exit::Invalid
        });
    }
    if refused > 0 {
        let message = format!("{refused} keys cannot be imported; nothing was written");
        return Err(Failure::invalid(message));
    }
    let put = objects
        .iter()
        .map(|object| {
            config_center_core::fleet::inventory::load_stored(
                &object.id().to_string(),
                0,
                object.to_json().as_bytes(),
            )
            .map_err(|problem| Failure::invalid(problem.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let wish = Wish {
        put,
        ..Default::default()
    };
    let published = publish::publish(
        &context.client,
        &context.namespace,
        &wish,
        &actor(context, &args.why),
    )
    .await?;
    rollouts::follow_publish(context, published, None).await
}

/// The part of a key that names the host.
fn host_in<'a>(key: &'a str, prefix: &str, suffix: Option<&str>) -> Option<&'a str> {
    let rest = key.strip_prefix(prefix)?.trim_start_matches('/');
    let host = match suffix {
        Some(suffix) => rest.strip_suffix(suffix)?.trim_end_matches('/'),
        None => rest,
    };
    (!host.is_empty() && !host.contains('/')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_old_layouts() {
        let table = [
            (
                "/oldboy/config/192.168.0.1",
                "/oldboy/config/",
                None,
                Some("192.168.0.1"),
            ),
            (
                "/logagent/10.0.0.1/log_config",
                "/logagent/",
                Some("/log_config"),
                Some("10.0.0.1"),
            ),
            (
                "/logagent/10.0.0.1/other",
                "/logagent/",
                Some("/log_config"),
                None,
            ),
            ("/logagent/a/b", "/logagent/", None, None),
            ("/oldboy/config/", "/oldboy/config/", None, None),
        ];
        for (key, prefix, suffix, expected) in table {
            assert_eq!(host_in(key, prefix, suffix), expected, "{key}");
        }
    }
}
