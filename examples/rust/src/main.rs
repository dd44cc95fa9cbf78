//! Stores the log-collection config of one host with the etcd-client crate and reads it back, then
//! does the same with a sample value.
//!
//! Knows nothing of config-center: run against it or against etcd, it prints the same lines.

use std::{env, process::ExitCode, time::Duration};

use etcd_client::{Client, ConnectOptions, Error};
use serde::Serialize;

const HOST_KEY: &str = "/ningxin/backend/logagent/config/192.168.56.1";
const SAMPLE_KEY: &str = "/logagent/conf/";
const DEFAULT_ENDPOINTS: &str = "localhost:2379,localhost:22379,localhost:32379";
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// One file to collect and the Kafka topic its lines go to.
#[derive(Serialize)]
struct Source {
    path: &'static str,
    topic: &'static str,
}

const SOURCES: [Source; 2] = [
    Source {
        path: "D:/project/nginx/logs/access.log",
        topic: "nginx_log",
    },
    Source {
        path: "D:/project/nginx/logs/error.log",
        topic: "nginx_log_err",
    },
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let endpoints = endpoints();
    let config = serde_json::to_string(&SOURCES)?;
    let stored = put_and_show(&endpoints, HOST_KEY, &config).await;
    let sample_stored = put_and_show(&endpoints, SAMPLE_KEY, "sample_value").await;
    Ok(if stored && sample_stored {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first argument, else `ETCD_ENDPOINTS`, else the three usual local ones.
fn endpoints() -> Vec<String> {
    env::args()
        .nth(1)
        .or_else(|| env::var("ETCD_ENDPOINTS").ok())
        .filter(|list| !list.is_empty())
        .unwrap_or_else(|| DEFAULT_ENDPOINTS.to_owned())
        .split(',')
        .map(str::to_owned)
        .collect()
}

/// A client of the first endpoint that answers. Given several at once, this crate spreads requests
/// over dead ones too and reports their refusals.
async fn connect(endpoints: &[String]) -> Result<Client, Error> {
    let mut refusal = Error::InvalidArgs("no endpoint given".to_owned());
    for endpoint in endpoints {
        let options = ConnectOptions::new()
            .with_connect_timeout(DIAL_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT);
        match Client::connect([endpoint], Some(options)).await {
            Ok(mut client) => match client.status().await {
                Ok(_) => return Ok(client),
                Err(error) => refusal = error,
            },
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Opens a client of its own, as a program that only pushes one value would.
async fn put_and_show(endpoints: &[String], key: &str, value: &str) -> bool {
    let mut client = match connect(endpoints).await {
        Ok(client) => client,
        Err(error) => {
            println!("connect failed, err: {error}");
            return false;
        }
    };
    println!("connect succ");

    if let Err(error) = client.put(key, value, None).await {
        println!("put failed, err: {error}");
        return false;
    }
    match client.get(key, None).await {
        Ok(answer) => {
            for kv in answer.kvs() {
                println!(
                    "{} : {}",
                    String::from_utf8_lossy(kv.key()),
                    String::from_utf8_lossy(kv.value())
                );
            }
            true
        }
        Err(error) => {
            println!("get failed, err: {error}");
            false
        }
    }
}
