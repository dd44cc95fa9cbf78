//! The faults: how each is made, and how it is taken back.

use std::time::Duration;

use e2e::{DEADLINE, wait_until};

use crate::calls;
use crate::dice::Dice;
use crate::members::{Member, Members};
use crate::network::CLIENTS;

/// How long a fault lasts: longer than an election timeout most of the time.
const HOLD_MS: (u64, u64) = (1_000, 4_500);
/// Wall clocks jump by so many seconds, forward or back.
const CLOCK_JUMP_S: i64 = 3_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillLeader,
    KillOthers,
    KillAll,
    PauseLeader,
    PauseOthers,
    IsolateLeader,
    IsolateOthers,
    /// Its messages get lost, and it hears the others.
    MuteLeader,
    /// It hears nothing, and the others hear it.
    DeafenLeader,
    /// Two members do not reach each other, and both reach the rest.
    CutPair,
    /// Clients do not reach the leader; the members do.
    CutClients,
    ClockJump,
    FullDisk,
    SlowDisk,
    ReplaceMember,
    MoveLeader,
    RestartInTurn,
}

pub(crate) const ALL: [Fault; 17] = [
    Fault::KillLeader,
    Fault::KillOthers,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::PauseOthers,
    Fault::IsolateLeader,
    Fault::IsolateOthers,
    Fault::MuteLeader,
    Fault::DeafenLeader,
    Fault::CutPair,
    Fault::CutClients,
    Fault::ClockJump,
    Fault::FullDisk,
    Fault::SlowDisk,
    Fault::ReplaceMember,
    Fault::MoveLeader,
    Fault::RestartInTurn,
];

impl Fault {
    /// Whether a member's process may end by itself under this fault.
    pub(crate) fn may_end_a_process(self) -> bool {
        matches!(self, Self::FullDisk)
    }
}

/// One fault under way: who is concerned.
struct Scene<'a> {
    members: &'a mut Members,
    dice: &'a mut Dice,
    leader: usize,
    /// As many as can fail together without a loss of the majority; never the leader.
    others: Vec<usize>,
}

/// Makes the fault, lets it last, takes it back. Answers what was done to whom.
pub(crate) fn play(fault: Fault, members: &mut Members, dice: &mut Dice) -> anyhow::Result<String> {
    let leader = members
        .leader()
        .unwrap_or_else(|| dice.index(members.seats.len()));
    let mut others: Vec<usize> = (0..members.seats.len())
        .filter(|at| *at != leader)
        .collect();
    dice.shuffle(&mut others);
    let minority = (members.seats.len() - 1) / 2;
    others.truncate(1 + dice.index(minority));
    let mut scene = Scene {
        members,
        dice,
        leader,
        others,
    };
    scene.play(fault)
}

impl Scene<'_> {
    fn play(&mut self, fault: Fault) -> anyhow::Result<String> {
        let (leader, others) = (self.leader, self.others.clone());
        match fault {
            Fault::KillLeader => self.kill(&[leader]),
            Fault::KillOthers => self.kill(&others),
            Fault::KillAll => {
                let all: Vec<usize> = (0..self.members.seats.len()).collect();
                self.kill(&all)
            }
            Fault::PauseLeader => self.pause(&[leader]),
            Fault::PauseOthers => self.pause(&others),
            Fault::IsolateLeader => self.isolate(&[leader]),
            Fault::IsolateOthers => self.isolate(&others),
            Fault::MuteLeader => self.cut_one_way(true),
            Fault::DeafenLeader => self.cut_one_way(false),
            Fault::CutPair => {
                self.members.network.cut_both(leader, others[0])?;
                self.hold();
                self.members.network.heal()?;
                Ok(format!(
                    "between {} and {}",
                    self.name(leader),
                    self.name(others[0])
                ))
            }
            Fault::CutClients => {
                self.members.network.cut_both(CLIENTS, leader)?;
                self.hold();
                self.members.network.heal()?;
                Ok(format!("from {}", self.name(leader)))
            }
            Fault::ClockJump => self.clock_jump(),
            Fault::FullDisk => self.full_disk(),
            Fault::SlowDisk => {
                let at = self.any();
                self.members.seats[at].disk.slow_down();
                self.hold();
                self.members.seats[at].disk.speed_up();
                Ok(self.name(at))
            }
            Fault::ReplaceMember => {
                let at = self.any();
                let before = self.name(at);
                self.members.replace(at, DEADLINE)?;
                Ok(format!("{before} by {}", self.name(at)))
            }
            Fault::MoveLeader => {
                let to = self.members.seats[others[0]].status();
                let id = to
                    .and_then(|status| status.header)
                    .map_or(0, |header| header.member_id);
                let moved = calls::move_leader(&self.members.seats[leader].client_url(), id);
                let outcome = if moved.is_some() { "" } else { " (refused)" };
                Ok(format!(
                    "{} to {}{outcome}",
                    self.name(leader),
                    self.name(others[0])
                ))
            }
            Fault::RestartInTurn => self.restart_in_turn(),
        }
    }

    fn name(&self, at: usize) -> String {
        self.members.seats[at].name.clone()
    }

    fn names(&self, all: &[usize]) -> String {
        let names: Vec<String> = all.iter().map(|at| self.name(*at)).collect();
        names.join(", ")
    }

    /// The leader as often as not.
    fn any(&mut self) -> usize {
        if self.dice.below(2) == 0 {
            self.leader
        } else {
            self.others[0]
        }
    }

    fn hold(&mut self) {
        std::thread::sleep(Duration::from_millis(
            self.dice.between(HOLD_MS.0, HOLD_MS.1),
        ));
    }

    fn kill(&mut self, victims: &[usize]) -> anyhow::Result<String> {
        for at in victims {
            self.members.seats[*at].kill()?;
        }
        if victims.len() < self.members.seats.len() {
            self.hold();
        }
        for at in victims {
            self.members.seats[*at].start(&self.members.network)?;
        }
        Ok(self.names(victims))
    }

    fn pause(&mut self, victims: &[usize]) -> anyhow::Result<String> {
        for at in victims {
            self.members.seats[*at].pause()?;
        }
        self.hold();
        for at in victims {
            self.members.seats[*at].resume()?;
        }
        Ok(self.names(victims))
    }

    /// From the other members; the clients still reach them.
    fn isolate(&mut self, victims: &[usize]) -> anyhow::Result<String> {
        for at in victims {
            for to in (0..self.members.seats.len()).filter(|to| !victims.contains(to)) {
                self.members.network.cut_both(*at, to)?;
            }
        }
        self.hold();
        self.members.network.heal()?;
        Ok(self.names(victims))
    }

    fn cut_one_way(&mut self, outgoing: bool) -> anyhow::Result<String> {
        let leader = self.leader;
        for other in (0..self.members.seats.len()).filter(|other| *other != leader) {
            let network = &self.members.network;
            if outgoing {
                network.cut(leader, other)?;
            } else {
                network.cut(other, leader)?;
            }
        }
        self.hold();
        self.members.network.heal()?;
        Ok(self.name(leader))
    }

    fn clock_jump(&mut self) -> anyhow::Result<String> {
        let at = self.any();
        let offset_s = if self.dice.below(2) == 0 {
            CLOCK_JUMP_S
        } else {
            -CLOCK_JUMP_S
        };
        self.members.seats[at].set_clock(offset_s)?;
        self.hold();
        self.members.seats[at].set_clock(0)?;
        Ok(format!("{} by {offset_s:+} s", self.name(at)))
    }

    fn full_disk(&mut self) -> anyhow::Result<String> {
        let at = self.any();
        self.members.seats[at].disk.fill()?;
        self.hold();
        let seat = &mut self.members.seats[at];
        let ended = seat.ended();
        seat.disk.free()?;
        let end = match ended {
            None => "went on".to_owned(),
            Some(status) => {
                anyhow::ensure!(
                    status.code().is_some(),
                    "{} ended with {status} on a full disk:\n{}",
                    seat.name,
                    seat.log_tail()
                );
                format!("ended with {status}")
            }
        };
        Ok(format!("{}, which {end}", self.name(at)))
    }

    fn restart_in_turn(&mut self) -> anyhow::Result<String> {
        for at in 0..self.members.seats.len() {
            let status = self.members.seats[at].terminate()?;
            anyhow::ensure!(status.success(), "{} ended with {status}", self.name(at));
            self.members.seats[at].start(&self.members.network)?;
            wait_until("the members to agree", DEADLINE, || {
                self.members.agree().then_some(())
            })?;
        }
        Ok("all".to_owned())
    }
}

/// Takes back whatever is left of a fault, and starts what has ended. Answers what had ended by
/// itself.
pub(crate) fn take_back(members: &mut Members) -> anyhow::Result<Vec<String>> {
    members.network.heal()?;
    let mut ended = Vec::new();
    for seat in &mut members.seats {
        seat.disk.speed_up();
        seat.disk.free()?;
        seat.set_clock(0)?;
        seat.resume()?;
        if !seat.is_running() {
            ended.extend(seat.ended().map(|status| describe_end(seat, status)));
            seat.kill()?;
            seat.start(&members.network)?;
        }
    }
    Ok(ended)
}

fn describe_end(seat: &Member, status: std::process::ExitStatus) -> String {
    format!("{} ended with {status}:\n{}", seat.name, seat.log_tail())
}
