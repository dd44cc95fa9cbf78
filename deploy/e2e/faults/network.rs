//! A network that can be cut: one namespace per member, a cable from each to a bridge, and nothing
//! that leads anywhere else. The clients are at the bridge.
//!
//! A direction is cut by giving the sender a wrong hardware address of the receiver: its packets
//! still leave, and nobody takes them. Connections see silence, as behind a dead switch, and the
//! other direction works on.

use std::process::Command;

use crate::enclosure::run;

const BRIDGE: &str = "br0";
/// The clients' place in [`Network::cut`]: the bridge, with the last address.
pub(crate) const CLIENTS: usize = 253;
const NOBODY: &str = "02:00:00:00:ff:ff";

pub(crate) fn address(place: usize) -> String {
    format!("10.99.0.{}", place + 1)
}

fn hardware(place: usize) -> String {
    format!("02:00:00:00:00:{:02x}", place + 1)
}

fn namespace(member: usize) -> String {
    format!("m{}", member + 1)
}

/// The network of so many members.
#[derive(Debug)]
pub(crate) struct Network {
    members: usize,
}

impl Network {
    pub(crate) fn create(members: usize) -> anyhow::Result<Self> {
        let network = Self { members };
        run("ip", &["link", "set", "lo", "up"])?;
        run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        run(
            "ip",
            &["link", "set", BRIDGE, "address", &hardware(CLIENTS), "up"],
        )?;
        let own = format!("{}/24", address(CLIENTS));
        run("ip", &["addr", "add", &own, "dev", BRIDGE])?;
        for member in 0..members {
            let (space, cable) = (namespace(member), format!("cable{member}"));
            run("ip", &["netns", "add", &space])?;
            let pair = [
                "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ];
            run("ip", &pair)?;
            run("ip", &["link", "set", &cable, "master", BRIDGE, "up"])?;
            let inside = |arguments: &[&str]| {
                let mut all = vec!["-n", space.as_str()];
                all.extend(arguments);
                run("ip", &all)
            };
            inside(&["link", "set", "lo", "up"])?;
            inside(&["link", "set", "eth0", "address", &hardware(member), "up"])?;
            let own = format!("{}/24", address(member));
            inside(&["addr", "add", &own, "dev", "eth0"])?;
        }
        network.heal()?;
        Ok(network)
    }

    /// A command that runs in the member's namespace.
    pub(crate) fn command(&self, member: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", namespace(member)))
            .arg(program);
        command
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub(crate) fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        self.set(from, to, NOBODY)
    }

    pub(crate) fn cut_both(&self, a: usize, b: usize) -> anyhow::Result<()> {
        self.cut(a, b)?;
        self.cut(b, a)
    }

    /// Every direction works again.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        let all = || (0..self.members).chain([CLIENTS]);
        for from in all() {
            for to in all().filter(|to| *to != from) {
                self.set(from, to, &hardware(to))?;
            }
        }
        Ok(())
    }

    fn set(&self, from: usize, to: usize, hardware: &str) -> anyhow::Result<()> {
        let space = namespace(from);
        let (mut arguments, device) = if from == CLIENTS {
            (Vec::new(), BRIDGE)
        } else {
            (vec!["-n", space.as_str()], "eth0")
        };
        let to = address(to);
        arguments.extend(["neigh", "replace", &to, "lladdr", hardware]);
        // Permanent: nobody asks for it, so an answer cannot get lost or mend a cut.
        arguments.extend(["dev", device, "nud", "permanent"]);
        run("ip", &arguments)
    }
}
