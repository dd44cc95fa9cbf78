//! From a put in the store to the first line of the file that it names, in the broker's log.

use std::time::Duration;

use crate::agent::{Gateway, Setup};
use crate::latency::{now_ms, remove};
use crate::results::{Quantiles, Reload};
use crate::{Arguments, broker, watched};

const ARRIVAL: Duration = Duration::from_secs(60);
/// Between two reloads, so that each is measured alone.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Reload> {
    let reloads = if arguments.quick { 5 } else { 50 };
    let topic = format!("reload-{}", std::process::id());
    broker::create_stamping_topic(&arguments.bootstrap, &topic)?;
    let folder = arguments.work.join(&topic);
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs)?;
    let setup = Setup {
        name: &topic,
        compression: "lz4",
        folder: &folder,
        allow: &logs,
    };
    let mut gateway = Gateway::connect(&arguments.etcd)?;
    let mut entries = Vec::new();
    let process = watched::Watched::spawn(setup.command(arguments)?, &folder.join("log"))?;
    let mut probe = broker::Probe::new(&arguments.bootstrap, &topic)?;
    let mut put_ms = Vec::new();
    // The first one finds the agent starting, and is not counted.
    for reload in 0..=reloads {
        let path = logs.join(format!("{reload}.log"));
        std::fs::write(&path, format!("{reload}\n"))?;
        entries.push(serde_json::json!({ "path": path, "topic": topic }));
        let value = serde_json::Value::from(entries.clone()).to_string();
        put_ms.push(now_ms());
        gateway.put(&setup.config_key(), &value)?;
        probe.wait_for(reload + 1, ARRIVAL)?;
        std::thread::sleep(PAUSE);
    }
    drop(process);
    let mut values = Vec::new();
    for (line, stamp_ms) in broker::stamped(&arguments.bootstrap, &topic)? {
        let reload: usize = std::str::from_utf8(&line)?.parse()?;
        if reload > 0 {
            values.push((stamp_ms - put_ms[reload]).max(0.0));
        }
    }
    broker::delete_topic(&arguments.bootstrap, &topic)?;
    remove(&folder)?;
    let put_to_first_line = Quantiles::of(values);
    eprintln!("{put_to_first_line:?}");
    Ok(Reload {
        commit: arguments.commit.clone(),
        put_to_first_line,
    })
}
