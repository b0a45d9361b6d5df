//! What the hosts of a run are plugged into: a thread that carries packets from one
//! to another, late, or not at all, as it was told.
//!
//! Not its job: what becomes of a packet on a line (`link`).

use super::link::{Conditions, Link};
use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tun_rs::SyncDevice;

/// Largest packet: few of them for bulk, and still many enough for loss to hurt.
pub(super) const MTU: u16 = 9_000;

/// Packets taken from one host before the next has its turn.
const TURN_PACKETS: usize = 64;

/// Packets that are on their way at most; what comes on top is dropped. A gigabyte
/// would need more than the hosts' sockets together hold.
const MOST_DELAYED: usize = 65_536;

/// How long the thread sleeps at most: it then looks whether it should end, and for
/// hosts that were plugged in.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Where an IPv4 header has its destination, and where it ends.
const DESTINATION: std::ops::Range<usize> = 16..20;

pub(super) struct Switch {
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    ports: Vec<(Ipv4Addr, Arc<SyncDevice>)>,
    links: HashMap<(Ipv4Addr, Ipv4Addr), Link>,
}

impl Switch {
    pub(super) fn new(seed: u64) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let over = Arc::new(AtomicBool::new(false));
        let mut carrier = Carrier {
            state: Arc::clone(&state),
            begun: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            delayed: BinaryHeap::new(),
            packets: 0,
        };
        let ended = Arc::clone(&over);
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || {
                while !ended.load(Relaxed) {
                    carrier.turn();
                }
            })
            .context("the switch's thread")?;
        Ok(Self { state, over, thread: Some(thread) })
    }

    pub(super) fn plug(&self, address: Ipv4Addr, device: SyncDevice) {
        self.state.lock().ports.push((address, Arc::new(device)));
    }

    /// From now on; what is on its way arrives as was decided when it was sent.
    pub(super) fn set(&self, from: Ipv4Addr, to: Ipv4Addr, change: impl FnOnce(&mut Conditions)) {
        change(&mut self.state.lock().links.entry((from, to)).or_default().conditions);
    }

    /// Every line is as good as it can be.
    pub(super) fn heal(&self) {
        self.state.lock().links.clear();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            // It has said why on standard error, and nobody needs it any more.
        }
    }
}

/// The thread's own.
struct Carrier {
    state: Arc<Mutex<State>>,
    begun: Instant,
    rng: StdRng,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// So far; orders those that arrive at the same time.
    packets: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    arrival: Duration,
    number: u64,
    to: Ipv4Addr,
    packet: Vec<u8>,
}

impl Carrier {
    /// Waits for a packet, takes what is there, delivers what is due.
    fn turn(&mut self) {
        let ports = self.state.lock().ports.clone();
        self.wait(&ports);
        let mut buffer = [0; MTU as usize];
        for (from, device) in &ports {
            for _ in 0..TURN_PACKETS {
                let Ok(length) = device.recv(&mut buffer) else { break };
                self.take(*from, &buffer[..length], &ports);
            }
        }
        while let Some(Reverse(next)) = self.delayed.peek() {
            if next.arrival > self.begun.elapsed() {
                break;
            }
            if let Some(Reverse(due)) = self.delayed.pop() {
                deliver(&ports, due.to, &due.packet);
            }
        }
    }

    fn wait(&self, ports: &[(Ipv4Addr, Arc<SyncDevice>)]) {
        let now = self.begun.elapsed();
        let due = self.delayed.peek().map(|Reverse(next)| next.arrival.saturating_sub(now));
        let sleep = due.map_or(LOOK_UP, |due| due.min(LOOK_UP));
        // Rounded up: woken too early it would turn round and round.
        let sleep = sleep.as_micros().div_ceil(1_000) as u16;
        let mut fds: Vec<_> = ports
            .iter()
            .map(|(_, device)| PollFd::new(device.as_fd(), PollFlags::POLLIN))
            .collect();
        // An interrupted wait is a short one.
        let _woken = nix::poll::poll(&mut fds, PollTimeout::from(sleep));
    }

    fn take(&mut self, from: Ipv4Addr, packet: &[u8], ports: &[(Ipv4Addr, Arc<SyncDevice>)]) {
        // Hosts speak IPv6 among themselves; nobody listens.
        let Some(to) = destination(packet) else { return };
        let now = self.begun.elapsed();
        let chance = (self.rng.random(), self.rng.random());
        let arrival =
            self.state.lock().links.entry((from, to)).or_default().send(now, packet.len(), chance);
        match arrival {
            Some(arrival) if arrival <= now => deliver(ports, to, packet),
            Some(arrival) if self.delayed.len() < MOST_DELAYED => {
                self.packets += 1;
                let number = self.packets;
                let packet = packet.to_owned();
                self.delayed.push(Reverse(Delayed { arrival, number, to, packet }));
            }
            Some(_) | None => {}
        }
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let bytes: [u8; 4] = packet.get(DESTINATION)?.try_into().ok()?;
    is_v4.then(|| Ipv4Addr::from(bytes))
}

fn deliver(ports: &[(Ipv4Addr, Arc<SyncDevice>)], to: Ipv4Addr, packet: &[u8]) {
    if let Some((_, device)) = ports.iter().find(|(address, _)| *address == to) {
        // A host that takes no more drops it, as any network card does.
        let _sent: io::Result<usize> = device.send(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ipv4_headers_have_a_destination() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 77, 0, 3]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 77, 0, 3)));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&[]), None);
    }
}
