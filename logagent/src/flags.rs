//! The command line and the environment. Knows names and help texts; decides nothing: which source
//! wins is written in `settings`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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

    /// Topic for lines that Kafka refuses for good
    #[arg(long, env = "LOGAGENT_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,

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

    /// Where lines go: kafka, stdout or file:PATH (with {topic}); the last two are for trying out
    #[arg(long, env = "LOGAGENT_SINK", value_name = "SINK")]
    pub sink: Option<String>,
    /// Address for /metrics, /livez, /readyz and /status, such as 127.0.0.1:5066; off by default
    #[arg(long, env = "LOGAGENT_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,

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
    /// What the agent on this host runs: entries, files, lag, losses. Exit 0 well, 1 in trouble, 4 not running
    Status {
        #[command(flatten)]
        home: Home,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Check a configuration value without a center or a broker; exit 3 when it has problems
    Check {
        /// File with the JSON value, - for standard input, or the value itself
        #[arg(value_name = "FILE|JSON")]
        source: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// What a path or pattern would collect on this host: files, whether they can be read, first lines. Exit 1 when nothing would be collected
    Try {
        /// Path or pattern, as in a configuration
        path: String,
        /// Pattern of what is left out; repeat for more
        #[arg(long, value_name = "PATTERN")]
        exclude: Vec<String>,
        /// Lines to show of each file
        #[arg(short = 'n', long, default_value_t = 3)]
        lines: usize,
        #[command(flatten)]
        home: Home,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// What is acknowledged of each file, from the checkpoint on disk
    #[command(subcommand)]
    Offsets(OffsetsCommand),
}

#[derive(Debug, Subcommand)]
pub enum OffsetsCommand {
    /// Show them; the agent may run
    List {
        #[command(flatten)]
        home: Home,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Forget them, so that the next start reads as if the entry were new. Refused while the agent runs
    Reset {
        /// The entry's path, or one file of a pattern
        #[arg(required_unless_present = "all")]
        path: Option<String>,
        /// Only of this topic
        #[arg(long)]
        topic: Option<String>,
        /// Everything
        #[arg(long, conflicts_with_all = ["path", "topic"])]
        all: bool,
        #[command(flatten)]
        home: Home,
    },
}

/// Which agent of this host is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Home {
    /// The agent's own YAML file
    #[arg(long, env = "LOGAGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its data folder
    #[arg(long, env = "LOGAGENT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directories that it may read, comma-separated
    #[arg(
        long,
        env = "LOGAGENT_ALLOW",
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub allow: Option<Vec<PathBuf>>,
    /// Its sink: what is tried out has offsets of its own
    #[arg(long, env = "LOGAGENT_SINK", value_name = "SINK")]
    pub sink: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}
