//! Binds addresses and explains why one cannot be had.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};

use tokio::net::{TcpListener, TcpSocket};

use crate::flags::ListenUrl;

/// Connections that wait to be accepted; many clients come back at once after a restart.
const BACKLOG: u32 = 4096;

/// One address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({url}): {cause}; nothing was changed; {advice}")]
pub struct BindError {
    address: SocketAddr,
    url: String,
    cause: io::Error,
    advice: String,
}

/// Listens on every URL, or on none.
pub(super) fn bind(
    urls: &[ListenUrl],
    flag: &str,
) -> Result<Vec<(TcpListener, SocketAddr)>, BindError> {
    urls.iter()
        .map(|url| {
            let address = SocketAddr::new(ip(&url.host), url.port);
            listen(address).map_err(|cause| BindError {
                advice: advice(&cause, flag, url.port),
                address,
                url: url.text.clone(),
                cause,
            })
        })
        .collect()
}

/// `localhost` is the IPv4 loopback, as etcd resolves it; other names do not pass the flags.
fn ip(host: &str) -> IpAddr {
    host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
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
