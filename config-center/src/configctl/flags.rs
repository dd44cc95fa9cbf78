//! The command line: etcdctl's connection flags under etcdctl's names, kubectl's verbs.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use schemas_client::ConnectOptions;

use super::{
    duration::parse_duration,
    exit::{Exit, Failure},
    keys::{DEFAULT_NAMESPACE, Namespace, validate_host},
};

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 answered no · 2 store unreachable · 3 invalid · 4 lost the race for a key ·
5 interrupted · 6 local I/O · 7 timeout of --wait · 8 denied · 9 not found · 128 usage";

/// Tell the fleet's agents what to collect, and see that they do.
///
/// Works with config-center and with any etcd 3.4 or later.
#[derive(Debug, Parser)]
#[command(name = "configctl", version, after_help = EXIT_CODES, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
    /// One host per line
    Name,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Comma-separated endpoints of the store
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// User name, or name:password
    #[arg(long, global = true, env = "ETCDCTL_USER", hide_env_values = true)]
    user: Option<String>,
    /// Password of --user
    #[arg(long, global = true, env = "ETCDCTL_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// PEM file of the certificates to verify servers against
    #[arg(long, global = true, env = "ETCDCTL_CACERT")]
    cacert: Option<PathBuf>,
    /// PEM file of the client's certificate
    #[arg(long, global = true, env = "ETCDCTL_CERT")]
    cert: Option<PathBuf>,
    /// PEM file of the client's private key
    #[arg(long, global = true, env = "ETCDCTL_KEY")]
    key: Option<PathBuf>,
    /// Accept any server certificate (for tests only)
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", value_parser = FalseyValueParser::new())]
    insecure_skip_tls_verify: bool,
    /// Longest wait for one connection
    #[arg(long, global = true, env = "ETCDCTL_DIAL_TIMEOUT", default_value = "2s", value_parser = parse_duration)]
    dial_timeout: Duration,
    /// Longest wait for one answer of the store
    #[arg(long, global = true, env = "ETCDCTL_COMMAND_TIMEOUT", default_value = "5s", value_parser = parse_duration)]
    command_timeout: Duration,
    /// Where the fleet lives in the key space
    #[arg(long, global = true, env = "CONFIGCTL_NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Have hosts collect paths into a topic
    ///
    /// Adds {path, topic} to each host's list and leaves every other entry as it is, also when
    /// others push at the same moment. A path that is there already with another topic gets the new
    /// topic (--add keeps both). The same push again writes nothing and succeeds.
    Push(Push),
    /// Stop collecting paths on hosts
    RmPath(RmPath),
    /// Show what hosts are configured to collect
    Get {
        /// One host; all of them when left out
        host: Option<String>,
    },
    /// The agents and what they really run
    #[command(subcommand)]
    Agents(Agents),
    /// Plain keys, for looking behind the scenes
    #[command(subcommand)]
    Kv(Kv),
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Absolute paths of the files to collect
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Kafka topic that receives each line
    #[arg(short, long)]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// Keep an entry of the same path with another topic and add this one beside it
    #[arg(long)]
    pub(crate) add: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct RmPath {
    /// Paths to stop collecting
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Only the entry with this topic
    #[arg(short, long)]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Hosts {
    /// Hosts, separated by commas; may be given several times
    #[arg(
        long = "host",
        required = true,
        value_delimiter = ',',
        value_name = "HOST"
    )]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Wait until the agents report that they run it
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait for the agents
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    /// Every host: its state, configuration, files and lag
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Kv {
    /// Print values
    Get {
        key: String,
        /// All keys that begin with KEY
        #[arg(long)]
        prefix: bool,
    },
    /// Write a value
    Put { key: String, value: String },
    /// Delete keys
    Del {
        key: String,
        /// All keys that begin with KEY
        #[arg(long)]
        prefix: bool,
    },
    /// Print changes as they come, until interrupted
    Watch {
        key: String,
        /// All keys that begin with KEY
        #[arg(long)]
        prefix: bool,
        /// Begin with this revision instead of now
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
}

impl Connection {
    pub(crate) fn namespace(&self) -> Namespace {
        Namespace::new(&self.namespace)
    }

    pub(crate) fn options(&self) -> Result<ConnectOptions, Failure> {
        let (username, password) = match self.user.as_deref().filter(|user| !user.is_empty()) {
            None => (None, None),
            Some(user) => match (&self.password, user.split_once(':')) {
                (Some(password), _) => (Some(user.to_owned()), Some(password.clone())),
                (None, Some((name, password))) => {
                    (Some(name.to_owned()), Some(password.to_owned()))
                }
                (None, None) => {
                    return Err(Failure::new(
                        Exit::Usage,
                        "--user has no password: write name:password, or give --password or \
                         ETCDCTL_PASSWORD",
                    ));
                }
            },
        };
        Ok(ConnectOptions {
            endpoints: self.endpoints.clone(),
            username,
            password,
            ca: self.cacert.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
            dial_timeout: self.dial_timeout,
            request_timeout: self.command_timeout,
            ..Default::default()
        })
    }
}

impl Hosts {
    /// The hosts in the order given, each once.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        for name in self.names.iter().map(|name| name.trim()) {
            validate_host(name).map_err(Failure::invalid)?;
            if !names.iter().any(|seen| seen == name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn user_and_password_come_together_or_apart() {
        let table = [
            (vec!["--user", "root:a:b"], Some(("root", "a:b"))),
            (
                vec!["--user", "root", "--password", "p"],
                Some(("root", "p")),
            ),
            (
                vec!["--user", "ro:ot", "--password", "p"],
                Some(("ro:ot", "p")),
            ),
            (vec![], None),
        ];
        for (flags, expected) in table {
            let line = ["configctl"].into_iter().chain(flags).chain(["version"]);
            let options = Cli::try_parse_from(line)
                .unwrap()
                .connection
                .options()
                .unwrap();
            let got = options.username.as_deref().zip(options.password.as_deref());
            assert_eq!(got, expected);
        }
        let cli = Cli::try_parse_from(["configctl", "--user", "root", "version"]).unwrap();
        assert_eq!(cli.connection.options().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn hosts_are_split_and_named_once() {
        let line = [
            "configctl",
            "push",
            "/a",
            "-t",
            "t",
            "--host",
            "b,a",
            "--host",
            "b",
        ];
        let Command::Push(push) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not a push");
        };
        assert_eq!(push.hosts.names().unwrap(), ["b", "a"]);
    }
}
