//! Binds addresses and explains why one cannot be had.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};

use tokio::net::{TcpListener, TcpSocket};

use crate::flags::{ListenAt, ListenUrl};
use crate::socket::{Listener, Place};

/// Connections that wait to be accepted; many clients come back at once after a restart.
const BACKLOG: u32 = 4096;

/// One address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at} ({url}): {cause}; nothing was changed; {advice}")]
pub struct BindError {
    at: String,
    url: String,
    cause: io::Error,
    advice: String,
}

/// One address that is listened on.
pub(super) struct Listening {
    pub(super) listener: Listener,
    pub(super) place: Place,
    /// Whether unencrypted connections are served there.
    pub(super) is_plain: bool,
    /// Whether encrypted ones are. Both means that the first byte tells.
    pub(super) is_secure: bool,
}

/// Listens on every URL, or on none. The same address may come with http and with https.
pub(super) fn bind(urls: &[ListenUrl], flag: &str) -> Result<Vec<Listening>, BindError> {
    let mut places: Vec<&ListenUrl> = Vec::new();
    for url in urls {
        if !places.iter().any(|place| place.at == url.at) {
            places.push(url);
        }
    }
    let bound = places.into_iter().map(|first| {
        let spoken = || urls.iter().filter(|url| url.at == first.at);
        let (listener, place) = listen(first, flag)?;
        Ok(Listening {
            listener,
            place,
            is_plain: spoken().any(|url| !url.is_secure),
            is_secure: spoken().any(|url| url.is_secure),
        })
    });
    bound.collect()
}

fn listen(url: &ListenUrl, flag: &str) -> Result<(Listener, Place), BindError> {
    let fault = |at: String, cause: io::Error, advice: String| BindError {
        at,
        url: url.text.clone(),
        cause,
        advice,
    };
    match &url.at {
        ListenAt::Tcp { host, port } => {
            let address = SocketAddr::new(ip(host), *port);
            let (listener, address) = listen_tcp(address).map_err(|cause| {
                let advice = advice(&cause, flag, *port);
                fault(address.to_string(), cause, advice)
            })?;
            Ok((Listener::Tcp(listener), Place::Tcp(address)))
        }
        ListenAt::Unix(path) => {
            let listener = Listener::unix(path).map_err(|cause| {
                let advice = format!("stop who uses that file, or choose another one with {flag}");
                fault(path.display().to_string(), cause, advice)
            })?;
            Ok((listener, Place::Unix(path.clone())))
        }
    }
}

/// `localhost` is the IPv4 loopback, as etcd resolves it; other names do not pass the flags.
fn ip(host: &str) -> IpAddr {
    host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn listen_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener: StdListener = socket.listen(BACKLOG)?.into_std()?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

fn advice(cause: &io::Error, flag: &str, port: u16) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process holds port {port}: stop it, or choose another address with {flag}"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("this user may not use port {port}: choose one above 1023 with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("no interface of this machine has that address: correct {flag}")
        }
        _ => format!("choose another address with {flag}"),
    }
}
