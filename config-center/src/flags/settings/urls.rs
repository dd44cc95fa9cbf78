//! The flags that are addresses: where to listen, and what to tell others.

use std::path::PathBuf;

use super::text;
use crate::flags::UsageError;
use crate::flags::command_line::Given;
use crate::raft::InitialMember;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenUrl {
    /// As the operator wrote it, for messages.
    pub text: String,
    pub at: ListenAt,
    /// https or unixs
    pub is_secure: bool,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt {
    Tcp {
        /// An IP address without brackets, or `localhost`.
        host: String,
        port: u16,
    },
    /// The file of a Unix socket, below the working folder unless it is absolute.
    Unix(PathBuf),
}

impl ListenUrl {
    /// The host that clients name; `None` for a Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.at {
            ListenAt::Tcp { host, .. } => Some(host),
            ListenAt::Unix(_) => None,
        }
    }
}

/// Comma-separated `http://host:port` or `unix://file`.
pub(super) fn plain_urls(given: &Given, name: &str) -> Result<Vec<String>, UsageError> {
    let mut urls = Vec::new();
    for url in text(given, name).split(',') {
        let url = url.trim();
        check_url(&given.spelled(name), url)?;
        urls.push(url.trim_end_matches('/').to_owned());
    }
    Ok(urls)
}

pub(super) fn listen_urls(given: &Given, name: &str) -> Result<Vec<ListenUrl>, UsageError> {
    let spelled = given.spelled(name);
    let mut urls = Vec::new();
    for url in text(given, name).split(',') {
        let url = url.trim();
        let at = match socket_file(url) {
            Some("") => {
                let fault = "a Unix socket needs a file";
                return Err(UsageError::invalid(&spelled, url, fault));
            }
            Some(file) => ListenAt::Unix(PathBuf::from(file)),
            None => listen_address(&spelled, url)?,
        };
        let listen = ListenUrl {
            text: url.to_owned(),
            at,
            is_secure: url.starts_with("https://") || url.starts_with("unixs://"),
        };
        if !urls.contains(&listen) {
            urls.push(listen);
        }
    }
    Ok(urls)
}

/// What a `unix` or `unixs` url names.
fn socket_file(url: &str) -> Option<&str> {
    url.strip_prefix("unix://")
        .or_else(|| url.strip_prefix("unixs://"))
}

fn listen_address(spelled: &str, url: &str) -> Result<ListenAt, UsageError> {
    let (host, port) = split_url(spelled, url)?;
    if host != "localhost" && host.parse::<std::net::IpAddr>().is_err() {
        return Err(UsageError::invalid(
            spelled,
            url,
            "listening needs an IP address or localhost, not a host name",
        ));
    }
    Ok(ListenAt::Tcp { host, port })
}

/// An address that is told to others. A Unix socket is one that all of them find by the same name,
/// as in etcd: a file below the working folder.
fn check_url(spelled: &str, url: &str) -> Result<(), UsageError> {
    match socket_file(url) {
        None => split_url(spelled, url).map(|_| ()),
        Some(file) if file.is_empty() || file.contains('/') => Err(UsageError::invalid(
            spelled,
            url,
            "a Unix socket is advertised by the name of a file, without a path",
        )),
        Some(_) => Ok(()),
    }
}

fn split_url(spelled: &str, url: &str) -> Result<(String, u16), UsageError> {
    let fault = |fault: &str| UsageError::invalid(spelled, url, fault);
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("http" | "https") => {}
        _ => {
            let fault = fault("the URL must begin with http://, https://, unix:// or unixs://");
            return Err(fault);
        }
    }
    let uri: http::Uri = url.parse().map_err(|_| fault("it is not a URL"))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(fault("a path is not allowed"));
    }
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match uri.port_u16() {
        Some(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(fault("it needs a host and a port")),
    }
}

/// Clients reconnect to the advertised addresses, so a wrong one cuts them off. When only the
/// listening addresses are given they are advertised, unless they are wildcards.
pub(super) fn advertised_clients(
    given: &Given,
    listen: &[ListenUrl],
) -> Result<Vec<String>, UsageError> {
    if given.text("advertise-client-urls").is_some() || given.text("listen-client-urls").is_none() {
        return plain_urls(given, "advertise-client-urls");
    }
    let wildcard = |url: &&ListenUrl| {
        url.host()
            .and_then(|host| host.parse::<std::net::IpAddr>().ok())
            .is_some_and(|address| address.is_unspecified())
    };
    match listen.iter().find(wildcard) {
        Some(url) => Err(UsageError::invalid(
            &given.spelled("listen-client-urls"),
            &url.text,
            "clients cannot be told a wildcard address, set --advertise-client-urls as well",
        )),
        None => Ok(listen
            .iter()
            .map(|url| url.text.trim_end_matches('/').to_owned())
            .collect()),
    }
}

/// `name=url,…`; a name may come several times, once for each of its urls. Whether the list fits
/// this member is judged when its data folder is found to be fresh, as in etcd.
pub(super) fn initial_cluster(given: &Given) -> Result<Vec<InitialMember>, UsageError> {
    let cluster = text(given, "initial-cluster");
    let spelled = given.spelled("initial-cluster");
    let mut members: Vec<InitialMember> = Vec::new();
    for part in cluster.split(',').filter(|_| !cluster.is_empty()) {
        let Some((name, url)) = part.trim().split_once('=') else {
            return Err(UsageError::invalid(
                &spelled,
                cluster,
                "it is name=http://host:port",
            ));
        };
        check_url(&spelled, url)?;
        let url = url.trim_end_matches('/').to_owned();
        match members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url),
            None => members.push(InitialMember {
                name: name.to_owned(),
                peer_urls: vec![url],
            }),
        }
    }
    Ok(members)
}
