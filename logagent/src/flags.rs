//! The command line and the environment. Knows names and help texts; decides nothing: which source
//! wins is written in `settings`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Tails files as the config center says and publishes every line to Kafka.
#[derive(Debug, Default, Parser)]
#[command(name = "logagent", version, args_conflicts_with_subcommands = true)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The agent's own YAML file
    #[arg(long, env = "LOGAGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Endpoints of the config center, comma-separated
    #[arg(
        long,
        env = "LOGAGENT_ETCD_ENDPOINTS",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub etcd_endpoints: Option<Vec<String>>,
    /// User name at the config center
    #[arg(long, env = "LOGAGENT_ETCD_USERNAME", value_name = "NAME")]
    pub etcd_username: Option<String>,
    /// Password at the config center; prefer the environment, other users see the command line
    #[arg(
        long,
        env = "LOGAGENT_ETCD_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub etcd_password: Option<String>,
    /// Authority that signed the center's certificate, PEM
    #[arg(long, env = "LOGAGENT_ETCD_CA", value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// This agent's certificate, PEM
    #[arg(long, env = "LOGAGENT_ETCD_CERT", value_name = "FILE")]
    pub etcd_cert: Option<PathBuf>,
    /// Private key of this agent's certificate, PEM
    #[arg(long, env = "LOGAGENT_ETCD_KEY", value_name = "FILE")]
    pub etcd_key: Option<PathBuf>,

    /// Config key with %s, {ip}, {hostname} or {id}
    #[arg(long, env = "LOGAGENT_KEY", value_name = "TEMPLATE")]
    pub key: Option<String>,
    /// What {ip} stands for, instead of the address found on this machine
    #[arg(long, env = "LOGAGENT_HOST", value_name = "NAME")]
    pub host: Option<String>,
    /// What {id} stands for
    #[arg(long, env = "LOGAGENT_ID", value_name = "ID")]
    pub id: Option<String>,

    /// Kafka brokers, HOST:PORT, comma-separated
    #[arg(long, env = "LOGAGENT_BOOTSTRAP_SERVERS", value_name = "LIST")]
    pub bootstrap_servers: Option<String>,
    /// One librdkafka property; repeat for more
    #[arg(long = "kafka", value_name = "PROPERTY=VALUE")]
    pub kafka: Vec<String>,

    /// Folder for the checkpoint, the cached config and the lock
    #[arg(long, env = "LOGAGENT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directories that may be read, comma-separated
    #[arg(
        long,
        env = "LOGAGENT_ALLOW",
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub allow: Option<Vec<PathBuf>>,

    /// Key of the status document, when it is not the config key with `status` for `config`
    #[arg(long, env = "LOGAGENT_STATUS_KEY", value_name = "TEMPLATE")]
    pub status_key: Option<String>,
    /// How often the status is refreshed, such as 5s
    #[arg(long, env = "LOGAGENT_STATUS_INTERVAL", value_name = "DURATION")]
    pub status_interval: Option<String>,
    /// A label of this host for the status; repeat for more
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration value without a center or a broker; exit 3 when it has problems
    Check {
        /// File with the JSON value, or - for standard input
        file: PathBuf,
    },
}
