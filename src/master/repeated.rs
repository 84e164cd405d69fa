//! Launchers that send a signal to their child and to their process group, as timeout(1) does: the child gets one order twice.

use std::time::{Duration, Instant};

use super::world::{Arrived, Sender};

/// Nobody decides within this time that the first order was not enough.
const TOGETHER: Duration = Duration::from_millis(100);

/// The last order to stop.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    last: Option<(Arrived, Instant)>,
}

impl Repeated {
    /// Whether the last order to stop has arrived once more. Two processes give two orders, as do two different signals.
    pub(super) fn is_same(&mut self, arrived: Arrived, now: Instant) -> bool {
        let is_same = self.last.is_some_and(|(last, at)| {
            last == arrived && arrived.sender != Sender::Unknown && now < at + TOGETHER
        });
        if !is_same {
            self.last = Some((arrived, now));
        }
        is_same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;

    #[test]
    fn a_signal_counts_again_later_or_from_another_process() {
        let from = |signal: Signal, sender| Arrived {
            number: signal as i32,
            sender,
        };
        let term = from(Signal::SIGTERM, Sender::Process(1));
        let begin = Instant::now();
        let mut repeated = Repeated::default();
        let rows = [
            (term, 0, false),
            (term, 99, true),
            (term, 100, false),
            (from(Signal::SIGTERM, Sender::Process(2)), 101, false),
            (from(Signal::SIGINT, Sender::Process(2)), 102, false),
            (from(Signal::SIGINT, Sender::Kernel), 103, false),
            (from(Signal::SIGINT, Sender::Kernel), 104, true),
            (from(Signal::SIGINT, Sender::Unknown), 105, false),
            (from(Signal::SIGINT, Sender::Unknown), 106, false),
        ];
        for (arrived, after, is_same) in rows {
            let now = begin + Duration::from_millis(after);
            assert_eq!(
                repeated.is_same(arrived, now),
                is_same,
                "{arrived:?} {after}"
            );
        }
    }
}
