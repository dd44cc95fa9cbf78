//! The command line: etcdctl's connection flags under etcdctl's names, kubectl's verbs.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use schemas_client::ConnectOptions;

use schemas::objects::{Name, Selector};

use super::{
    duration::parse_duration,
    exit::{Exit, Failure},
    keys::{DEFAULT_NAMESPACE, Namespace, validate_host},
    login, selector,
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
    /// A table with more columns
    Wide,
    Json,
    Yaml,
    /// One host per line
    Name,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
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
    // An id of its own: `kv get KEY` has an argument named key, and global ones share one space.
    #[arg(id = "client_key", long = "key", global = true, env = "ETCDCTL_KEY")]
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
    ///
    /// With --group, and for hosts of which objects speak, the objects are changed and published;
    /// the keys of other hosts are written as they are.
    Push(Push),
    /// Stop collecting paths on hosts
    RmPath(RmPath),
    /// Check files of objects without a store, as if they were the whole fleet
    Validate(Files),
    /// Show what applying files would change; exit code 1 when there is a difference
    Diff(Diff),
    /// Publish objects from files
    ///
    /// Objects that are not in the files stay as they are, unless --prune is given. Applying the same
    /// files again writes nothing. Hosts follow by the rollout policies of their groups.
    Apply(Apply),
    /// Show what a host collects by the objects, and with --explain why
    Effective(Effective),
    /// Show releases, newest first: all, or those that changed an object or a host
    History {
        /// KIND/NAME, or a host
        what: Option<String>,
    },
    /// Show a release by its number, or an object as KIND/NAME
    Show(Show),
    /// Publish a deleted object again, as it was last
    Undelete(Undelete),
    /// Changes that are prepared, looked at and published later
    #[command(subcommand)]
    Draft(Draft),
    /// Change an object in an editor ($VISUAL or $EDITOR) and publish it
    ///
    /// What somebody else published meanwhile is not overwritten: the text that was edited is kept in
    /// a file then, as it is when there is a fault in it.
    Edit(Edit),
    /// Everything about one host, or about one object and the hosts that it reaches
    Describe {
        /// A host, or KIND/NAME
        what: String,
    },
    /// Print lines as they reach Kafka, with the kcat program
    ///
    /// configctl itself speaks to the store alone. Lines of a host come from the topics that it
    /// publishes to, picked by their keys (HOST:PATH unless an entry sets another one).
    Tail(Tail),
    /// As whom the store sees this connection, and what it may do
    Whoami,
    /// Check a user's password and keep it for these endpoints
    ///
    /// Kept in $XDG_CONFIG_HOME/configctl/logins.json, which nobody else can read. --user, --password
    /// and their variables win over it; --forget removes it.
    Login(Login),
    /// Put a release back, or restore a version of an object
    ///
    /// Without arguments, the last release is put back. `rollback Group/web --to 7` publishes the
    /// version that release 7 made; so a deleted object is restored, too.
    #[command(visible_alias = "undo")]
    Rollback(Rollback),
    /// How releases travel through the fleet
    #[command(subcommand)]
    Rollout(Rollout),
    /// Who changed what; exit code 1 when the record was tampered with
    Audit(Audit),
    /// Print all objects, ready to be applied again
    Export,
    /// Make objects of existing keys
    #[command(subcommand)]
    Import(Import),
    /// Show what hosts are configured to collect
    Get {
        /// One host; all of them when left out
        host: Option<String>,
    },
    /// The agents and what they really run
    #[command(subcommand)]
    Agents(Agents),
    /// The members of the store, and its snapshots
    #[command(subcommand)]
    Cluster(Cluster),
    /// Plain keys, for looking behind the scenes
    #[command(subcommand)]
    Kv(Kv),
    /// Write manual pages, one for each command, into a folder
    Man { folder: PathBuf },
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show each endpoint's member; exit code 1 when one has an error or does not answer
    Status,
    /// Copies of the whole store, for the worst case
    #[command(subcommand)]
    Snapshot(Snapshot),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Save a snapshot of the store to a file
    Save { file: PathBuf },
    /// Show what is in a saved snapshot
    Status {
        file: PathBuf,
        #[command(flatten)]
        check: SnapshotCheck,
    },
    /// Make the data folder of a new cluster's member from a saved snapshot
    ///
    /// Takes snapshots of config-center and of any etcd v3, and with --skip-hash-check the file
    /// member/snap/db of an etcd member that has stopped. Keys, revisions, leases, users and alarms
    /// stay; the members are new.
    ///
    /// Run it once for each member, with the same file and the same --initial-cluster, then start
    /// the members with the same flags.
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotCheck {
    /// Take a file without its digest, or with a wrong one
    #[arg(long)]
    pub(crate) skip_hash_check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    pub(crate) file: PathBuf,
    /// A folder that does not exist yet or is empty; NAME.etcd when left out
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    #[arg(long, default_value = "default=http://localhost:2380")]
    pub(crate) initial_cluster: String,
    #[arg(long, default_value = "http://localhost:2380")]
    pub(crate) initial_advertise_peer_urls: String,
    #[arg(long, default_value = "etcd-cluster")]
    pub(crate) initial_cluster_token: String,
    #[command(flatten)]
    pub(crate) check: SnapshotCheck,
    /// Go on with a revision that is so much higher, as clients may have seen later revisions than
    /// the snapshot has
    #[arg(
        long,
        value_name = "REVISIONS",
        requires = "mark_compacted",
        value_parser = clap::value_parser!(i64).range(1..)
    )]
    pub(crate) bump_revision: Option<i64>,
    /// Compact everything up to the new revision, so that no watch goes on from before
    #[arg(long, requires = "bump_revision")]
    pub(crate) mark_compacted: bool,
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
    pub(crate) place: Place,
    /// Keep an entry of the same path with another topic and add this one beside it
    #[arg(long)]
    pub(crate) add: bool,
    #[command(flatten)]
    pub(crate) why: Why,
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
    pub(crate) place: Place,
    /// Go on although many hosts would collect nothing afterwards
    #[arg(long)]
    pub(crate) allow_emptying: bool,
    #[command(flatten)]
    pub(crate) why: Why,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// Where something is to be collected.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// Hosts, separated by commas; may be given several times
    #[arg(long = "host", value_delimiter = ',', value_name = "HOST")]
    hosts: Vec<String>,
    /// All hosts of a group, now and later
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Hosts that have these labels now, such as role=web,zone!=a
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = selector::parse)]
    selector: Option<Selector>,
}

/// What a place means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    /// In the order given, each once.
    Hosts(Vec<String>),
    Group(Name),
    Selected(Selector),
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

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Files or folders with objects in YAML or JSON; - is standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Count objects that are not in the files as deleted
    #[arg(long)]
    pub(crate) prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Show what would change and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete objects that are not in the files
    #[arg(long)]
    pub(crate) prune: bool,
    /// Go on although many hosts would collect nothing afterwards
    #[arg(long)]
    pub(crate) allow_emptying: bool,
    #[command(flatten)]
    pub(crate) why: Why,
    #[command(flatten)]
    pub(crate) wait: RolloutWait,
}

/// What the audit keeps beside the change itself.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Why {
    /// Why: kept in history and audit
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Who; the user of the connection or of this machine when left out
    #[arg(long, env = "CONFIGCTL_AUTHOR")]
    pub(crate) author: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RolloutWait {
    /// Wait until the rollouts are over, and carry them out meanwhile
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Effective {
    pub(crate) host: String,
    /// Objects from files alone, instead of those in the store
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Name the origin of every entry and why it won
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A release's number, or KIND/NAME
    pub(crate) what: String,
    /// The version that this release made
    #[arg(long)]
    pub(crate) release: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// KIND/NAME
    pub(crate) what: Option<String>,
    /// The release whose version of the object is restored
    #[arg(long)]
    pub(crate) to: Option<u64>,
    /// The release to put back; the last one when left out
    #[arg(long, conflicts_with_all = ["what", "to"])]
    pub(crate) release: Option<u64>,
    #[command(flatten)]
    pub(crate) why: Why,
    #[command(flatten)]
    pub(crate) wait: RolloutWait,
}

#[derive(Debug, Args)]
pub(crate) struct Undelete {
    /// KIND/NAME
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) why: Why,
    #[command(flatten)]
    pub(crate) wait: RolloutWait,
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// KIND/NAME
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) why: Why,
    #[command(flatten)]
    pub(crate) wait: RolloutWait,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// A topic, or a host with --host
    #[arg(required_unless_present = "host", conflicts_with = "host")]
    pub(crate) topic: Option<String>,
    /// Lines of this host, whatever their topics
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Kafka's bootstrap servers
    #[arg(
        short,
        long,
        env = "CONFIGCTL_BROKERS",
        default_value = "127.0.0.1:9092"
    )]
    pub(crate) brokers: String,
    /// Begin this many lines before the end of each partition
    #[arg(short = 'n', long, default_value_t = 0)]
    pub(crate) last: u32,
    /// End after so many lines
    #[arg(short, long)]
    pub(crate) count: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Forget what is kept for these endpoints
    #[arg(long)]
    pub(crate) forget: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Draft {
    /// Prepare a change from files; nothing reaches a host
    Create(DraftCreate),
    /// All drafts
    List,
    /// The objects of a draft
    Show { name: String },
    /// What publishing it now would change; exit code 1 when there is a difference
    Diff { name: String },
    /// Publish it, if nobody changed its objects since it was made
    Publish(DraftPublish),
    /// Throw it away
    Discard { name: String },
}

#[derive(Debug, Args)]
pub(crate) struct DraftCreate {
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) files: Files,
    /// Objects to delete, as KIND/NAME
    #[arg(long, value_name = "KIND/NAME")]
    pub(crate) delete: Vec<String>,
    #[command(flatten)]
    pub(crate) why: Why,
}

#[derive(Debug, Args)]
pub(crate) struct DraftPublish {
    pub(crate) name: String,
    /// Go on although many hosts would collect nothing afterwards
    #[arg(long)]
    pub(crate) allow_emptying: bool,
    #[command(flatten)]
    pub(crate) why: Why,
    #[command(flatten)]
    pub(crate) wait: RolloutWait,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// How a rollout stands, or all of them; exit code 1 when it failed or was stopped
    Status { id: Option<String> },
    /// Carry rollouts out and show how they go, until they are over or stand still
    Watch {
        /// One rollout; all that are under way when left out
        id: Option<String>,
        /// Stop watching after this time
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Stop publishing to further hosts
    Pause {
        id: String,
        #[command(flatten)]
        why: Why,
    },
    /// Go on, without the hosts that have failed
    Resume {
        id: String,
        #[command(flatten)]
        why: Why,
    },
    /// Go on, and give the failed hosts another chance
    Retry {
        id: String,
        #[command(flatten)]
        why: Why,
    },
    /// End it: hosts that were not reached stay as they are
    Abort {
        id: String,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only say whether the record holds
    #[arg(long)]
    pub(crate) verify: bool,
    /// Verify a copy made with `audit -o json`, without a store
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How many records to show, the newest ones
    #[arg(long, default_value_t = 50)]
    pub(crate) last: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// From keys under a prefix, one host each, of this store or another
    Etcd(ImportEtcd),
}

#[derive(Debug, Args)]
pub(crate) struct ImportEtcd {
    /// What stands before the host in each key, such as /oldboy/config/
    #[arg(long)]
    pub(crate) prefix: String,
    /// What stands behind the host, such as /log_config
    #[arg(long)]
    pub(crate) suffix: Option<String>,
    /// Endpoints of the other store
    #[arg(long, value_delimiter = ',')]
    pub(crate) from: Vec<String>,
    /// Publish the objects instead of printing them
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) why: Why,
}

#[derive(Debug, Args)]
pub(crate) struct HostAction {
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) why: Why,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    /// Every host: its state, configuration, files and lag
    List,
    /// Make an edit by hand the host's own entries
    Adopt(HostAction),
    /// Undo an edit by hand: the key becomes again what was published
    Restore(HostAction),
    /// Take a host out of the fleet: its object, its memberships, its key
    Retire(HostAction),
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
    pub fn namespace(&self) -> Namespace {
        Namespace::new(&self.namespace)
    }

    /// The error is a sentence for the operator.
    pub fn connect_options(&self) -> Result<ConnectOptions, String> {
        self.options().map_err(|failure| failure.message)
    }

    /// The user of the connection, without the password.
    pub(crate) fn user_name(&self) -> Option<String> {
        let Some(user) = self.given_user() else {
            return login::kept(&self.endpoints).map(|login| login.user);
        };
        let is_whole = self.password.is_some();
        let name = user.split_once(':').filter(|_| !is_whole);
        let name = name.map_or(user, |(name, _)| name);
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    fn given_user(&self) -> Option<&str> {
        self.user.as_deref().filter(|user| !user.is_empty())
    }

    /// The password that stands on the command line or in a variable.
    pub(crate) fn given_password(&self) -> Option<String> {
        let of_user = || Some(self.given_user()?.split_once(':')?.1.to_owned());
        self.password.clone().or_else(of_user)
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    pub(crate) fn options(&self) -> Result<ConnectOptions, Failure> {
        self.options_for(&self.endpoints)
    }

    /// The same way of connecting, to these endpoints. A login that is kept for others stays there.
    pub(crate) fn options_for(&self, endpoints: &[String]) -> Result<ConnectOptions, Failure> {
        let (username, password) = match self.given_user() {
            None => login::kept(endpoints)
                .map(|login| (login.user, login.password))
                .unzip(),
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
            endpoints: endpoints.to_vec(),
            username,
            password,
            ..self.anonymous_options()
        })
    }

    /// The way of connecting, as nobody.
    pub(crate) fn anonymous_options(&self) -> ConnectOptions {
        ConnectOptions {
            endpoints: self.endpoints.clone(),
            ca: self.cacert.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
            dial_timeout: self.dial_timeout,
            request_timeout: self.command_timeout,
            ..Default::default()
        }
    }
}

impl Place {
    pub(crate) fn read(&self) -> Result<Where, Failure> {
        if let Some(group) = &self.group {
            let name = Name::new(group.as_str()).map_err(Failure::invalid)?;
            return Ok(Where::Group(name));
        }
        if let Some(selector) = &self.selector {
            return Ok(Where::Selected(selector.clone()));
        }
        let mut names = Vec::new();
        for name in self.hosts.iter().map(|name| name.trim()) {
            validate_host(name).map_err(Failure::invalid)?;
            if !names.iter().any(|seen| seen == name) {
                names.push(name.to_owned());
            }
        }
        Ok(Where::Hosts(names))
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
    fn a_key_of_the_store_is_not_the_clients_key() {
        let line = ["configctl", "--key", "k.pem", "kv", "put", "/a", "b"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert_eq!(cli.connection.key, Some(PathBuf::from("k.pem")));
        let Command::Kv(Kv::Put { key, value }) = cli.command else {
            panic!("not a put");
        };
        assert_eq!((key.as_str(), value.as_str()), ("/a", "b"));
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
        let named = Where::Hosts(vec!["b".into(), "a".into()]);
        assert_eq!(push.place.read().unwrap(), named);
        let where_ = |rest: &[&str]| {
            let line = ["configctl", "push", "/a", "-t", "t"].iter().chain(rest);
            match Cli::try_parse_from(line).ok()?.command {
                Command::Push(push) => push.place.read().ok(),
                _ => None,
            }
        };
        assert_eq!(
            where_(&["--group", "web"]),
            Some(Where::Group(Name::new("web").unwrap()))
        );
        assert!(matches!(
            where_(&["-l", "role=web"]),
            Some(Where::Selected(_))
        ));
        assert_eq!(where_(&[]), None);
        assert_eq!(where_(&["--group", "web", "--host", "a"]), None);
    }
}
