//! Which of this machine's addresses is `{ip}`.
//!
//! Asks the kernel over netlink, so that the answer needs neither a route nor a peer and is the
//! same at every start. Must not open connections: an answer that depends on who can be reached
//! would give one host two config keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Answers of the kernel come in datagrams of at most this size.
const DATAGRAM_MAX_BYTES: usize = 32 * 1024;
/// No machine answers with more datagrams than this; a bound against a broken kernel.
const DATAGRAMS_MAX: usize = 1_024;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEADER_BYTES: usize = 16;
const IFADDRMSG_BYTES: usize = 8;

/// Interfaces made by container and virtual-machine software: their addresses name no host.
const VIRTUAL_PREFIXES: [&str; 10] = [
    "docker", "veth", "br-", "virbr", "cni", "flannel", "cali", "vmnet", "vboxnet", "lxc",
];

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    pub interface_index: u32,
    pub interface: String,
    pub address: IpAddr,
}

/// The address that names this host: 127.0.0.1 when there is only the loopback.
pub fn host_address() -> IpAddr {
    let addresses = local_addresses().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the local addresses: {{ip}} is 127.0.0.1");
        Vec::new()
    });
    choose(&addresses)
}

/// Prefers IPv4, real interfaces and routable addresses; then the first interface and the lowest
/// address. The same set of addresses gives the same answer in any order.
pub fn choose(addresses: &[LocalAddress]) -> IpAddr {
    addresses
        .iter()
        .filter(|candidate| !candidate.address.is_loopback() && !candidate.address.is_unspecified())
        .min_by_key(|candidate| {
            (
                candidate.address.is_ipv6(),
                link_local(candidate.address),
                VIRTUAL_PREFIXES
                    .iter()
                    .any(|prefix| candidate.interface.starts_with(prefix)),
                candidate.interface_index,
                candidate.address,
            )
        })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |candidate| {
            candidate.address
        })
}

fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn local_addresses() -> std::io::Result<Vec<LocalAddress>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // Protocol 0 of netlink is NETLINK_ROUTE.
        None,
    )?;
    let mut request = Vec::with_capacity(HEADER_BYTES + IFADDRMSG_BYTES);
    request.extend_from_slice(&24u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.resize(HEADER_BYTES + IFADDRMSG_BYTES, 0);
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &kernel)?;

    let mut found = Vec::new();
    let mut datagram = vec![0u8; DATAGRAM_MAX_BYTES];
    for _ in 0..DATAGRAMS_MAX {
        let (bytes, _) = rustix::net::recv(&socket, &mut datagram[..], RecvFlags::empty())?;
        if parse_datagram(&datagram[..bytes], &mut found)? {
            break;
        }
    }
    let names = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    for address in &mut found {
        address.interface = rustix::net::netdevice::index_to_name(&names, address.interface_index)
            .unwrap_or_default();
    }
    Ok(found)
}

/// Adds the addresses of one datagram; true when the kernel has nothing more to say.
fn parse_datagram(mut rest: &[u8], found: &mut Vec<LocalAddress>) -> std::io::Result<bool> {
    while rest.len() >= HEADER_BYTES {
        let length = u32_at(rest, 0) as usize;
        let kind = u16_at(rest, 4);
        if length < HEADER_BYTES || length > rest.len() {
            return Err(std::io::Error::other(
                "the kernel sent a malformed netlink message",
            ));
        }
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(std::io::Error::other("the kernel refused RTM_GETADDR")),
            RTM_NEWADDR => found.extend(parse_address(&rest[HEADER_BYTES..length])),
            _ => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(false)
}

fn parse_address(message: &[u8]) -> Option<LocalAddress> {
    if message.len() < IFADDRMSG_BYTES {
        return None;
    }
    let interface_index = u32_at(message, 4);
    let mut attributes = &message[IFADDRMSG_BYTES..];
    let mut address = None;
    while attributes.len() >= 4 {
        let length = u16_at(attributes, 0) as usize;
        let kind = u16_at(attributes, 2);
        if length < 4 || length > attributes.len() {
            break;
        }
        // On a point-to-point link IFA_ADDRESS is the far end and IFA_LOCAL is ours.
        match kind {
            IFA_LOCAL => address = ip_of(&attributes[4..length]).or(address),
            IFA_ADDRESS if address.is_none() => address = ip_of(&attributes[4..length]),
            _ => {}
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    Some(LocalAddress {
        interface_index,
        interface: String::new(),
        address: address?,
    })
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(interface_index: u32, interface: &str, address: &str) -> LocalAddress {
        let address = address.parse().unwrap();
        LocalAddress {
            interface_index,
            interface: interface.to_owned(),
            address,
        }
    }

    #[test]
    fn the_choice_is_the_same_in_any_order() {
        let mut addresses = vec![
            on(1, "lo", "127.0.0.1"),
            on(1, "lo", "::1"),
            on(2, "docker0", "172.17.0.1"),
            on(3, "eth0", "169.254.7.7"),
            on(3, "eth0", "192.168.56.7"),
            on(3, "eth0", "192.168.56.1"),
            on(4, "eth1", "10.0.0.1"),
            on(3, "eth0", "fe80::1"),
        ];
        for _ in 0..addresses.len() {
            addresses.rotate_left(1);
            assert_eq!(choose(&addresses).to_string(), "192.168.56.1");
        }
    }

    #[test]
    fn what_is_left_when_the_better_ones_are_missing() {
        let check = |addresses: &[LocalAddress], expected: &str| {
            assert_eq!(choose(addresses).to_string(), expected);
        };
        check(&[], "127.0.0.1");
        check(&[on(1, "lo", "127.0.0.1"), on(1, "lo", "::1")], "127.0.0.1");
        check(&[on(2, "docker0", "172.17.0.1")], "172.17.0.1");
        check(
            &[on(2, "eth0", "2001:db8::5"), on(2, "eth0", "fe80::1")],
            "2001:db8::5",
        );
        check(
            &[on(2, "eth0", "169.254.1.1"), on(9, "docker0", "172.17.0.1")],
            "172.17.0.1",
        );
    }

    #[test]
    fn the_kernel_names_the_loopback() {
        let addresses = local_addresses().unwrap();
        assert!(
            addresses
                .iter()
                .any(|a| a.address == IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "{addresses:?}"
        );
    }
}
